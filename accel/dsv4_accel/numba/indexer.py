"""The lightning indexer: mirrors dsv4.ops.indexer."""

from typing import Any

import numpy as np
from numba import prange, types

from dsv4.ops import indexer as reference
from dsv4.ops.chunks import over_queries
from dsv4.ops.packed_rows import PackedRows, Rows
from dsv4.ops.types import Array, Ints
from dsv4_accel.numba.arrays import are_float32, compact
from dsv4_accel.numba.compile import Kernel, kernel, reads, threads_for, writes
from dsv4_accel.numba.packed_rows import STORED, in_one_piece, layout, unpacked
from dsv4_accel.numba.scoring import TILE, score_keys, spread
from dsv4_accel.numba.scoring_bytes import AT_ONCE, score_packed
from dsv4_accel.numba.selection import BLOCK, no_maxima, write_best, write_maxima

UNIT = 3 * BLOCK
"""Entries that tasks are made of: whole tiles of keys, and whole blocks."""

assert UNIT % TILE == 0

TASKS_PER_THREAD = 8
"""So many tasks let threads end at about the same time."""


def index_scores(queries: Array, keys: Rows, weights: Array) -> Array:
    """As dsv4.ops.indexer.index_scores."""
    if not _fit(queries, keys, weights):
        return reference.index_scores(queries, keys, weights)
    batch, length, heads, width = queries.shape
    scores = np.empty((batch, length, keys.shape[1]), np.float32)
    _index_scores(
        queries.size * keys.shape[1],
        compact(queries).reshape(-1, heads, width),
        compact(unpacked(keys)),
        compact(weights).reshape(-1, heads),
        _entries_per_task(batch * length, keys.shape[1], queries.size * keys.shape[1]),
        scores.reshape(batch * length, -1),
    )
    return scores


def top_k(scores: Array, visible: Ints, k: int) -> Ints:
    """As dsv4.ops.indexer.top_k."""
    if not are_float32(scores) or not scores.size or scores.ndim != 3 or not _are_counts(visible, scores, k):
        return reference.top_k(scores, visible, k)
    batch, length, entries = scores.shape
    chosen = np.empty((batch, length, min(k, entries)), np.int64)
    _top_k(
        scores.size,
        compact(scores).reshape(-1, entries),
        _clipped(visible, entries),
        _entries_per_task(batch * length, entries, scores.size),
        chosen.reshape(batch * length, -1),
    )
    return chosen


def index_top_k(queries: Array, keys: Rows, weights: Array, visible: Ints, k: int) -> Ints:
    """As dsv4.ops.indexer.index_top_k."""
    if not _fit(queries, keys, weights) or not _are_counts(visible, queries, k):
        return reference.index_top_k(queries, keys, weights, visible, k)
    batch, _, heads, width = queries.shape
    entries = keys.shape[1]
    choose, of_keys = _for_keys(keys)

    def some_best(queries: Array, weights: Array, visible: Ints) -> Ints:
        length = queries.shape[1]
        chosen = np.empty((batch, length, min(k, entries)), np.int64)
        choose(
            queries.size * entries,
            compact(queries).reshape(-1, heads, width),
            *of_keys,
            compact(weights).reshape(-1, heads),
            _clipped(visible, entries),
            _entries_per_task(batch * length, entries, queries.size * entries),
            chosen.reshape(batch * length, -1),
        )
        return chosen

    return over_queries(some_best, batch * entries, queries, weights, visible)


def _for_keys(keys: Rows) -> tuple[Kernel, tuple[Any, ...]]:
    """The kernel that chooses among these keys, and what it takes of them.

    Keys too narrow for products of bytes are quicker to unpack once than to read anew for each query.
    """
    how = layout(keys)
    if isinstance(keys, PackedRows) and how is not None and how.bits == 4 and keys.shape[2] >= AT_ONCE:
        return _index_top_k_packed, (in_one_piece(keys.stored), how.block, how.scales)
    return _index_top_k, (compact(unpacked(keys)),)


def _fit(queries: Array, keys: Rows, weights: Array) -> bool:
    """Whether a kernel takes these arrays, and they belong together."""
    return (
        are_float32(queries, weights)
        and (are_float32(keys) or layout(keys) is not None)
        and queries.ndim == 4
        and len(keys.shape) == 3
        and queries.size > 0
        and keys.shape[1] > 0
        and keys.shape[::2] == queries.shape[::3]
        and weights.shape == queries.shape[:3]
    )


def _are_counts(visible: Ints, per_query: Array, k: int) -> bool:
    """Whether a kernel takes these numbers of visible entries, one for each query, and this k."""
    return (
        isinstance(visible, np.ndarray) and visible.dtype.kind == "i" and visible.shape == per_query.shape[:2] and k > 0
    )


