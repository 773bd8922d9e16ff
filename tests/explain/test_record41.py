"""What is recorded of a pass of V4.1 is what the pass did, found again from what an observer sees."""

import numpy as np
import pytest

import tiny
import tiny41
from dsv4.explain import record
from dsv4.explain.plan import plan
from dsv4.model.attention import layer_frequencies
from dsv4.model.cache import Cache
from dsv4.ops import Ops
from dsv4.ops.norm import rms_norm
from dsv4.ops.rope import rope

LENGTH = 60
"""More entries than may be chosen, more blocks than a pool may hold, and a token whose pair is not complete."""

LAYERS = range(6)


@pytest.fixture(scope="module")
def model():
    return tiny41.model(Ops())


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


def test_the_plan_says_who_makes_and_who_chooses():
    places = plan(tiny41.CONFIG)
    assert [place.kind for place in places] == ["SWA", "Full", "Reindex", "Full", "Reuse", "Reindex"]
    assert [place.source for place in places] == [None, 1, 1, 3, 3, 3]
    assert [place.chooser for place in places] == [None, 1, 2, 3, 3, 5]
    assert [(place.makes, place.chooses) for place in places][1:5] == [(1, 1), (0, 1), (1, 1), (0, 0)]
    places = plan(tiny.CONFIG)
    assert [(place.makes, place.chooses) for place in places] == [(0, 0), (1, 1), (1, 0), (1, 1)]
    assert [place.chooser for place in places] == [None, 1, None, 3]


@pytest.mark.parametrize("layer", LAYERS)
def test_values_weighted_by_the_shares_are_the_observed_output(model, seen, recorded, layer):
    """The entries are those of the source, also in layers that make none."""
    name, config, place = f"layers.{layer}.attn.", model.config, plan(model.config)[layer]
    window, entries, numbers, sink = recorded.layers[layer].shares
    np.testing.assert_allclose(window.sum(axis=2) + entries.sum(axis=2) + sink, 1, atol=1e-12)
    kv = seen[f"{name}kv"][0]
    expected = rope(seen[f"{name}o"], np.arange(LENGTH)[None], layer_frequencies(config, config.compress_ratios[layer]))
    for token in (0, 1, 7, 30, LENGTH - 1):
        back = min(token + 1, config.sliding_window)
        found = sum(window[token, :, b, None] * kv[token - b] for b in range(back))
        for at, entry in enumerate(numbers[token]):
            if entry >= 0:
                value = seen[f"layers.{place.source}.attn.compressor.out"][0, entry]
                found = found + entries[token, :, at, None] * value
        np.testing.assert_allclose(found, expected[0, token], atol=1e-10)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_sub_layer_reads_with_the_share_that_is_recorded(model, seen, recorded, layer):
    """Attention's input, found from the streams before it and the recorded share, gives the observed window keys."""
    block = model.layers[layer]
    before = model.first_streams(tiny.tokens(3, LENGTH)[None]) if layer == 0 else seen[f"layers.{layer - 1}.out"]
    before = seen.get(f"layers.{layer}.engram.out", before)[0]
    x = rms_norm(
        np.einsum("tj,tjd->td", recorded.layers[layer].mixing[0].pre, before),
        block.attn_norm,
        block.config.rms_norm_eps,
    )
    np.testing.assert_allclose(
        block.attn.keys(x[None], np.arange(LENGTH)[None]), seen[f"layers.{layer}.attn.kv"], atol=1e-10
    )


