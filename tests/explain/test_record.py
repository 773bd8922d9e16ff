"""What is recorded of a pass is what the pass did, found again from what an observer sees."""

import numpy as np
import pytest

import tiny
from dsv4.errors import PromptError
from dsv4.explain import record
from dsv4.explain.record import MOST_TOKENS
from dsv4.model.attention import layer_frequencies
from dsv4.ops import Ops
from dsv4.ops.norm import rms_norm
from dsv4.ops.rope import rope

LENGTH = 270
"""Two HCA entries, more CSA entries than may be chosen, and a few pending tokens."""


@pytest.fixture(scope="module")
def model():
    return tiny.model(Ops())


@pytest.fixture(scope="module")
def ids():
    return tiny.tokens(3, LENGTH)


@pytest.fixture(scope="module")
def seen(model, ids):
    results = {}
    results["logits"] = model(ids, observe=results.__setitem__)
    return results


@pytest.fixture(scope="module")
def recorded(model, ids):
    return record(model, ids)


LAYERS = range(4)


@pytest.mark.parametrize("layer", LAYERS)
def test_shares_of_each_query_and_head_sum_to_one_with_the_sink(recorded, layer):
    window, entries, _, sink = recorded.layers[layer].shares
    np.testing.assert_allclose(window.sum(axis=2) + entries.sum(axis=2) + sink, 1, atol=1e-12)
    assert sink.min() > 0


@pytest.mark.parametrize("layer", LAYERS)
def test_values_weighted_by_the_shares_are_the_observed_output(model, seen, recorded, layer):
    name, config = f"layers.{layer}.attn.", model.config
    window, entries, numbers, _ = recorded.layers[layer].shares
    kv = seen[f"{name}kv"][0]
    expected = rope(seen[f"{name}o"], np.arange(LENGTH)[None], layer_frequencies(config, config.compress_ratios[layer]))
    for token in (0, 1, 7, 8, 130, LENGTH - 1):
        back = min(token + 1, config.sliding_window)
        found = sum(window[token, :, b, None] * kv[token - b] for b in range(back))
        for place, entry in enumerate(numbers[token]):
            if entry >= 0:
                found = found + entries[token, :, place, None] * seen[f"{name}compressor.out"][0, entry]
        np.testing.assert_allclose(found, expected[0, token], atol=1e-10)


@pytest.mark.parametrize("layer", LAYERS)
def test_nothing_is_read_that_cannot_be_seen(recorded, layer):
    window, entries, numbers, _ = recorded.layers[layer].shares
    for token in (0, 3, 6):
        assert not window[token, :, token + 1 :].any()
    assert not entries.swapaxes(1, 2)[numbers < 0].any()


def test_an_entry_is_the_sum_of_its_tokens_weighted_by_the_slots():
    """In a model whose gates say the same of all channels: there the mean over them is what each has."""
    source = tiny.checkpoint().changed(
        compressor__wgate__weight=lambda weight: np.broadcast_to(weight[:1], weight.shape).copy(),
        compressor__ape=lambda ape: np.broadcast_to(ape[:, :1], ape.shape).copy(),
    )
    model, ids = tiny.model(Ops(), source), tiny.tokens(5, 30)
    seen = {}
    model(ids, observe=seen.__setitem__)
    slots = record(model, ids).layers[1].slots
    block, eps, c = model.layers[1], model.config.rms_norm_eps, model.config.head_dim
    collapsed = np.einsum("tj,tjd->td", seen["layers.1.hc_attn.pre"][0], seen["layers.0.out"][0])
    kv = rms_norm(collapsed, block.hc_attn.norm, eps) @ block.attn.compressor.projections[0].T.astype(np.float64)
    for entry in (0, 1, 6):
        found = sum(slots[entry, 4 + j] * kv[4 * entry + j, c:] for j in range(4))
        if entry:
            found = found + sum(slots[entry, j] * kv[4 * entry - 4 + j, :c] for j in range(4))
        normed = rms_norm(found, block.attn.compressor.norm, eps)[None, None]
        turned = rope(normed, np.array([[4 * entry]]), layer_frequencies(model.config, 4))
        np.testing.assert_allclose(turned[0, 0], seen["layers.1.attn.compressor.out"][0, entry], atol=1e-9)
    assert not slots[0, :4].any()


