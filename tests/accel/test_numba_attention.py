"""What the Numba kernel for sparse attention promises beyond the interface: the same bits, however it is called."""

import numpy as np
import pytest

numba = pytest.importorskip("numba", reason="the Numba backend needs the extra `numba`")

from dsv4.ops import attention as reference  # noqa: E402
from dsv4_accel.numba.attention import sparse_attention  # noqa: E402
from ops.test_attention_in_blocks import example  # noqa: E402
from verdicts import exact  # noqa: E402


@pytest.fixture
def arguments():
    """Some sequences, long enough that threads share them; queries name between no keys and all."""
    queries, window, window_index, entries, entry_index, sink = example(70, 72, 90, 120, length=9)
    generator = np.random.default_rng(1)
    for index in window_index, entry_index:
        index[generator.random(index.shape) < generator.random((2, 9, 1))] = -1
    window_index[0, 3], entry_index[0, 3] = -1, -1
    return queries, window, window_index, entries, entry_index, sink


@pytest.fixture(params=[1, 2, 3, 8])
def threads(request):
    if request.param > numba.config.NUMBA_NUM_THREADS:
        pytest.skip(f"Numba has {numba.config.NUMBA_NUM_THREADS} threads here")
    before = numba.get_num_threads()
    numba.set_num_threads(request.param)
    yield request.param
    numba.set_num_threads(before)


def test_float32_is_not_left_to_the_reference(arguments, monkeypatch):
    expected = reference.sparse_attention(*arguments)
    monkeypatch.setattr(reference, "sparse_attention", None)
    np.testing.assert_allclose(sparse_attention(*arguments), expected, rtol=0, atol=1e-5)


def test_a_query_has_the_same_bits_alone_and_among_others(arguments, threads):
    queries, window, window_index, entries, entry_index, sink = arguments
    expected = sparse_attention(*arguments)
    for b, t in np.ndindex(queries.shape[:2]):
        sequence, some = slice(b, b + 1), slice(t, t + 1 + t % 3)
        found = sparse_attention(
            *(queries[sequence, some], window[sequence], window_index[sequence, some]),
            *(entries[sequence], entry_index[sequence, some], sink),
        )
        exact(found, expected[sequence, some])


def test_a_head_has_the_same_bits_alone_and_among_others(arguments, threads):
    queries, *others, sink = arguments
    expected = sparse_attention(*arguments)
    for some in (slice(0, 1), slice(3, 20), slice(30, 64), slice(69, 70), slice(None, None, -1)):
        exact(sparse_attention(queries[:, :, some], *others, sink[some]), expected[:, :, some])


def test_the_number_of_threads_does_not_matter(arguments, threads):
    found = sparse_attention(*arguments)
    numba.set_num_threads(1)
    exact(found, sparse_attention(*arguments))


@pytest.mark.parametrize("count", [1, 3, 64, 100])
def test_minus_one_changes_no_bit(arguments, count):
    queries, window, window_index, entries, entry_index, sink = arguments
    longer = [np.insert(index, [0, 7, 60] * count, -1, axis=2) for index in (window_index, entry_index)]
    exact(sparse_attention(queries, window, longer[0], entries, longer[1], sink), sparse_attention(*arguments))


def test_a_row_has_the_same_bits_in_the_window_and_among_the_entries(arguments):
    queries, window, window_index, entries, entry_index, sink = arguments
    keys = np.concatenate([window, entries], axis=1)
    moved = np.where(entry_index >= 0, entry_index + window.shape[1], -1)
    index = np.concatenate([window_index, moved], axis=2)
    exact(sparse_attention(queries, keys, index, keys[:, :0], index[..., :0], sink), sparse_attention(*arguments))