@pytest.mark.parametrize("layer", LAYERS)
def test_mixing_routing_and_sizes_are_the_observed_ones(seen, recorded, layer):
    found, name = recorded.layers[layer], f"layers.{layer}."
    for part, mixing in zip(("attn", "ffn"), found.mixing, strict=True):
        np.testing.assert_array_equal(mixing.post, seen[f"{name}hc_{part}.post"][0])
        np.testing.assert_array_equal(mixing.comb, seen[f"{name}hc_{part}.comb"][0])
    np.testing.assert_array_equal(found.mixing[1].pre, seen[f"{name}attn_pre_mix"][0])
    between, answer = seen[f"{name}hc_attn.out"][0], seen[f"{name}ffn.out"][0]
    mixed = np.einsum("ti,td->tid", found.mixing[1].post, answer) + np.einsum(
        "tji,tjd->tid", found.mixing[1].comb, between
    )
    np.testing.assert_allclose(seen[f"{name}out"][0], mixed, atol=1e-12)
    np.testing.assert_array_equal(found.routing.indices, seen[f"{name}ffn.gate.indices"])
    np.testing.assert_array_equal(found.routing.weights, seen[f"{name}ffn.gate.weights"])
    weights = np.take_along_axis(found.routing.scores, found.routing.indices, axis=1)
    np.testing.assert_allclose(found.routing.weights, 1.5 * weights / weights.sum(axis=1, keepdims=True), rtol=1e-9)
    np.testing.assert_allclose(found.sizes[1], np.sqrt(np.mean(seen[f"{name}out"][0] ** 2, axis=-1)), rtol=1e-12)


@pytest.mark.parametrize("layer", [1, 2, 3, 5])
def test_the_chosen_entries_are_the_best_of_those_allowed(model, recorded, layer):
    choice, k = recorded.layers[layer].choice, model.config.index_topk
    ratio = model.config.compress_ratios[layer]
    for token in (0, 1, 5, 20, LENGTH - 1):
        visible = np.arange(choice.scores.shape[1]) < (token + 1) // ratio
        may = visible if choice.allowed is None else visible & choice.allowed[token]
        best = [entry for entry in np.argsort(-choice.scores[token], kind="stable") if may[entry]][:k]
        assert [entry for entry in choice.chosen[token] if entry >= 0] == best
    assert (choice.allowed is not None) == (layer == 5)


def test_the_pool_is_made_in_one_layer_and_bounds_a_later_choice(model, recorded):
    pools = [layer.pool for layer in recorded.layers]
    assert [pool is not None for pool in pools] == [False, False, False, True, False, False]
    size, blocks = model.config.candidate_block_size, model.config.candidate_topk_blocks
    last = recorded.layers[5].choice.allowed[LENGTH - 1]
    expected = {entry for block in pools[3][LENGTH - 1] for entry in range(block * size, (block + 1) * size)}
    assert set(np.flatnonzero(last)) == expected
    assert pools[3].shape == (LENGTH, blocks) and (LENGTH - 1) // size in pools[3][LENGTH - 1]


def test_a_layer_that_reuses_a_choice_reads_what_was_chosen(recorded):
    assert recorded.layers[4].choice is None
    np.testing.assert_array_equal(recorded.layers[4].shares.numbers, recorded.layers[3].choice.chosen)


@pytest.mark.parametrize("layer", [0, 3])
def test_the_gates_are_those_of_the_engram(model, seen, recorded, layer):
    lookup, name, n = recorded.layers[layer].lookup, f"layers.{layer}.engram.", model.config.hc_mult
    value = seen[f"{name}kv"][0, :, n * model.config.hidden_size :]
    added = seen[f"{name}out"][0] - seen[f"{name}in"][0]
    np.testing.assert_allclose(added, lookup.gates[..., None] * value[:, None], atol=1e-12)
    np.testing.assert_array_equal(lookup.rows, seen[f"{name}hash_ids"][0])
    assert recorded.layers[1].lookup is None


def test_an_entry_is_the_sum_of_its_tokens_weighted_by_the_slots():
    """In a model whose gates say the same of all channels: there the mean over them is what each has."""
    source = tiny41.checkpoint().changed(
        compressor__wgate__weight=lambda weight: np.broadcast_to(weight[:1], weight.shape).copy()
    )
    model, ids = tiny41.model(Ops(), source), tiny.tokens(5, 20)
    seen = {}
    model(ids, observe=seen.__setitem__)
    found = record(model, ids)
    slots, block, eps = found.layers[1].slots, model.layers[1], model.config.rms_norm_eps
    x = rms_norm(np.einsum("tj,tjd->td", found.layers[1].mixing[0].pre, seen["layers.0.out"][0]), block.attn_norm, eps)
    kv = x @ block.attn.source.wkv.T.astype(np.float64)
    summed = np.einsum("np,npc->nc", slots, kv.reshape(10, 2, -1))
    np.testing.assert_allclose(
        rms_norm(summed, block.attn.source.norm, eps), seen["layers.1.attn.compressor.latent"][0], atol=1e-9
    )
    np.testing.assert_array_equal(found.layers[3].slots, np.ones((20, 1)))
    assert found.layers[2].slots is None