@pytest.mark.parametrize("layer", LAYERS)
def test_mixing_routing_and_sizes_are_the_observed_ones(seen, recorded, layer):
    found, name = recorded.layers[layer], f"layers.{layer}."
    for part, mixing in zip(("attn", "ffn"), found.mixing, strict=True):
        for field in ("pre", "post", "comb"):
            np.testing.assert_array_equal(getattr(mixing, field), seen[f"{name}hc_{part}.{field}"][0])
    np.testing.assert_array_equal(found.routing.indices, seen[f"{name}ffn.gate.indices"])
    np.testing.assert_array_equal(found.routing.weights, seen[f"{name}ffn.gate.weights"])
    assert (found.routing.bias is None) == (layer == 0)
    size = np.sqrt(np.mean(seen[f"{name}out"][0] ** 2, axis=-1))
    np.testing.assert_allclose(found.sizes[1], size, rtol=1e-12)


@pytest.mark.parametrize("layer", LAYERS)
def test_the_streams_between_the_sublayers_lead_from_one_to_the_next(seen, layer):
    """What is observed after attention is what the experts' sub-layer mixes on."""
    name = f"layers.{layer}."
    post, comb, between = (seen[f"{name}hc_{each}"][0] for each in ("ffn.post", "ffn.comb", "attn.out"))
    answer = seen[f"{name}ffn.out"][0]
    expected = np.einsum("ti,td->tid", post, answer) + np.einsum("tji,tjd->tid", comb, between)
    np.testing.assert_allclose(seen[f"{name}out"][0], expected, atol=1e-12)


def test_the_last_opinions_are_the_softmax_of_the_logits(seen, recorded, ids):
    logits = seen["logits"][0]
    share = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    last = recorded.opinions[-1]
    np.testing.assert_allclose(last.shares, -np.sort(-share, axis=-1)[:, :5], rtol=1e-9)
    for token in (0, 100, LENGTH - 2):
        assert last.truth[token] == pytest.approx(share[token, ids[token + 1]])
        assert last.rank[token] == 1 + (share[token] > share[token, ids[token + 1]]).sum()
    assert (last.truth[-1], last.rank[-1]) == (0, 0)


def test_drafts_are_those_of_the_mtp_module(model, recorded, ids, seen):
    drafts = recorded.drafts
    logits = model.mtp_logits(model.states(ids)[:, :-1], ids[None, 1:])[0]
    np.testing.assert_array_equal(drafts.opinions.ids[:, 0], logits.argmax(axis=-1))
    np.testing.assert_array_equal(drafts.accepted, logits.argmax(axis=-1) == seen["logits"][0, 1:].argmax(axis=-1))
    assert drafts.chance.shape == (LENGTH - 1,)
    assert ((drafts.chance > 0) & (drafts.chance <= 1 + 1e-12)).all()


def test_without_an_mtp_layer_or_a_second_token_there_are_no_drafts(model):
    without = tiny.model(Ops(), num_nextn_predict_layers=0, compress_ratios=(0, 4))
    assert record(without, tiny.tokens(1, 6)).drafts is None
    assert record(model, tiny.tokens(1, 1)).drafts is None


@pytest.mark.parametrize("length", [1, 3, 4, 127, 128])
def test_texts_at_the_edges_of_blocks(model, length):
    found = record(model, tiny.tokens(2, length))
    assert [None if layer.slots is None else len(layer.slots) for layer in found.layers] == [
        None,
        length // 4 or None,
        length // 128 or None,
        length // 4 or None,
    ]


def test_a_backend_of_its_own_arrays(backend):
    ids = tiny.tokens(3, 20)
    found, expected = record(tiny.model(backend), ids), record(tiny.model(Ops()), ids)
    for ours, theirs in zip(found.layers, expected.layers, strict=True):
        np.testing.assert_allclose(ours.shares.window, theirs.shares.window, atol=1e-4)


def test_refused_texts(model):
    with pytest.raises(PromptError, match=f"expected at most {MOST_TOKENS} tokens on a page, found {MOST_TOKENS + 1}"):
        record(model, np.zeros(MOST_TOKENS + 1, np.int64))
    with pytest.raises(PromptError, match="at least one token"):
        record(model, np.zeros(0, np.int64))
    with pytest.raises(PromptError, match="max_position_embeddings"):
        record(model, np.zeros(601, np.int64))
