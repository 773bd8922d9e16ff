"""What stands on a page is what was recorded, within the steps that the page states."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

import dsv4
import tiny
from dsv4.cost.memory import cache_bytes
from dsv4.errors import SettingError
from dsv4.explain import Record, record, write_page
from dsv4.explain.data import NOBODY, grouped
from dsv4.explain.layers import Choice, LayerRecord, Routing, Shares
from dsv4.explain.opinions import Drafts, Opinions
from dsv4.explain.page import page
from dsv4.explain.room import Room
from dsv4.explain.words import pieces, word
from dsv4.ops import Ops
from dsv4.ops.mhc import MhcWeights
from explain.reading import read

LENGTH = 270
SIXTEEN = 1 / (2**16 - 1)
"""A step of 16 bits."""


@pytest.fixture(scope="module")
def tokenizer():
    return dsv4.Tokenizer.from_file(dsv4.bundled_model())


@pytest.fixture(scope="module")
def model():
    return tiny.model(Ops(), vocab_size=1024)


@pytest.fixture(scope="module")
def recorded(model):
    return record(model, tiny.tokens(3, LENGTH, vocab=1000))


@pytest.fixture(scope="module")
def html(model, tokenizer, recorded):
    return page(model, tokenizer, recorded)


@pytest.fixture(scope="module")
def shown(html):
    return read(html)


LAYERS = range(4)


@pytest.mark.parametrize("layer", LAYERS)
def test_shares_and_their_sums(model, recorded, shown, layer):
    found, shares = shown["layers"][layer]["shares"], recorded.layers[layer].shares
    sums = np.stack([shares.window.sum(axis=2), shares.entries.sum(axis=2), shares.sink], axis=2)
    np.testing.assert_allclose(found["sums"][:, 1:], sums, atol=SIXTEEN)
    np.testing.assert_allclose(found["sums"][:, 0], sums.mean(axis=1), atol=SIXTEEN)
    window, heads = found["window"], model.config.num_attention_heads
    for token in (0, 5, 140, LENGTH - 1):
        for row in range(1 + heads):
            chosen = slice(None) if row == 0 else slice(row - 1, row)
            expected = {back: shares.window[token, chosen, back].mean() for back in range(window)}
            for place, entry in enumerate(shares.numbers[token]):
                if entry >= 0:
                    expected[window + entry] = shares.entries[token, chosen, place].mean()
            keys = found["keys"][token, row].astype(int)
            kept = {key: found["shares"][token, row, at] for at, key in enumerate(keys) if key != NOBODY}
            assert kept.keys() <= expected.keys()
            for key, share in expected.items():
                assert kept.get(key, 0) == pytest.approx(share, abs=2 * SIXTEEN)


@pytest.mark.parametrize("layer", [1, 3])
def test_the_indexers_choice(recorded, shown, layer):
    found, choice = shown["layers"][layer]["choice"], recorded.layers[layer].choice
    step = np.ptp(choice.scores) * SIXTEEN
    for token in (3, 8, 40, LENGTH - 1):
        visible = (token + 1) // 4
        chosen = [entry for entry in choice.chosen[token] if entry >= 0]
        count = int(found["chosen"][token])
        assert (count, found["visible"][token]) == (len(chosen), visible)
        entries = [int(entry) for entry in found["entries"][token] if entry != NOBODY]
        assert set(entries[:count]) == set(chosen)
        assert sorted(entries) == list(range(visible))
        for place, entry in enumerate(entries):
            assert found["scores"][token, place] == pytest.approx(choice.scores[token, entry], abs=step)
        refused = choice.scores[token, entries[count:]]
        assert (np.diff(refused) <= 0).all()


@pytest.mark.parametrize("layer", LAYERS)
def test_mixing_and_experts(model, recorded, shown, layer):
    found, made = shown["layers"][layer], recorded.layers[layer]
    n = model.config.hc_mult
    for packed, mixing in zip(found["mixing"], made.mixing, strict=True):
        np.testing.assert_allclose(packed[:, :n], mixing.pre, atol=2 * SIXTEEN)
        np.testing.assert_allclose(packed[:, n : 2 * n], mixing.post, atol=2 * SIXTEEN)
        np.testing.assert_allclose(packed[:, 2 * n :].reshape(-1, n, n), mixing.comb, atol=2 * SIXTEEN)
    k = model.config.num_experts_per_tok
    experts = found["routing"]["experts"].astype(int)
    np.testing.assert_array_equal(experts[:, :k], made.routing.indices)
    np.testing.assert_array_equal(np.sort(experts), np.broadcast_to(np.arange(6), experts.shape))
    scores = np.take_along_axis(made.routing.scores, experts, axis=1)
    np.testing.assert_allclose(found["routing"]["scores"], scores, atol=scores.max() * SIXTEEN)
    np.testing.assert_allclose(found["routing"]["weights"], made.routing.weights, atol=2 * SIXTEEN)


def test_opinions_and_drafts(recorded, shown):
    pairs = [*zip(shown["opinions"], recorded.opinions, strict=True)]
    pairs.append((shown["drafts"]["opinions"], recorded.drafts.opinions))
    for found, made in pairs:
        np.testing.assert_array_equal(found["ids"], made.ids)
        np.testing.assert_array_equal(found["rank"], made.rank)
        np.testing.assert_allclose(found["shares"], made.shares, atol=SIXTEEN)
        np.testing.assert_allclose(found["truth"], made.truth, atol=SIXTEEN)
    np.testing.assert_array_equal(shown["drafts"]["accepted"], recorded.drafts.accepted)


def test_bytes_of_the_cache_are_those_of_the_cost(model, shown):
    config, cache = model.config, shown["cache"]
    for tokens in (1, 4, 127, LENGTH):
        found = sum(cache["kinds"][kind][tokens - 1] for kind in cache["of_layer"])
        assert dict(zip(cache["parts"], found, strict=True)) == cache_bytes(config, tokens, "packed")


def test_a_page_fetches_nothing_and_no_text_ends_its_data(model, tokenizer):
    ids = tokenizer.encode("</script><script>alert(1)</script><!-- & {{style}} <｜User｜>")
    html = page(model, tokenizer, record(model, ids))
    assert html.count("</script>") == html.count("<script") == 3
    assert "<" not in re.search(r'id="data">(.*?)</script>', html, re.DOTALL)[1]
    assert "".join(piece for _, piece in read(html)["tokens"]) == tokenizer.decode(ids)
    without_svg_names = html.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?:|//[a-z]+\.", without_svg_names)
    assert not re.search(r"\b(src|srcset|action|poster)=|@import|url\(|fetch\(|XMLHttpRequest|import\(", html)
    assert "default-src 'none'" in html


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("x", {"text"}),
        ("a <｜User｜> b", {"text", "control"}),
        ("😀", {"bytes"}),
        ("שלום", {"bytes"}),
        ("\n\n\t \r\n", {"text"}),
    ],
)
def test_odd_texts(model, tokenizer, text, kinds):
    ids = tokenizer.encode(text, allow_special=True)
    shown = read(page(model, tokenizer, record(model, ids)))
    words = [shown["words"][str(token)] for token, _ in shown["tokens"]]
    assert {kind for _, kind in words} == kinds
    assert "".join(piece for _, piece in shown["tokens"]) == tokenizer.decode(ids)


def test_a_token_of_part_of_a_character_is_shown_by_its_bytes(tokenizer):
    ids = tokenizer.encode("é"[:1] + "😀")
    assert b"".join(tokenizer.token_bytes(one) for one in ids) == "é😀".encode()
    for one in tokenizer.encode("😀"):
        assert word(tokenizer, one) == (tokenizer.token_bytes(one).hex(" ").upper(), "bytes")
    assert pieces(tokenizer, tokenizer.encode("😀"))[-1] == "😀"
    assert word(tokenizer, tokenizer.vocab_size + 5) == (f"#{tokenizer.vocab_size + 5}", "none")


def test_a_model_that_is_large_in_every_way_still_fits():
    """61 layers and 64 heads over 256 tokens: noise, which deflates worse than any model."""
    config = tiny.config(
        compress_ratios=(128, 128, *(4, 128) * 29, 4, 0), num_attention_heads=64, sliding_window=128, index_topk=1024,
        n_routed_experts=384, num_experts_per_tok=6, vocab_size=1024,
    )  # fmt: skip
    model, tokenizer, recorded = _noise(config, 256)
    html = page(model, tokenizer, recorded)
    assert len(html.encode()) < 5_000_000
    shown = read(html)
    assert shown["room"]["keys"] >= 16
    sinks = grouped(recorded.layers[5].shares.sink, shown["room"]["sums"])
    np.testing.assert_allclose(shown["layers"][5]["shares"]["sums"][:, 1:, 2], sinks, atol=1 / 255)


def test_a_small_text_of_a_small_model_is_kept_whole():
    room = Room.of(tiny.CONFIG, 64)
    assert (room.groups, room.sums, room.experts, room.bits) == (4, 4, 6, 16)
    assert room.keys >= tiny.CONFIG.sliding_window + tiny.CONFIG.index_topk
    assert room.scores == 16


@pytest.mark.parametrize("length", [1, 256, 4096])
@pytest.mark.parametrize(("layers", "heads"), [(1, 1), (4, 4), (43, 64), (61, 128), (61, 3)])
def test_heads_are_shown_in_groups_of_one_size(layers, heads, length):
    ratios = (4,) * layers + (0,)
    room = Room.of(tiny.config(compress_ratios=ratios, num_attention_heads=heads, o_groups=1), length)
    assert heads % room.groups == 0
    assert heads % room.sums == 0
    assert room.keys >= min(16, tiny.CONFIG.sliding_window + max(tiny.CONFIG.index_topk, length // 128))


def test_where_links_lead(model, tokenizer, recorded, tmp_path):
    path = tmp_path / "inside" / "page.html"
    path.parent.mkdir()
    write_page(path, model, tokenizer, recorded, str(tmp_path))
    assert read(path.read_text(encoding="utf-8"))["base"] == "../"
    write_page(path, model, tokenizer, recorded, "https://example.org/dsv4/")
    assert read(path.read_text(encoding="utf-8"))["base"] == "https://example.org/dsv4/"


def test_a_page_that_cannot_be_written(model, tokenizer, recorded, tmp_path):
    with pytest.raises(SettingError, match="expected a file"):
        write_page(tmp_path, model, tokenizer, recorded)
    assert list(tmp_path.iterdir()) == []


def _noise(config, length):
    """A model without weights, a tokenizer, and a record of noise."""
    generator = np.random.default_rng(0)
    heads, n, experts = config.num_attention_heads, config.hc_mult, config.n_routed_experts
    raw = generator.random((length, heads, config.sliding_window + length // 4 + 1), dtype=np.float32) ** 20

    def shares(ratio):
        count = length // ratio if ratio else 0
        rows = raw[:, :, : config.sliding_window + count + 1]
        rows = rows / rows.sum(axis=2, keepdims=True)
        seen = (np.arange(length)[:, None] + 1) // (ratio or 1)
        numbers = np.where(np.arange(count) < seen, np.arange(count), -1)
        return Shares(
            rows[:, :, : config.sliding_window], rows[:, :, config.sliding_window : -1], numbers, rows[:, :, -1]
        )

    of_ratio = {ratio: shares(ratio) for ratio in set(config.compress_ratios)}

    def mixing():
        return MhcWeights(*(generator.random(shape) for shape in ((length, n), (length, n), (length, n, n))))

    def opinions(count):
        ids, rank = generator.integers(0, 1000, (count, 5)), generator.integers(0, 1000, count)
        return Opinions(ids, generator.random((count, 5)), generator.random(count), rank)

    def choice():
        scores = generator.normal(size=(length, length // 4))
        visible = np.arange(length // 4) < (np.arange(length)[:, None] + 1) // 4
        return Choice(scores, np.where(visible, np.arange(length // 4), -1))

    def routing():
        indices = np.argsort(generator.random((length, experts)))[:, : config.num_experts_per_tok]
        weights = generator.random(indices.shape)
        return Routing(generator.random((length, experts)), generator.random(experts), indices, weights)

    layers = [
        LayerRecord(
            (mixing(), mixing()),
            generator.random((2, length, n)),
            generator.random((2, length)),
            generator.random((length, heads)),
            of_ratio[ratio],
            generator.random((length // ratio, 2 * ratio if ratio == 4 else ratio)) if ratio else None,
            choice() if ratio == 4 else None,
            routing(),
        )
        for ratio in config.compress_ratios[: config.num_hidden_layers]
    ]
    drafts = Drafts(opinions(length - 1), generator.random(length - 1) > 0.5, generator.random(length - 1))
    model = SimpleNamespace(config=config, rounds=True, mtp=object(), dspark=None, ops=Ops())
    found = Record(
        generator.integers(0, 1000, length),
        generator.random(length),
        layers,
        [opinions(length) for _ in range(len(layers) + 1)],
        generator.random((length, n)),
        drafts,
    )
    return model, dsv4.Tokenizer.from_file(dsv4.bundled_model()), found