def test_the_last_opinions_are_the_softmax_of_the_logits(seen, recorded, ids):
    logits = seen["logits"][0]
    share = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    last = recorded.opinions[-1]
    np.testing.assert_allclose(last.shares, -np.sort(-share, axis=-1)[:, :5], rtol=1e-9)
    assert last.truth[7] == pytest.approx(share[7, ids[8]])
    assert len(recorded.opinions) == 7
    np.testing.assert_array_equal(recorded.head_pre, seen["layers.5.pre_mix"][0])


def test_drafts_are_those_of_the_drafter_behind_each_token(model, recorded, ids, seen):
    drafts, places = recorded.drafts, model.config.dspark.block_size
    assert drafts.blocks.shape == drafts.confidence.shape == (LENGTH - 1, places)
    for token in (1, 7, LENGTH - 1):
        cache: Cache = model.new_cache()
        model(ids[:token], cache)
        draft = model.dspark.draft(
            model.draft_block(ids[token : token + 1], cache), ids[token : token + 1], lambda one: one.argmax(-1)
        )
        np.testing.assert_array_equal(drafts.blocks[token - 1], draft.ids[0])
        np.testing.assert_allclose(drafts.confidence[token - 1], 1 / (1 + np.exp(-draft.confidence[0])), rtol=1e-6)
        assert drafts.opinions.ids[token - 1, 0] == draft.ids[0, 0]
        assert drafts.accepted[token - 1] == (draft.ids[0, 0] == seen["logits"][0, token].argmax())


@pytest.mark.parametrize("length", [1, 2, 3])
def test_texts_of_a_few_tokens(model, length):
    found = record(model, tiny.tokens(2, length))
    assert [None if layer.slots is None else len(layer.slots) for layer in found.layers] == [
        None, length // 2 or None, None, length, None, None
    ]  # fmt: skip
    assert (found.drafts is None) == (length == 1)


def test_a_model_without_an_engram_a_pool_and_a_drafter():
    plain = tiny41.config().without_draft_layers()
    source = tiny41.checkpoint()
    weights = {name: weight for name, weight in source.weights.items() if not name.startswith("mtp.")}
    model = tiny41.model(Ops(), type(source)(plain, weights))
    assert record(model, tiny.tokens(1, 6)).drafts is None
    without = tiny41.config(engram=None, candidate_source_layer_id=None)
    found = record(tiny41.model(Ops(), type(source)(without, source.weights)), tiny.tokens(1, 9))
    assert all(layer.lookup is None and layer.pool is None for layer in found.layers)
    assert all(layer.choice is None or layer.choice.allowed is None for layer in found.layers)


def test_a_backend_of_its_own_arrays(backend):
    ids = tiny.tokens(3, 20)
    found, expected = record(tiny41.model(backend), ids), record(tiny41.model(Ops()), ids)
    for ours, theirs in zip(found.layers, expected.layers, strict=True):
        np.testing.assert_allclose(ours.shares.window, theirs.shares.window, atol=1e-4)
        if theirs.lookup is not None:
            np.testing.assert_allclose(ours.lookup.gates, theirs.lookup.gates, atol=1e-4)


def test_the_drafts_of_a_dspark_drafter_of_v4(model):
    found = record(tiny.model(Ops(), **tiny.DSPARK), tiny.tokens(1, 12)).drafts
    assert found.blocks.shape == (11, 5)
    np.testing.assert_array_equal(found.blocks[:, 0], found.opinions.ids[:, 0])
