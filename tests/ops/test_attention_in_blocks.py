"""Sparse attention at sizes at which a backend works in blocks of keys and in vectors of heads and channels."""

import numpy as np
import pytest

from verdicts import close, exact, hold


def attention(queries, window, window_index, entries, entry_index, attn_sink):
    """One softmax over all named rows at once, for sizes at which loops would take too long."""
    batch = np.arange(len(queries))[:, None, None]
    keys = np.concatenate([window[batch, window_index], entries[batch, entry_index]], axis=2)  # [B, S, K, c]
    present = np.concatenate([window_index, entry_index], axis=2) >= 0
    logits = np.einsum("bshc,bskc->bshk", queries, keys) / np.sqrt(queries.shape[-1])
    logits = np.where(present[:, :, None], logits, -np.inf)
    largest = np.maximum(logits.max(axis=-1), attn_sink)
    weights = np.exp(logits - largest[..., None])
    total = weights.sum(axis=-1) + np.exp(attn_sink - largest)
    return np.einsum("bshk,bskc->bshc", weights, keys) / total[..., None]


def example(heads=4, c=32, window_keys=20, entry_keys=30, batch=2, length=3, seed=0):
    """Queries that each name some rows of a window and some entries, in any order; float32."""
    generator = np.random.default_rng(seed)

    def numbers(*shape):
        return generator.standard_normal(shape).astype(np.float32)

    def index(rows, keys):
        return np.stack([[generator.permutation(rows)[:keys] for _ in range(length)] for _ in range(batch)])

    window, entries = numbers(batch, window_keys + 3, c), numbers(batch, entry_keys + 40, c)
    window_index, entry_index = index(window_keys + 3, window_keys), index(entry_keys + 40, entry_keys)
    return numbers(batch, length, heads, c), window, window_index, entries, entry_index, numbers(heads)


def with_levels(levels, sink, heads=5, c=24, seed=0):
    """One query whose logits for the keys, one after the other, are near the given levels; every key is an entry."""
    queries, _, _, _, _, _ = example(heads, c, batch=1, length=1, seed=seed)
    keys = np.random.default_rng(seed).standard_normal((1, len(levels), c)).astype(np.float32)
    queries[..., 0], keys[..., 0] = c**0.5, levels
    nothing, everything = np.zeros((1, 1, 0), np.int64), np.arange(len(levels))[None, None]
    return queries, keys[:, :0], nothing, keys, everything, np.full(heads, sink, np.float32)


@pytest.mark.parametrize("length", [1, 5])
@pytest.mark.parametrize("c", [1, 15, 16, 17, 63, 64, 65, 130])
@pytest.mark.parametrize("heads", [1, 15, 16, 17, 31, 33, 64, 70])
def test_any_number_of_heads_and_channels(ops, heads, c, length):
    hold(ops, "sparse_attention", attention, *example(heads, c, length=length), magnitude=4)


@pytest.mark.parametrize("window_keys", [0, 1, 64, 70])
@pytest.mark.parametrize("entry_keys", [1, 7, 8, 9, 31, 32, 33, 63, 64, 65, 127, 128, 129, 257])
def test_any_number_of_keys(ops, window_keys, entry_keys):
    arguments = example(window_keys=window_keys, entry_keys=entry_keys)
    hold(ops, "sparse_attention", attention, *arguments, magnitude=4)


@pytest.mark.parametrize("sink", [-1e30, -20, 0, 20])
@pytest.mark.parametrize("highest", [1, 20, 60])
@pytest.mark.parametrize("direction", [1, -1])
def test_logits_that_grow_or_fall_from_key_to_key(ops, direction, highest, sink):
    """Where a softmax is taken in one pass, what it has summed must shrink as the largest logit grows."""
    levels = np.linspace(-highest, highest, 300)[::direction]
    hold(ops, "sparse_attention", attention, *with_levels(levels, sink), magnitude=2 * highest)


@pytest.mark.parametrize("sink", [-1e30, 0])
@pytest.mark.parametrize("lowest", [-100, -1e4, -1e30])
@pytest.mark.parametrize("few", [3, 64, 130])
def test_keys_that_weigh_nothing_leave_no_trace(ops, few, lowest, sink):
    """They come first, so that for a while they are the largest; then last."""
    queries, window, window_index, entries, entry_index, sinks = with_levels([lowest] * few + [0.5] * 10, sink)
    truth = attention(queries, window, window_index, entries, entry_index[..., few:], sinks)
    for index in entry_index, entry_index[..., ::-1]:
        close(ops.sparse_attention(queries, window, window_index, entries, index, sinks), truth, magnitude=4)


@pytest.mark.parametrize("place", [0, 5, 30])
@pytest.mark.parametrize("count", [1, 64, 200])
def test_runs_of_minus_one_name_nothing(ops, count, place):
    queries, window, window_index, entries, entry_index, sink = example(entry_keys=30)
    expected = ops.sparse_attention(queries, window, window_index, entries, entry_index, sink)
    longer = np.insert(entry_index, [place] * count, -1, axis=2)
    close(ops.sparse_attention(queries, window, window_index, entries, longer, sink), expected, magnitude=4)
    nothing = np.full((2, 3, count), -1)
    without = ops.sparse_attention(queries, window, nothing, entries, entry_index, sink)
    close(ops.sparse_attention(queries, window, nothing[..., :0], entries, entry_index, sink), without, magnitude=4)


def test_indices_may_be_integers_of_any_width(ops):
    queries, window, window_index, entries, entry_index, sink = example()
    expected = ops.sparse_attention(queries, window, window_index, entries, entry_index, sink)
    for narrow, wide in ((np.int32, np.int64), (np.int64, np.int32), (np.int32, np.int32), (np.int16, np.int8)):
        found = ops.sparse_attention(
            queries, window, window_index.astype(narrow), entries, entry_index.astype(wide), sink
        )
        exact(found, expected)


def test_entries_may_be_the_first_of_a_longer_cache(ops):
    """What stands behind them is not read; a cache of several sequences is then not in one piece."""
    queries, window, window_index, entries, entry_index, sink = example()
    expected = ops.sparse_attention(queries, window, window_index, entries, entry_index, sink)
    cache = np.full((2, 100, entries.shape[2]), np.nan, np.float32)
    cache[:, : entries.shape[1]] = entries
    view = cache[:, : entries.shape[1]]
    exact(ops.sparse_attention(queries, window, window_index, view, entry_index, sink), expected)
