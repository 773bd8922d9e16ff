"""The cache's picture shows the rows of a real cache and the bytes of the whole model's."""

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

import tiny
from dsv4.checkpoint import read_config
from dsv4.config import LAYER_KINDS
from dsv4.cost.memory import cache_bytes
from dsv4.errors import SettingError
from dsv4.ops import Ops
from dsv4.pictures.cache import LABELS, cache_parts, draw_cache
from dsv4.pictures.svg import LIGHT, WIDTH
from pictures.reading import read
from pictures.stored import ROOT

CONFIGS = {name: read_config(ROOT / f"tests/data/configs/deepseek-v4-{name}.json") for name in ("flash", "pro")}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("context", [1, 3, 130, 1000, 1_000_003])
def test_the_layers_together_are_the_cache_of_the_model(name, context):
    config = CONFIGS[name]
    kinds = Counter(config.layer_kind(layer) for layer in range(config.num_hidden_layers))
    total = Counter()
    for kind, parts in cache_parts(config, context).items():
        for part in parts:
            total[part.name] += kinds[kind] * part.nbytes
    assert total == cache_bytes(config, context, "packed")


@pytest.mark.parametrize("length", [1, 3, 4, 7, 130, 259])
def test_rows_and_bytes_are_those_of_a_real_cache(length):
    """A cache that need not roll back, in float32, of a model with one layer of a kind."""
    for ratio, kind in LAYER_KINDS.items():
        model = tiny.model(Ops(), dtype=np.float32, compress_ratios=(ratio,), num_nextn_predict_layers=0)
        cache = model.new_cache(max_rollback=0)
        model(tiny.tokens(1, 1, length), cache)
        parts = cache_parts(model.config, length, "float32")[kind]
        found = {name: nbytes for name, nbytes in cache.nbytes().items() if nbytes or name == "window"}
        assert {part.name: part.nbytes for part in parts if part.nbytes} == found
        c, width = model.config.head_dim, model.config.index_head_dim
        pending = 2 * (2 * (c + width) if kind == "CSA" else c)  # values and scores, of keys as well as of entries
        numbers = {"window": c, "compressed": c, "indexer keys": width, "pending": pending}
        assert all(part.nbytes == part.rows * numbers[part.name] * 4 for part in parts)


def test_a_context_without_a_token_is_refused():
    with pytest.raises(SettingError, match="context: expected at least 1 token, found 0"):
        cache_parts(CONFIGS["flash"], 0)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("context", [100, 1_000_000])
def test_the_picture_says_these_numbers(name, context):
    config = CONFIGS[name]
    picture = read(draw_cache(config, context, "A model", LIGHT).svg())
    rows = [part for parts in cache_parts(config, context).values() for part in parts]
    products = [f"{part.rows:,} × {part.nbytes // part.rows:,} B" if part.rows else "none now" for part in rows]
    shown = [word for word in picture.words if re.fullmatch(r"[\d,]+ × [\d,]+ B|none now", word)]
    assert shown == products
    assert all(part.rows == 0 or part.nbytes % part.rows == 0 for part in rows)
    megabytes = [word for word in picture.words if word.endswith(" MB")]
    total = sum(cache_bytes(config, context, "packed").values())
    assert megabytes == [f"{nbytes / 1e6:,.2f} MB" for nbytes in [*(part.nbytes for part in rows), total]]
    assert [word for word in picture.words if word in LABELS.values()] == [LABELS[part.name] for part in rows]


def test_the_bar_is_to_scale():
    config = CONFIGS["flash"]
    picture = read(draw_cache(config, 1_000_000, "Flash", LIGHT).svg())
    ground = next(rect for rect in picture.rects if rect.colour == LIGHT.panel and rect.right - rect.left < WIDTH / 1.3)
    bars = [rect for rect in picture.rects if (rect.top, rect.bottom) == (ground.top, ground.bottom)][1:]
    kinds = Counter(config.layer_kind(layer) for layer in range(config.num_hidden_layers))
    parts = cache_parts(config, 1_000_000)
    sums = np.array([kinds[kind] * sum(part.nbytes for part in rows) for kind, rows in parts.items()])
    widths = np.array([bar.right - bar.left for bar in bars])
    np.testing.assert_allclose(widths, sums / sums.sum() * (ground.right - ground.left), atol=0.02)


def test_a_model_of_one_kind_has_one_panel():
    config = replace(tiny.config(compress_ratios=(128, 128), num_nextn_predict_layers=0), num_hash_layers=0)
    picture = read(draw_cache(config, 300, "One kind", LIGHT).svg())
    assert "2 layers" in picture.words
    assert "indexer keys" not in picture.words
    assert all(picture.rects[0].holds(text) for text in picture.texts)
