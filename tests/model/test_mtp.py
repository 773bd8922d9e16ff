"""The MTP layer: which state meets which token, what it is fed, and its cache."""

import functools

import numpy as np
import pytest

import tiny
from model.naive import NaiveModel

IDS = tiny.tokens(20, 140)


@pytest.fixture(scope="module")
def model(backend):
    return tiny.model(backend)


@functools.cache
def naive():
    return NaiveModel(tiny.checkpoint())


def mtp(model, states, next_ids, **options):
    return model.ops.to_numpy(model.mtp_logits(states, next_ids, **options))[0]


def test_state_t_meets_token_t_plus_1(model):
    """The naive MTP layer, given the model's own states and the tokens that follow them."""
    states = model.states(IDS[:-1])
    tiny.close(mtp(model, states, IDS[1:]), naive().mtp_logits(model.ops.to_numpy(states)[0], IDS[1:]))


def test_the_first_position_is_0(model):
    """With one token to look at, the layer is at position 0, where nothing is rotated."""
    states = model.states(IDS[:1])
    tiny.close(mtp(model, states, IDS[1:2]), naive().mtp_logits(model.ops.to_numpy(states)[0], IDS[1:2]))


def test_it_needs_each_stream_and_not_what_they_collapse_to(model):
    """Streams of equal mean but different content give other logits: nothing averages them on the way in."""
    states = model.states(IDS[:20])
    collapsed = states.mean(axis=2, keepdims=True) + 0 * states
    assert np.abs(mtp(model, states, IDS[1:21]) - mtp(model, collapsed, IDS[1:21])).max() > 0.1
    logits = mtp(model, states[:, :, ::-1], IDS[1:21])
    tiny.close(logits, naive().mtp_logits(model.ops.to_numpy(states)[0, :, ::-1], IDS[1:21]))


def test_each_stream_is_normalised_by_itself(model):
    """A stream that grows tenfold changes little: its norm is its own (what is left is the norm's epsilon)."""
    states = model.ops.to_numpy(model.states(IDS[:20]))
    grown = states * np.array([1, 10, 1, 1])[:, None]
    found, plain = (mtp(model, model.ops.asarray(given), IDS[1:21]) for given in (grown, states))
    tiny.close(found, naive().mtp_logits(grown[0], IDS[1:21]))
    assert np.abs(found - plain).max() < 0.1


def test_it_routes_by_score_even_where_every_layer_routes_by_id(backend):
    checkpoint = tiny.checkpoint(compress_ratios=(0, 0), num_hash_layers=1)
    assert "mtp.0.ffn.gate.bias" in checkpoint.weights
    model = tiny.model(backend, checkpoint)
    states = model.states(IDS[:9])
    expected = NaiveModel(checkpoint).mtp_logits(backend.to_numpy(states)[0], IDS[1:10])
    tiny.close(mtp(model, states, IDS[1:10]), expected)


@pytest.mark.parametrize("ratio", [0, 4, 128])
@pytest.mark.parametrize("chunk", [1, 5, 128])
def test_chunks_equal_one_pass(backend, ratio, chunk):
    model = tiny.model(backend, compress_ratios=(4, ratio))
    cache = model.new_cache(max_rollback=0)
    parts = []
    for start in range(0, len(IDS) - 1, chunk):
        following = IDS[start + 1 : start + 1 + chunk]
        states = model.states(IDS[start : start + len(following)], cache)
        parts.append(mtp(model, states, following, cache=cache))
    tiny.close(np.concatenate(parts), mtp(model, model.states(IDS[:-1]), IDS[1:]))


def test_it_keeps_its_own_place_in_the_cache(model):
    """The layers may run ahead of the MTP layer, which does not move them."""
    cache = model.new_cache()
    states = model.states(IDS[:130], cache)
    first = mtp(model, states[:, :3], IDS[1:4], cache=cache)
    np.testing.assert_array_equal(cache.lengths, [130])
    model.states(IDS[130:135], cache)
    second = mtp(model, states[:, 3:129], IDS[4:130], cache=cache)
    tiny.close(np.concatenate([first, second]), mtp(model, states[:, :129], IDS[1:130]))


@pytest.mark.parametrize("ratio", [0, 4, 128])
def test_rollback_forgets_what_was_read_of_forgotten_tokens(backend, ratio):
    """The MTP layer read the token at position 130 with the state at 129; another token comes there."""
    model = tiny.model(backend, compress_ratios=(4, ratio))
    cache = model.new_cache(max_rollback=3)
    states = model.states(IDS[:132], cache)
    model.mtp_logits(states[:, :131], IDS[1:132], cache)
    cache.rollback(2)
    other = IDS[:140].copy()
    other[130:] = (other[130:] + 1) % tiny.CONFIG.vocab_size
    new_states = np.concatenate([states[:, :130], model.states(other[130:139], cache)], axis=1)
    read = int(cache.mtp.lengths[0])
    found = mtp(model, new_states[:, read:], other[read + 1 : 140], cache=cache)
    tiny.close(found, mtp(model, model.states(other[:139]), other[1:140])[read:])


@pytest.mark.parametrize("ratio", [0, 4, 128])
def test_rollback_of_a_layer_that_lags_behind_changes_nothing_for_it(backend, ratio):
    model = tiny.model(backend, compress_ratios=(4, ratio))
    cache = model.new_cache(max_rollback=3)
    states = model.states(IDS[:132], cache)
    first = mtp(model, states[:, :129], IDS[1:130], cache=cache)
    cache.rollback(2)
    second = mtp(model, states[:, 129:130], IDS[130:131], cache=cache)
    tiny.close(np.concatenate([first, second]), mtp(model, states[:, :130], IDS[1:131]))


@pytest.mark.parametrize("max_rollback", [1, 4])
@pytest.mark.parametrize("ratio", [0, 4, 128])
def test_rollback_of_a_layer_that_read_ahead(backend, ratio, max_rollback):
    """It knows one token more than the layers, and so forgets one more than they do."""
    model = tiny.model(backend, compress_ratios=(4, ratio))
    cache = model.new_cache(max_rollback=max_rollback)
    states = model.states(IDS[:130], cache)
    model.mtp_logits(states, IDS[1:131], cache)
    cache.rollback(max_rollback)
    left = 130 - max_rollback
    found = mtp(model, states[:, left - 1 : left], IDS[left : left + 1], cache=cache)
    tiny.close(found, mtp(model, states[:, :left], IDS[1 : left + 1])[-1:])