def _clipped(visible: Ints, entries: int) -> Ints:
    """[B, S] -> [B·S] int64: how many of the entries are visible."""
    return np.minimum(np.maximum(visible, 0), entries).astype(np.int64, copy=False).reshape(-1)


def _entries_per_task(queries: int, entries: int, work: int) -> int:
    """How many of a query's entries one task takes: all of them, where there are queries enough for all threads."""
    threads = threads_for(work)
    tasks_per_query = -(-TASKS_PER_THREAD * threads // queries) if threads > 1 else 1
    return -(-entries // (tasks_per_query * UNIT)) * UNIT


@kernel(reads(types.float32, 3), reads(types.float32, 3), reads(types.float32, 2), types.intp, writes(types.float32, 2))
def _index_scores(queries, keys, weights, per_task, scores):
    """queries [B·S, h, D], keys [B, T, D], weights [B·S, h] -> scores [B·S, T]"""
    length, entries = queries.shape[0] // keys.shape[0], keys.shape[1]
    tasks = (entries + per_task - 1) // per_task
    for task in prange(queries.shape[0] * tasks):
        query, first = task // tasks, task % tasks * per_task
        rows = spread(queries[query], weights[query])
        score_keys(rows, keys[query // length], first, min(first + per_task, entries), scores[query])


@kernel(reads(types.float32, 2), reads(types.int64, 1), types.intp, writes(types.int64, 2))
def _top_k(scores, visible, per_task, chosen):
    """scores [B·S, T], visible [B·S] from 0 to T -> chosen [B·S, min(k, T)]"""
    count, entries = scores.shape
    maxima = no_maxima(count, entries)
    tasks = (entries + per_task - 1) // per_task
    for task in prange(count * tasks):
        query, first = task // tasks, task % tasks * per_task
        write_maxima(scores[query], first, min(first + per_task, visible[query]), maxima[query])
    for query in prange(count):
        write_best(scores[query], visible[query], maxima[query], chosen[query])


@kernel(
    reads(types.float32, 3),
    reads(types.float32, 3),
    reads(types.float32, 2),
    reads(types.int64, 1),
    types.intp,
    writes(types.int64, 2),
)
def _index_top_k(queries, keys, weights, visible, per_task, chosen):
    """queries [B·S, h, D], keys [B, T, D], weights [B·S, h], visible [B·S] from 0 to T -> chosen [B·S, min(k, T)]

    The first query shares its turn with the last one, the second with the last but one: in a prompt the later ones
    see more entries, and each thread gets a run of turns.
    """
    count, entries = queries.shape[0], keys.shape[1]
    length, tasks = count // keys.shape[0], (entries + per_task - 1) // per_task
    scores, maxima = np.empty((count, entries), np.float32), no_maxima(count, entries)
    for task in prange(count * tasks):
        turn, first = task // tasks, task % tasks * per_task
        query = turn // 2 if turn % 2 == 0 else count - 1 - turn // 2
        behind = min(first + per_task, visible[query])
        if first < behind:
            rows = spread(queries[query], weights[query])
            score_keys(rows, keys[query // length], first, behind, scores[query])
            write_maxima(scores[query], first, behind, maxima[query])
    for query in prange(count):
        write_best(scores[query], visible[query], maxima[query], chosen[query])


@kernel(
    reads(types.float32, 3),
    STORED,
    types.intp,
    reads(types.float32, 1),
    reads(types.float32, 2),
    reads(types.int64, 1),
    types.intp,
    writes(types.int64, 2),
)
def _index_top_k_packed(queries, stored, block, scales, weights, visible, per_task, chosen):
    """As `_index_top_k`, of keys in FP4, stored [B, T, width]: see `read_fp4`."""
    count, entries, channels = queries.shape[0], stored.shape[1], queries.shape[2]
    length, tasks = count // stored.shape[0], (entries + per_task - 1) // per_task
    scores, maxima = np.empty((count, entries), np.float32), no_maxima(count, entries)
    for task in prange(count * tasks):
        turn, first = task // tasks, task % tasks * per_task
        query = turn // 2 if turn % 2 == 0 else count - 1 - turn // 2
        behind = min(first + per_task, visible[query])
        if first < behind:
            rows = spread(queries[query], weights[query])
            score_packed(rows, stored[query // length], channels, block, scales, first, behind, scores[query])
            write_maxima(scores[query], first, behind, maxima[query])
    for query in prange(count):
        write_best(scores[query], visible[query], maxima[query], chosen[query])
