"""Rows of a packed cache in the released sizes: nothing goes to the host, and kernels read what is stored."""

import numpy as np
import pytest

from cuda.host_array import HostArray
from dsv4.ops.packed_rows import Fp4Format, Fp8Format, Nvfp4Format, PackedRows, unpacked
from verdicts import exact

FORMS = {"keys": Fp4Format(128), "entries": Fp8Format(512, 64, 64), "entries of v41": Nvfp4Format(512)}

every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


@pytest.fixture
def launched(ops):
    """The names of the kernels that have run since the test began; what is fetched is counted from then on, too."""
    ops.backend.device.launched.clear()
    HostArray.fetched = 0
    return ops.backend.device.launched


def numbers(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def packed(seed, form, *shape):
    return PackedRows(form.pack(numbers(seed, *shape, form.channels)), form)


@every_form
def test_bytes_of_the_released_sizes(ops, launched, form):
    """Also of blocks that are hardly numbers: zeros, the smallest, the largest, one with a NaN."""
    rows = numbers(1, 3, 5, form.channels) * np.exp2(np.arange(-7, 8, dtype=np.float32)).reshape(3, 5, 1)
    rows[0, 0], rows[0, 1, :32], rows[0, 2, 3], rows[0, 3] = 0, 1e-45, np.nan, 3e38
    found = ops.backend.pack_rows(ops.backend.asarray(rows), form)
    assert launched == ["pack_rows"] and HostArray.fetched == 0
    exact(ops.backend.to_numpy(found), form.pack(rows))


@every_form
def test_numbers_of_the_released_sizes(ops, launched, form):
    rows = packed(2, form, 3, 5)
    placed = ops.place(rows)
    found = ops.backend.unpack_rows(placed[:, :4], np.float32)
    assert launched == ["unpack_rows"] and HostArray.fetched == 0
    exact(ops.backend.to_numpy(found), unpacked(rows[:, :4], np.float32))


@pytest.mark.parametrize("length", [1, 4])
@pytest.mark.parametrize("width", [128, 200, 256])
def test_keys_are_scored_as_they_are_stored(ops, launched, width, length):
    """A part of a longer cache, of two sequences; the bits are those of float keys."""
    form = Fp4Format(width)
    keys, queries, weights = packed(3, form, 2, 150), numbers(4, 2, length, 20, width), numbers(5, 2, length, 20)
    placed = ops.backend.asarray(queries), ops.place(keys)[:, :137], ops.backend.asarray(weights)
    scores = ops.backend.index_scores(*placed)
    assert launched == ["prepare_queries", "index_scores_fp4"] and HostArray.fetched == 0
    exact(ops.backend.to_numpy(scores), ops.index_scores(queries, unpacked(keys[:, :137], np.float32), weights))


def test_keys_of_several_blocks(ops):
    """One channel of each block counts, and each has another scale."""
    form, rows = Fp4Format(128), np.zeros((1, 4, 128), np.float32)
    rows[0, range(4), range(5, 128, 32)] = 6, 96, 0.75, 1536
    queries, weights = np.ones((1, 1, 1, 128), np.float32), np.ones((1, 1, 1), np.float32)
    scores = ops.index_scores(queries, PackedRows(form.pack(rows), form), weights)
    exact(scores, np.array([[[6, 96, 0.75, 1536]]], np.float32))


@pytest.mark.parametrize("multiprocessors", [1, 1000])
def test_attention_reads_entries_where_they_lie(ops, launched, multiprocessors, monkeypatch):
    """Rows of 583 bytes begin at any place; one query and many."""
    monkeypatch.setattr(ops.backend.device, "multiprocessors", multiprocessors)
    form = FORMS["entries"]
    window, entries = packed(6, form, 2, 9), packed(7, form, 2, 50)
    generator = np.random.default_rng(8)
    window_index, entry_index = generator.integers(-1, 9, (2, 1, 6)), generator.integers(-1, 40, (2, 1, 60))
    queries, sink = numbers(9, 2, 1, 3, 512), numbers(10, 3)
    given = queries, window, window_index, entries, entry_index, sink
    placed = [ops.place(one) for one in given]
    placed[3] = placed[3][:, :40]
    found = ops.backend.sparse_attention(*placed)
    kernel = ["attention_of_queries"] if multiprocessors == 1 else ["attention_of_splits", "join_splits"]
    assert launched == kernel and HostArray.fetched == 0
    floats = [unpacked(one, np.float32) if isinstance(one, PackedRows) else one for one in given]
    exact(ops.backend.to_numpy(found), ops.sparse_attention(*floats))


def test_attention_of_rows_in_two_formats(ops):
    """As V4.1 has them; and of packed rows beside floats."""
    window, entries = packed(11, Fp8Format(64, 32), 1, 9), packed(12, Nvfp4Format(64), 1, 9)
    index, queries, sink = np.arange(9).reshape(1, 1, 9), numbers(13, 1, 1, 2, 64), np.zeros(2, np.float32)
    expected = ops.sparse_attention(
        queries, unpacked(window, np.float32), index, unpacked(entries, np.float32), index, sink
    )
    exact(ops.sparse_attention(queries, window, index, entries, index, sink), expected)
    exact(ops.sparse_attention(queries, window, index, unpacked(entries, np.float32), index, sink), expected)
