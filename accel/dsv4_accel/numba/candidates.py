"""Pools of candidates, and the choice in them: mirrors dsv4.ops.candidates.

A score has the bits that `indexer.index_scores` gives it. In a pool only its own entries are scored: their keys are
copied side by side, a piece at a time, and what is chosen are places in that row.
"""

import numpy as np
from numba import prange, types

from dsv4.ops import candidates as reference
from dsv4.ops.chunks import over_queries
from dsv4.ops.packed_rows import Rows
from dsv4.ops.types import Array, Ints
from dsv4_accel.numba.arrays import compact
from dsv4_accel.numba.compile import inlined, kernel, reads, writes
from dsv4_accel.numba.indexer import _are_counts, _clipped, _entries_per_task, _fit
from dsv4_accel.numba.memory import load_to_end, store_to_end
from dsv4_accel.numba.packed_rows import unpacked
from dsv4_accel.numba.scoring import TILE, score_keys, spread
from dsv4_accel.numba.selection import no_maxima, write_best, write_maxima
from dsv4_accel.numba.vectors import LANES

PIECE = 16 * TILE
"""Keys of a pool that are copied together, few enough to stay in the fastest caches."""


def index_candidates(queries: Array, keys: Rows, weights: Array, visible: Ints, size: int, count: int) -> Ints:
    """As dsv4.ops.candidates.index_candidates."""
    known = _are_for_kernels(queries, keys, weights, visible, count, size)
    if not known or visible.max() > keys.shape[1]:  # whose newest entry is none
        return reference.index_candidates(queries, keys, weights, visible, size, count)
    batch, _, heads, width = queries.shape
    entries, keys = keys.shape[1], compact(unpacked(keys))

    def some(queries: Array, weights: Array, visible: Ints) -> Ints:
        length = queries.shape[1]
        pool = np.empty((batch, length, min(count, -(-entries // size))), np.int64)
        _candidates(
            queries.size * entries,
            compact(queries).reshape(-1, heads, width),
            keys,
            compact(weights).reshape(-1, heads),
            _clipped(visible, entries),
            _entries_per_task(batch * length, entries, queries.size * entries),
            size,
            pool.reshape(batch * length, -1),
        )
        return pool

    return over_queries(some, batch * entries, queries, weights, visible)


def index_top_k_among(queries: Array, keys: Rows, weights: Array, visible: Ints, pool: Ints, size: int, k: int) -> Ints:
    """As dsv4.ops.candidates.index_top_k_among."""
    known = _are_for_kernels(queries, keys, weights, visible, k, size)
    if not known or not _are_blocks(pool, queries, -(-keys.shape[1] // size)):
        return reference.index_top_k_among(queries, keys, weights, visible, pool, size, k)
    batch, _, heads, width = queries.shape
    entries, keys, room = keys.shape[1], compact(unpacked(keys)), min(pool.shape[2] * size, keys.shape[1])

    def some_best(queries: Array, weights: Array, visible: Ints, pool: Ints) -> Ints:
        length = queries.shape[1]
        chosen = np.empty((batch, length, min(k, entries)), np.int64)
        _top_k_among(
            queries.size * room,
            compact(queries).reshape(-1, heads, width),
            keys,
            compact(weights).reshape(-1, heads),
            _clipped(visible, entries),
            compact(pool.astype(np.int64, copy=False)).reshape(batch * length, -1),
            size,
            room,
            _entries_per_task(batch * length, room, queries.size * room),
            chosen.reshape(batch * length, -1),
        )
        return chosen

    return over_queries(some_best, batch * max(room, -(-entries // size)), queries, weights, visible, pool)


def _are_for_kernels(queries: Array, keys: Rows, weights: Array, visible: Ints, count: int, size: int) -> bool:
    """Whether kernels take these arrays, and sizes of blocks and of what is wanted."""
    return _fit(queries, keys, weights) and _are_counts(visible, queries, count) and size > 0


def _are_blocks(pool: Ints, queries: Array, blocks: int) -> bool:
    """Whether a kernel takes these pools: block numbers or −1, for each query."""
    fits = isinstance(pool, np.ndarray) and pool.dtype.kind == "i" and pool.shape[:2] == queries.shape[:2]
    return fits and pool.ndim == 3 and pool.size > 0 and pool.min() >= -1 and pool.max() < blocks


QUERIES, KEYS, WEIGHTS = reads(types.float32, 3), reads(types.float32, 3), reads(types.float32, 2)
COUNTS = reads(types.int64, 1)


@kernel(QUERIES, KEYS, WEIGHTS, COUNTS, types.intp, types.intp, writes(types.int64, 2))
def _candidates(queries, keys, weights, visible, per_task, size, pool):
    """queries [B·S, h, D], keys [B, T, D], weights [B·S, h], visible [B·S] from 0 to T -> pool [B·S, P]

    Turns as in `indexer`: the first query with the last one.
    """
    count, entries = queries.shape[0], keys.shape[1]
    length, tasks = count // keys.shape[0], (entries + per_task - 1) // per_task
    scores = np.empty((count, entries), np.float32)
    for task in prange(count * tasks):
        turn, first = task // tasks, task % tasks * per_task
        query = turn // 2 if turn % 2 == 0 else count - 1 - turn // 2
        behind = min(first + per_task, visible[query])
        if first < behind:
            score_keys(spread(queries[query], weights[query]), keys[query // length], first, behind, scores[query])
    for query in prange(count):
        best = _best_of_blocks(scores[query], visible[query], size, (entries + size - 1) // size)
        seen = (visible[query] + size - 1) // size
        maxima = no_maxima(1, best.size)[0]
        write_maxima(best, 0, seen, maxima)
        write_best(best, seen, maxima, pool[query])


@inlined
def _best_of_blocks(scores, visible, size, blocks):
    """The largest score of each block among the visible entries, NaN where one is; the newest block counts as +inf.

    scores [≥ visible] -> [blocks], of which those without a visible entry are not set
    """
    best = np.empty(blocks, np.float32)
    for block in range((visible + size - 1) // size):
        largest = np.float32(-np.inf)
        for entry in range(block * size, min((block + 1) * size, visible)):
            score = scores[entry]
            if score > largest or np.isnan(score):
                largest = score
            elif np.isnan(largest):
                break
        best[block] = largest
    if visible > 0:
        best[(visible - 1) // size] = np.inf
    return best


@kernel(
    QUERIES,
    KEYS,
    WEIGHTS,
    COUNTS,
    reads(types.int64, 2),
    types.intp,
    types.intp,
    types.intp,
    writes(types.int64, 2),
)
def _top_k_among(queries, keys, weights, visible, pool, size, room, per_task, chosen):
    """queries [B·S, h, D], keys [B, T, D], weights [B·S, h], visible [B·S] from 0 to T, pool [B·S, P] block numbers;
    room: entries of a pool at most -> chosen [B·S, min(k, T)]"""
    count, entries = queries.shape[0], keys.shape[1]
    length, tasks = count // keys.shape[0], (room + per_task - 1) // per_task
    numbers, found = np.empty((count, room), np.int64), np.empty(count, np.int64)
    for query in prange(count):
        found[query] = _write_entries(pool[query], size, visible[query], (entries + size - 1) // size, numbers[query])
    scores, maxima = np.empty((count, room), np.float32), no_maxima(count, room)
    for task in prange(count * tasks):
        query, first = task // tasks, task % tasks * per_task
        behind = min(first + per_task, found[query])
        if first < behind:
            _score_some(
                queries[query],
                keys[query // length],
                weights[query],
                numbers[query, first:behind],
                scores[query, first:behind],
            )
            write_maxima(scores[query], first, behind, maxima[query])
    for query in prange(count):
        places = np.empty(min(chosen.shape[1], found[query]), np.int64)
        write_best(scores[query, : found[query]], found[query], maxima[query], places)
        _write_chosen(scores[query], numbers[query], places, entries - found[query], chosen[query])


@inlined
def _write_entries(pool, size, visible, blocks, numbers):
    """The visible entries of a pool in rising order, and how many there are. pool [P], numbers [≥ that many]"""
    is_there = np.zeros(blocks, np.bool_)
    for i in range(pool.size):
        if pool[i] >= 0:
            is_there[pool[i]] = True
    count = 0
    for block in range(blocks):
        if is_there[block]:
            for entry in range(block * size, min((block + 1) * size, visible)):
                numbers[count] = entry
                count += 1
    return count


@inlined
def _score_some(query, keys, weights, numbers, scores):
    """The scores of some entries of one query. query [h, D], keys [T, D], weights [h], numbers, scores [N]"""
    rows, some = spread(query, weights), np.empty((min(PIECE, numbers.size), keys.shape[1]), np.float32)
    for first in range(0, numbers.size, PIECE):
        count = min(PIECE, numbers.size - first)
        for i in range(count):
            _copy_key(keys[numbers[first + i]], some[i])
        score_keys(rows, some, 0, count, scores[first : first + count])


@inlined
def _copy_key(key, copied):
    for start in range(0, key.size, LANES):
        store_to_end(copied, start, load_to_end(key, start))


@inlined
def _write_chosen(scores, numbers, places, hidden, chosen):
    """The entries at the best places; as in `top_k`, −1 for each that may not be chosen comes before those of NaN.

    hidden: how many entries may not be chosen.
    """
    chosen[:] = -1
    for i in range(places.size):
        target = i + hidden if np.isnan(scores[places[i]]) else i
        if target < chosen.size:
            chosen[target] = numbers[places[i]]
