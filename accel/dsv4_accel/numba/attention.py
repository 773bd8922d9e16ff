"""Attention of many query heads over one shared key-value head: mirrors dsv4.ops.attention.

A softmax in one pass: the keys that a query names are taken in blocks, which stay in the caches while all heads of
a task read them as keys and as values; what was summed so far shrinks when a larger logit turns up.
"""

from typing import Any

import numpy as np
from numba import prange, types

from dsv4.ops import attention as reference
from dsv4.ops.packed_rows import Rows
from dsv4.ops.types import Array, Ints
from dsv4_accel.numba.arrays import are_float32, compact
from dsv4_accel.numba.attention_blocks import KEYS, add_block, begin, finish, make_room, put_keys
from dsv4_accel.numba.compile import inlined, kernel, merged, reads, threads_for, writes
from dsv4_accel.numba.packed_rows import named
from dsv4_accel.numba.vectors import LANES

HEADS_TOGETHER = 4 * LANES
"""Heads of one task, which share the copying of keys, where there are tasks enough for all threads."""

TASKS_PER_THREAD = 4
"""From how many tasks a thread on it hardly matters that some get one more than others."""


def sparse_attention(
    queries: Array, window: Rows, window_index: Ints, entries: Rows, entry_index: Ints, attn_sink: Array
) -> Array:
    """As dsv4.ops.attention.sparse_attention."""
    if are_float32(queries):
        window, window_index = named(queries, window, window_index)
        entries, entry_index = named(queries, entries, entry_index)
    if not _fit(queries, window, window_index, entries, entry_index, attn_sink):
        return reference.sparse_attention(queries, window, window_index, entries, entry_index, attn_sink)
    attended, is_beyond = np.empty(queries.shape, np.float32), np.zeros(1, np.bool_)
    work = 2 * queries.size * (window_index.shape[2] + entry_index.shape[2])
    together, workers = _division(queries.shape[0] * queries.shape[1], queries.shape[2], threads_for(work))
    _attend(
        work,
        compact(queries),
        _in_one_piece(window),
        compact(window_index.astype(np.int64, copy=False)),
        _in_one_piece(entries),
        compact(entry_index.astype(np.int64, copy=False)),
        compact(attn_sink),
        together,
        workers,
        attended,
        is_beyond,
    )
    if is_beyond[0]:  # the reference says which index it is
        return reference.sparse_attention(queries, window, window_index, entries, entry_index, attn_sink)
    return attended


def _fit(queries: Any, window: Any, window_index: Any, entries: Any, entry_index: Any, attn_sink: Any) -> bool:
    """Whether the kernel takes these arrays, and they belong together."""
    if not are_float32(queries, window, entries, attn_sink) or queries.ndim != 4 or not queries.size:
        return False
    batch, length, heads, c = queries.shape
    fit: bool = (
        window.ndim == window_index.ndim == entries.ndim == entry_index.ndim == 3
        and window_index.dtype.kind == entry_index.dtype.kind == "i"
        and window_index.shape[:2] == entry_index.shape[:2] == (batch, length)
        and window.shape[::2] == entries.shape[::2] == (batch, c)
        and attn_sink.shape == (heads,)
    )
    return fit


def _division(queries: int, heads: int, threads: int) -> tuple[int, int]:
    """How many heads a task takes, and how many workers share the tasks: a single token's heads are divided."""
    together = HEADS_TOGETHER
    while True:
        tasks = queries * -(-heads // together)
        if together == LANES or tasks % threads == 0 or tasks >= TASKS_PER_THREAD * threads:
            return together, min(tasks, threads)
        together //= 2


def _in_one_piece(rows: Any) -> Array:
    """The rows of each sequence one behind the other, without a copy for a part of a cache. rows [B, N, c]"""
    row, item = rows.strides[1:]
    return rows if item == 4 and row == 4 * rows.shape[2] and rows.flags.aligned else np.array(rows, order="C")


ROWS = types.Array(types.float32, 3, "A", readonly=True)
"""[B, N, c], each [N, c] in one piece."""


@kernel(
    reads(types.float32, 4),
    ROWS,
    reads(types.int64, 3),
    ROWS,
    reads(types.int64, 3),
    reads(types.float32, 1),
    types.intp,
    types.intp,
    writes(types.float32, 4),
    writes(types.boolean, 1),
)
def _attend(queries, window, window_index, entries, entry_index, attn_sink, together, workers, attended, is_beyond):
    """Shapes as in dsv4.ops.attention; is_beyond [1] becomes true where an index names no row.

    Each worker takes every so many-th task, so that all have as many queries from the end of a prompt, which read
    more keys than those from its beginning.
    """
    for worker in prange(workers):
        tasks = slice(worker, queries.shape[0] * queries.shape[1] * -(-queries.shape[2] // together), workers)
        _do_tasks(queries, window, window_index, entries, entry_index, attn_sink, together, tasks, attended, is_beyond)


@merged
def _do_tasks(queries, window, window_index, entries, entry_index, attn_sink, together, tasks, attended, is_beyond):
    """A task is a query and some of its heads, `together` of them or what is left."""
    length, heads, c = queries.shape[1:]
    room = make_room((min(heads, together) + LANES - 1) // LANES, c)
    named = np.empty(window_index.shape[2] + entry_index.shape[2], np.int64)
    groups = (heads + together - 1) // together
    for task in range(tasks.start, tasks.stop, tasks.step):
        query, group = task // groups, task % groups
        b, t = query // length, query % length
        of_window = _list_named(window_index[b, t], window.shape[1], named)
        of_entries = _list_named(entry_index[b, t], entries.shape[1], named[max(of_window, 0) :])
        if min(of_window, of_entries) < 0:
            is_beyond[0] = True
            return
        some = slice(group * together, min((group + 1) * together, heads))
        sink = attn_sink[some]
        begin(room, queries[b, t, some], sink)
        _add_keys(room, sink.size, window[b], entries[b], of_window, named[: of_window + of_entries])
        finish(room, sink, attended[b, t, some])


@inlined
def _list_named(index, rows, named):
    """Write the rows that an index names one after the other. Returns how many; −1 where one is beyond the rows."""
    count = 0
    for place in range(index.size):
        row = index[place]
        if row >= rows:
            return -1
        if row >= 0:
            named[count] = row
            count += 1
    return count


@inlined
def _add_keys(room, heads, window, entries, of_window, named):
    """All keys of a query, in blocks. window, entries [N, c]; named: rows of the window, then of the entries"""
    scale = np.float32(window.shape[1] ** -0.5)
    for start in range(0, named.size, KEYS):
        behind = min(start + KEYS, named.size)
        first_entry = min(max(of_window, start), behind)
        put_keys(room.keys, room.stride, 0, window, named[start:first_entry])
        put_keys(room.keys, room.stride, first_entry - start, entries, named[first_entry:behind])
        following = named[behind : behind + KEYS]
        add_block(room, heads, behind - start, scale, window, entries, of_window - behind, following)
