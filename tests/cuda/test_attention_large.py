"""Attention where there is much to read: what the examples of tests/ops are too small to reach."""

import numpy as np
import pytest

from dsv4.ops import Ops
from verdicts import as_good, exact


@pytest.fixture
def launched(ops):
    """The names of the kernels that have run since the test began."""
    ops.backend.device.launched.clear()
    return ops.backend.device.launched


def numbers(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def attention_of(batch, length, heads, channels, near, far, seed=0):
    """Arguments with holes: a tenth of all indices names nothing, and the last query names nothing at all."""
    generator = np.random.default_rng(seed)
    window, entries = numbers(1, batch, 20, channels), numbers(2, batch, 200, channels)
    near_index, far_index = (
        generator.integers(-rows // 10, rows, (batch, length, count)).clip(-1)
        for rows, count in ((20, near), (200, far))
    )
    near_index[-1, -1], far_index[-1, -1] = -1, -1
    return numbers(3, batch, length, heads, channels), window, near_index, entries, far_index, numbers(4, heads)


SHAPES = {
    "one tile": (1, 2, 3, 8, 5, 7),
    "tiles, heads and slices of channels that are not full": (1, 3, 17, 20, 12, 75),
    "the released width, several splits": (1, 3, 16, 512, 20, 150),
    "a width of no whole vectors": (2, 2, 2, 301, 3, 64),
    "a width of two runs of channels": (1, 2, 9, 576, 3, 40),
    "long splits behind the short ones": (1, 2, 2, 8, 20, 1300),
    "the last key of a short split, of a long one": (1, 2, 2, 8, 0, 1280),
    "the first key of a long split": (1, 2, 2, 8, 1, 1024),
}


@pytest.mark.parametrize("multiprocessors", [1, 1000])
@pytest.mark.parametrize("name", SHAPES)
def test_attention(ops, name, multiprocessors, monkeypatch):
    monkeypatch.setattr(ops.backend.device, "multiprocessors", multiprocessors)
    given = attention_of(*SHAPES[name])
    wide = [array.astype(np.float64) if array.dtype == np.float32 else array for array in given]
    found = ops.sparse_attention(*given)
    as_good(found, Ops.sparse_attention(*wide), Ops.sparse_attention(*given))
    exact(found[-1, -1], np.zeros_like(found[-1, -1]))


@pytest.mark.parametrize(("channels", "far"), [(36, 150), (516, 20), (4, 1500)])
def test_splits_in_blocks_of_their_own_give_the_same_bits(ops, monkeypatch, launched, channels, far):
    """Whether a query's splits are spread depends on how much else there is to do; its output does not."""
    given = attention_of(2, 2, 18, channels, 20, far)
    outputs = []
    for multiprocessors, kernel in ((1000, "join_splits"), (1, "attention_of_queries")):
        monkeypatch.setattr(ops.backend.device, "multiprocessors", multiprocessors)
        outputs.append(ops.sparse_attention(*given))
        assert launched[-1] == kernel
    exact(*outputs)


def test_a_query_has_the_same_bits_alone_and_among_others(ops, launched):
    queries, window, window_index, entries, entry_index, sink = attention_of(2, 3, 5, 36, 20, 150)
    expected = ops.sparse_attention(queries, window, window_index, entries, entry_index, sink)
    for b, t in np.ndindex(2, 3):
        row, some = slice(b, b + 1), slice(t, t + 1)
        indices = window_index[row, some], entry_index[row, some]
        found = ops.sparse_attention(queries[row, some], window[row], indices[0], entries[row], indices[1], sink)
        exact(found, expected[row, some])
    assert {"attention_of_queries", "attention_of_splits"} <= set(launched)


def test_a_head_has_the_same_bits_alone_and_among_others(ops):
    queries, *others, sink = attention_of(1, 2, 20, 36, 20, 50)
    expected = ops.sparse_attention(queries, *others, sink)
    for some in (slice(0, 1), slice(7, 9), slice(15, 20)):
        exact(ops.sparse_attention(queries[:, :, some], *others, sink[some]), expected[:, :, some])


@pytest.mark.parametrize("count", [1, 16, 31, 1100])
def test_minus_one_behind_all_keys_changes_no_bit(ops, count):
    """So it is in a batch where another sequence has more entries."""
    queries, window, window_index, entries, entry_index, sink = attention_of(1, 2, 3, 8, 20, 45)
    longer = np.concatenate([entry_index, np.full((1, 2, count), -1)], axis=2)
    expected = ops.sparse_attention(queries, window, window_index, entries, entry_index, sink)
    exact(ops.sparse_attention(queries, window, window_index, entries, longer, sink), expected)


@pytest.mark.parametrize("multiprocessors", [1, 1000])
def test_a_sink_that_is_no_number_spoils_its_head_alone(ops, multiprocessors, monkeypatch):
    """A sink of −∞ takes no share."""
    monkeypatch.setattr(ops.backend.device, "multiprocessors", multiprocessors)
    *given, sink = attention_of(1, 2, 5, 8, 5, 70)
    given[2][-1, -1] = 3
    sink[[0, 2, 3]] = np.nan, np.inf, -np.inf
    with np.errstate(all="ignore"):
        expected = Ops.sparse_attention(*given, sink)
    found = ops.sparse_attention(*given, sink)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("multiprocessors", [1, 1000])
@pytest.mark.parametrize("index", [200, 2**40])
@pytest.mark.parametrize(("which", "named"), [(2, "window"), (4, "entries")])
def test_an_index_beyond_the_rows_is_noted(ops, which, named, index, multiprocessors, monkeypatch):
    monkeypatch.setattr(ops.backend.device, "multiprocessors", multiprocessors)
    given = attention_of(1, 2, 2, 8, 5, 60)
    given[which][0, 0, 3] = index
    with pytest.raises(ValueError, match=f"sparse_attention: {named} index {index} is beyond the"):
        ops.sparse_attention(*given)


@pytest.mark.parametrize("channels", [8, 7])
def test_the_first_rows_of_longer_caches_are_read_where_they_are(ops, channels):
    """Whole vectors are, others are copied; what stands behind the rows of a sequence is not read."""
    backend = ops.backend
    queries, window, window_index, entries, entry_index, sink = attention_of(2, 2, 3, channels, 20, 60)
    expected = ops.sparse_attention(queries, window, window_index, entries, entry_index, sink)
    views = []
    for rows in (window, entries):
        cache = np.full((2, rows.shape[1] + 9, channels), np.nan, np.float32)
        cache[:, : rows.shape[1]] = rows
        views.append(backend.asarray(cache)[:, : rows.shape[1]])
    placed = [*map(backend.asarray, (queries, window_index, entry_index)), *views]
    for step in (1, -1):
        queries, window_index, entry_index, window, entries = (array[::step] for array in placed)
        found = backend.sparse_attention(queries, window, window_index, entries, entry_index, backend.asarray(sink))
        exact(backend.to_numpy(found), expected[::step])


def test_rows_too_long_for_a_tile_are_left_to_the_reference(ops, launched):
    given = attention_of(1, 1, 1, 1000, 3, 3)
    exact(ops.sparse_attention(*given), Ops.sparse_attention(*given))
    assert not launched
