"""The lightning indexer: mirrors dsv4.ops.indexer, and what makes its queries."""

import numpy as np

from dsv4.ops import indexer as reference
from dsv4.ops.chunks import over_queries
from dsv4.ops.packed_rows import Rows
from dsv4.ops.quantise import FP4_BLOCK
from dsv4.ops.types import Array, Ints
from dsv4_accel.cuda.device import Device, on_host
from dsv4_accel.cuda.hadamard import MAX_WIDTH
from dsv4_accel.cuda.kept import Recent
from dsv4_accel.cuda.matrix import CHUNK
from dsv4_accel.cuda.packed_rows import FP4_ROWS, by_sequence, layout_of, unpack_rows
from dsv4_accel.cuda.rope import can_be_turned
from dsv4_accel.cuda.selection import MAX_K, best_entries
from dsv4_accel.cuda.source import kernels
from dsv4_accel.cuda.vectors import VECTOR, are_float32

FILE = "indexer.cu"
KEYS, THREADS, WARP = 128, 128, 32
"""Constants of the kernels: keys of a block, threads of it."""

MOST_AT_ONCE = 512
"""How many queries at most are prepared by the launch that makes them: the heads of eight tokens. More are in runs."""

Prepared = tuple[Array, Array, Array]
"""Queries as the kernels of scores take them: pieces, units, and whether each is more than one piece."""

_prepared_last: Recent[tuple[int, ...], Prepared] = Recent(1)
"""Of the queries that were made last, while they live, by where they lie and their shape as rows."""


def index_queries(device: Device, x: Array, positions: Ints, frequencies: Array, rounds: bool) -> Array | None:
    """As Ops.index_queries; None for more than a few queries, and for what no kernel takes."""
    width, pairs = x.shape[-1], len(frequencies)
    fits = x.ndim == 4 and can_be_turned(x, positions, frequencies) and 0 < x.size <= MOST_AT_ONCE * width
    if not fits or not FP4_BLOCK <= width <= MAX_WIDTH or width & (width - 1):
        return None
    rows, out = x.size // width, device.empty(x.shape, np.float32)
    made = _empty_prepared(device, rows, width)
    arguments = (
        *(device.compact(x), device.compact(positions.astype(np.int64, copy=False))),
        *(device.compact(frequencies.astype(np.float32, copy=False)), out, *made),
        *(x.shape[2], width, pairs, width**-0.5, rounds),
    )
    device.launch(kernels(FILE)["index_queries"], (rows,), WARP, arguments, shared=4 * width)
    _prepared_last.keep((device.address(out), rows, width), out, made)
    return out


def index_scores(device: Device, queries: Array, keys: Rows, weights: Array) -> Array:
    """As dsv4.ops.indexer.index_scores."""
    if not _fit(queries, keys, weights):
        return on_host(device, reference.index_scores, queries, keys, weights)
    return _scores(device, queries, keys, weights, None)


def top_k(device: Device, scores: Array, visible: Ints, k: int) -> Ints:
    """As dsv4.ops.indexer.top_k."""
    if not are_float32(scores) or visible.shape != scores.shape[:2] or not 1 <= k <= MAX_K:
        return on_host(device, reference.top_k, scores, visible, k)
    return best_entries(device, device.compact(scores), _counts(device, visible), k)


def index_top_k(device: Device, queries: Array, keys: Rows, weights: Array, visible: Ints, k: int) -> Ints:
    """As dsv4.ops.indexer.index_top_k."""
    if not _fit(queries, keys, weights) or visible.shape != queries.shape[:2] or not 1 <= k <= MAX_K:
        return on_host(device, reference.index_top_k, queries, keys, weights, visible, k)

    def some_best(queries: Array, weights: Array, visible: Ints) -> Ints:
        seen = _counts(device, visible)
        return best_entries(device, _scores(device, queries, keys, weights, seen), seen, k)

    if queries.shape[1] == 1:  # one token needs no runs, and so no joining of them
        return some_best(queries, weights, visible)
    return over_queries(some_best, keys.shape[0] * keys.shape[1], queries, weights, visible)


def _scores(device: Device, queries: Array, keys: Rows, weights: Array, visible: Ints | None) -> Array:
    """visible: without gaps, int64, or None where every key needs a score."""
    batch, length, heads, width = queries.shape
    count = keys.shape[1]
    scores = device.empty((batch, length, count), np.float32)
    if scores.size:
        kind = layout_of(keys)
        is_fp4 = kind is not None and kind.kind == FP4_ROWS
        if not is_fp4:
            keys = unpack_rows(device, keys, np.float32)
        stored, step = by_sequence(device, keys)
        columns = width if is_fp4 else -(-width // VECTOR) * VECTOR
        numbers = length, heads, count, columns
        arguments = *_prepared(device, queries), stored, step, device.compact(weights), visible, scores, *numbers
        name = "index_scores_fp4" if is_fp4 else "index_scores"
        device.launch(kernels(FILE)[name], (batch * length, -(-count // KEYS)), THREADS, arguments)
    return scores


def _prepared(device: Device, queries: Array) -> Prepared:
    """Queries [B, S, h, D] as the kernels take them: by the launch that made them, or by one of its own."""
    rows, width, whole = queries.size // queries.shape[3], queries.shape[3], device.compact(queries)
    known = _prepared_last.get((device.address(whole), rows, width))
    if known is not None and known[0]() is not None:
        return known[1]
    made = _empty_prepared(device, rows, width)
    device.launch(kernels(FILE)["prepare_queries"], (rows,), WARP, (whole, *made, width))
    return made


def _empty_prepared(device: Device, rows: int, width: int) -> Prepared:
    pieces = device.empty((3, rows, -(-width // CHUNK) * CHUNK), np.uint16)
    return pieces, device.empty((rows,), np.float32), device.empty((rows,), np.bool_)


def _counts(device: Device, visible: Ints) -> Ints:
    return device.compact(visible.astype(np.int64, copy=False))


def _fit(queries: Array, keys: Rows, weights: Array) -> bool:
    """Whether the kernels take these: float32 or packed keys, of shapes that fit, with heads and channels."""
    if not are_float32(queries, weights) or layout_of(keys) is None or min(queries.shape[2:]) == 0:
        return False
    batch, length, heads, width = queries.shape
    return keys.shape[::2] == (batch, width) and weights.shape == (batch, length, heads)
