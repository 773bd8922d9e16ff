"""Compression against one softmax per channel written out slot by slot, and the overlap against its slots by name."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4.model.span import Span
from dsv4.ops import Ops
from dsv4.ops.compressor import slot_shares
from strategies import laid_out, normal, sizes
from verdicts import close, exact, hold


def naive_compress(kv, score):
    *leading, slots, width = kv.shape
    entry = np.zeros((*leading, width))
    for place in np.ndindex(*leading):
        for channel in range(width):
            weights = [math.exp(score[place][slot, channel]) for slot in range(slots)]
            values = [float(kv[place][slot, channel]) for slot in range(slots)]
            entry[place][channel] = sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
    return entry


@st.composite
def blocks_and_scores(draw):
    """kv and score [B, N, slots, c]; some scores are −inf, but never all of a channel."""
    shape = draw(st.tuples(sizes(0, 3), sizes(0, 3), sizes(1, 9), sizes(0, 4)))
    kv, score = draw(normal(*shape)), draw(normal(*shape, scale=3))
    excluded = draw(normal(*shape)) > draw(st.sampled_from([9, 0, -0.5]))
    excluded[:, :, -1] = False
    return kv, draw(laid_out(np.where(excluded, np.float32(-np.inf), score)))


@given(blocks=blocks_and_scores())
def test_an_entry_is_a_softmax_channel_by_channel(ops, blocks):
    kv, score = blocks
    hold(ops, "compress", naive_compress, kv, score, magnitude=4)


@given(blocks=blocks_and_scores())
def test_the_slots_shares_are_what_an_entry_is_weighted_with(blocks):
    kv, score = (each.astype(np.float64) for each in blocks)
    shares = slot_shares(score)
    np.testing.assert_allclose(shares.sum(axis=-2), 1)
    np.testing.assert_allclose((shares * kv).sum(axis=-2), naive_compress(kv, score), atol=1e-9)
    assert not shares[np.isneginf(score)].any()


@pytest.mark.parametrize("slots", [1, 8, 128])
@pytest.mark.parametrize("width", [1, 15, 16, 17, 100])
def test_sizes_around_those_of_vectors(ops, slots, width):
    """Channels that fill the vectors of a backend and that do not; the first slots of the first entry excluded."""
    generator = np.random.default_rng([slots, width])
    kv, score = generator.standard_normal((2, 2, 3, slots, width)).astype(np.float32)
    score *= 4
    score[0, 0, : slots // 2] = -np.inf
    hold(ops, "compress", naive_compress, kv, score, magnitude=4)


def test_channels_have_weights_of_their_own(ops):
    kv = np.array([[[1.0, 10], [2, 20]]])
    score = np.array([[[math.log(3), 0.0], [0.0, math.log(4)]]])
    close(ops.compress(kv, score), np.array([[1.25, 18]]))  # ¾·1 + ¼·2, and ⅕·10 + ⅘·20


@pytest.mark.parametrize("excluded", [0, 1, 2])
def test_a_slot_of_score_minus_infinity_gives_nothing(ops, excluded):
    generator = np.random.default_rng(excluded)
    kv, score = generator.standard_normal((2, 1, 3, 4)), generator.standard_normal((2, 1, 3, 4))
    score[:, :, excluded] = -np.inf
    without = [np.delete(array, excluded, axis=2) for array in (kv, score)]
    close(ops.compress(kv, score), ops.compress(*without))
    kv[:, :, excluded] = 1e30
    close(ops.compress(kv, score), ops.compress(*without))


@given(data=st.data(), shift=st.floats(-500, 500))
def test_a_shift_of_all_scores_changes_nothing(ops, data, shift):
    kv, score = (data.draw(normal(2, 5, 3)).astype(np.float64) for _ in range(2))
    close(ops.compress(kv, score + shift), ops.compress(kv, score), magnitude=4, roundings=4096)


def test_scores_of_any_size_are_safe(ops):
    kv = np.array([[1.0], [2.0], [3.0]], np.float32)
    exact(ops.compress(kv, np.array([[-1e30], [1e30], [0]], np.float32)), np.array([2.0], np.float32))
    exact(ops.compress(kv, np.array([[-1e30], [-1e30], [-np.inf]], np.float32)), np.array([1.5], np.float32))


def test_overlap_takes_the_previous_block_from_the_first_channels(ops):
    """Number 1000·block + 10·token + channel; three blocks of two tokens and 2c = 4 channels."""
    block, token, channel = np.ogrid[:3, :2, :4]
    blocks = (1000.0 * block + 10 * token + channel)[None]
    expected = [
        [[0, 1], [10, 11], [1002, 1003], [1012, 1013]],
        [[1000, 1001], [1010, 1011], [2002, 2003], [2012, 2013]],
    ]
    exact(ops.overlap(blocks), np.array([expected], float))


@given(data=st.data(), batch=sizes(0, 3), entries=sizes(), tokens=sizes(1), width=sizes(0, 3))
def test_overlap_only_moves_numbers(ops, data, batch, entries, tokens, width):
    blocks = data.draw(normal(batch, entries + 1, tokens, 2 * width))
    expected = np.zeros((batch, entries, 2 * tokens, width), np.float32)
    for place in np.ndindex(batch, entries, tokens, width):
        row, entry, token, channel = place
        expected[row, entry, token, channel] = blocks[row, entry, token, channel]
        expected[row, entry, tokens + token, channel] = blocks[row, entry + 1, token, width + channel]
    exact(ops.overlap(blocks), expected)


def naive_blocks(kv, score, ratio, keep, starts, counts):
    """By sequence and entry; rows of positions before the sequence are left out. The entries of each sequence."""
    channels = kv.shape[2] // (2 if keep >= ratio else 1)
    found = []
    for b, (start, count) in enumerate(zip(starts, counts, strict=True)):
        for entry in range(start // ratio, (start + count) // ratio):
            own = [(p, kv.shape[2] - channels) for p in range(entry * ratio, (entry + 1) * ratio)]
            before = [(p - ratio, 0) for p, _ in own] if keep >= ratio else []
            slots = [(p - start + keep, first) for p, first in [*before, *own] if p >= 0]
            values, scores = (
                np.stack([rows[b, row, first : first + channels] for row, first in slots]) for rows in (kv, score)
            )
            found.append(Ops.compress(values.astype(np.float64), scores.astype(np.float64)))
    return np.array(found)


SPANS = {
    "one of three sequences completes an entry": (4, 7, (7, 4, 0), (1, 1, 1), 1),
    "a prompt": (4, 7, (0, 0), (13, 6), 13),
    "without overlap": (4, 3, (5, 3), (9, 1), 9),
    "many tokens": (128, 127, (127, 0), (1, 130), 130),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("ratio", "keep", "starts", "counts", "length"), SPANS.values(), ids=SPANS)
def test_blocks_are_found_by_their_positions(backend, dtype, ratio, keep, starts, counts, length):
    """What stands for positions before the sequence may be anything, and has no share."""
    generator = np.random.default_rng(ratio)
    kv, score = generator.standard_normal((2, len(starts), keep + length, 6)).astype(dtype)
    for b, start in enumerate(starts):
        kv[b, : max(keep - start, 0)] = score[b, : max(keep - start, 0)] = np.nan
    span = Span(np.array(starts), np.array(counts), length, place=backend.asarray)
    placed = backend.asarray(kv), backend.asarray(score)
    found = backend.to_numpy(backend.compress_blocks(*placed, span.blocks(ratio, keep)))
    completed = span.completed(ratio).counts
    real = np.concatenate([found[b, :count] for b, count in enumerate(completed)])
    assert found.dtype == dtype and len(real) == completed.sum()
    close(real, naive_blocks(kv, score, ratio, keep, starts, counts), magnitude=4)


@pytest.mark.parametrize("shape", [(1, 4, 2), (1, 3, 3), (1, 1, 3), (4, 3)])
def test_scores_must_fit_the_values(ops, shape):
    with pytest.raises(ValueError, match=r"kv \(1, 4, 3\) and score .* must have one shape"):
        ops.compress(np.ones((1, 4, 3), np.float32), np.ones(shape, np.float32))
