"""The indexer's standing on a text: 1 for the best choice, about 0 for a blind one, between them for a trained one."""

from pathlib import Path

import numpy as np
import pytest

import tiny
from dsv4 import Tokenizer, bundled_model, load
from dsv4.learn.evaluation import indexer_standing, intervened, random_choice
from dsv4.learn.losses.indexer import attention_to_entries, visible_entries
from dsv4.ops import Ops

TEMPEST = (Path(__file__).parents[2] / "data/eval/eval.txt").read_text(encoding="utf-8")
FIRST, LAST = "layers.1.attn.", "layers.3.attn."


@pytest.fixture(scope="module")
def ids():
    return Tokenizer.from_file(bundled_model()).encode(TEMPEST)[:1024]


def test_the_bundled_models_indexers_are_near_the_best_choice(ids):
    found = indexer_standing(load(backend="numpy", fake_quant="off"), ids)
    assert list(found) == [FIRST, LAST]
    for one in found.values():
        assert one.chance < one.chosen < one.best < 1
        assert one.standing > 0.8


def test_a_blind_choice_stands_at_0(ids):
    model = load(backend="numpy", fake_quant="off")
    blind = indexer_standing(intervened(model, random_choice), ids)
    assert max(abs(one.standing) for one in blind.values()) < 0.02


class Best(Ops):
    """NumPy's backend, on which the first CSA layer reads the entries that its attention gives most."""

    def __init__(self, attention):
        self.rankings = [attention]

    def index_top_k(self, queries, keys, weights, visible, k):
        ranking = self.rankings.pop() if self.rankings else self.index_scores(queries, keys, weights)
        return self.top_k(ranking, visible, k)


def test_a_choice_by_attention_stands_at_1(ids):
    model, seen = load(backend="numpy", fake_quant="off"), {}
    model(ids, observe=seen.__setitem__)
    q, kv, entries = (seen[FIRST + part] for part in ("q", "kv", "compressor.out"))
    visible = visible_entries(np.ones((1, 1024), bool), entries.shape[1])
    width = model.config.sliding_window
    attention = attention_to_entries(q, kv, entries, model.layers[1].attn.attn_sink, width, visible)
    best = indexer_standing(intervened(model, lambda ops: Best(attention)), ids)
    assert best[FIRST].standing == pytest.approx(1, abs=1e-5)  # nothing before layer 1 depends on a choice


def test_a_text_in_which_nothing_need_be_chosen_has_none():
    model = tiny.model(Ops(), dtype=np.float32)
    assert indexer_standing(model, tiny.tokens(0, 4 * tiny.CONFIG.index_topk + 3)) == {}
    assert list(indexer_standing(model, tiny.tokens(0, 4 * tiny.CONFIG.index_topk + 4))) == [FIRST, LAST]
