"""The model against the naive forward pass: every layer kind, both routings, the MTP layer, rounding off and on."""

import functools
from dataclasses import replace

import numpy as np
import pytest

import tiny
from model.naive import NaiveModel

MODELS = [(0, 4, 128, 4, 0), (4, 128, 0, 4), (128, 0, 0, 128)]
"""compress_ratios, the MTP layer's last."""

ROUNDED = ["-", "attn.wq", "ffn.experts"]
"""Which quantised weights stay dense: none, some of attention's, the routed experts'."""

IDS = tiny.tokens(1, 270)


@functools.cache
def naive(ratios, **changes):
    """The naive logits, states and MTP logits of one tiny model for IDS."""
    return naive_results(tiny.checkpoint(compress_ratios=ratios, **changes), IDS)


@functools.cache
def rounded(keep_dense):
    checkpoint = tiny.quantised(tiny.checkpoint(**tiny.WIDE), keep_dense)
    return checkpoint, naive_results(checkpoint, IDS[:140], round_on=True)


def naive_results(checkpoint, ids, round_on=False):
    slow = NaiveModel(checkpoint, round_on)
    states = slow.states(ids)
    return np.stack([slow.head("", X) for X in states]), states, slow.mtp_logits(states[:-1], ids[1:])


def results(model, ids):
    """The same three of a model, for one sequence."""
    states = model.states(ids)
    fetch = model.ops.to_numpy
    return [fetch(part)[0] for part in (model.head(states), states, model.mtp_logits(states[:, :-1], ids[1:]))]


def same(found, expected):
    for one, other in zip(found, expected, strict=True):
        tiny.close(one, other)


@pytest.mark.parametrize("ratios", MODELS)
def test_every_layer_kind(backend, ratios):
    same(results(tiny.model(backend, compress_ratios=ratios), IDS), naive(ratios))


@pytest.mark.parametrize("hash_layers", [0, 1])
@pytest.mark.parametrize("ratio", [0, 4, 128])
def test_one_layer(backend, ratio, hash_layers):
    ratios = (ratio, 0)
    model = tiny.model(backend, compress_ratios=ratios, num_hash_layers=hash_layers)
    same(results(model, IDS), naive(ratios, num_hash_layers=hash_layers))


def test_all_entries_are_read_when_there_are_fewer_than_topk(backend):
    changes = {"compress_ratios": (4, 0), "index_topk": 500}
    checkpoint = tiny.checkpoint(**changes)
    same(results(tiny.model(backend, checkpoint), IDS[:60]), naive_results(checkpoint, IDS[:60]))


@pytest.mark.parametrize("window", [1, 300])
def test_windows_of_one_token_and_longer_than_the_prompt(backend, window):
    checkpoint = tiny.checkpoint(sliding_window=window)
    same(results(tiny.model(backend, checkpoint), IDS[:135]), naive_results(checkpoint, IDS[:135]))


@pytest.mark.parametrize("keep_dense", ROUNDED)
def test_quantised_weights_and_rounded_activations(backend, keep_dense):
    """In float64, where no number lies so near a boundary that the order of a sum tips it."""
    checkpoint, expected = rounded(keep_dense)
    same(results(tiny.model(backend, checkpoint, fake_quant=True, dtype=np.float64), IDS[:140]), expected)


def test_quantised_weights_without_rounding(backend):
    checkpoint = tiny.quantised(tiny.checkpoint(**tiny.WIDE))
    same(results(tiny.model(backend, checkpoint), IDS[:40]), naive_results(checkpoint, IDS[:40]))


def test_dense_weights_round_keys_but_no_inputs(backend):
    checkpoint = tiny.checkpoint(**tiny.WIDE)
    expected = naive_results(checkpoint, IDS[:40], round_on=True)
    same(results(tiny.model(backend, checkpoint, fake_quant=True), IDS[:40]), expected)


def test_float32_is_the_default_and_close_to_float64(backend):
    checkpoint = tiny.checkpoint()
    single = results(tiny.model(backend, checkpoint, dtype=np.float32), IDS)
    for found, expected in zip(single, naive((0, 4, 128, 4, 0)), strict=True):
        assert found.dtype == np.float32
        tiny.close(found, expected, 2e-5)


@pytest.mark.parametrize("ratio", [0, 4, 128])
def test_rotary_base_of_queries_and_window_keys(backend, ratio):
    """Three tokens complete no entry: only queries and window keys are rotated, with their layer's frequencies."""
    original = tiny.checkpoint(compress_ratios=(ratio,), num_nextn_predict_layers=0)
    logits = backend.to_numpy(tiny.model(backend, original)(IDS[:3]))

    def matters(**changes):
        changed = replace(original, config=replace(original.config, **changes))
        return not np.array_equal(backend.to_numpy(tiny.model(backend, changed)(IDS[:3])), logits)

    assert matters(rope_theta=51.0) == (ratio == 0)
    assert matters(compress_rope_theta=161.0) == (ratio > 0)
    assert matters(rope_scaling=None) == (ratio > 0)


def test_ids_of_one_sequence_may_come_without_a_batch(backend):
    model = tiny.model(backend)
    found, expected = (backend.to_numpy(model(ids)) for ids in (IDS[:5].tolist(), IDS[None, :5]))
    assert found.shape == (1, 5, model.config.vocab_size)
    np.testing.assert_array_equal(found, expected)


def test_layers_one_by_one_are_the_whole_model(backend):
    model = tiny.model(backend)
    streams = model.first_streams(IDS[None])
    for number in range(model.config.num_hidden_layers):
        streams = model.layer(number, streams, IDS[None])
    tiny.close(backend.to_numpy(streams)[0], naive((0, 4, 128, 4, 0))[1])
