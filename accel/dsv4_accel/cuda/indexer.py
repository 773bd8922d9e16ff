"""The lightning indexer: mirrors dsv4.ops.indexer."""

import numpy as np

from dsv4.ops import indexer as reference
from dsv4.ops.chunks import over_queries
from dsv4.ops.packed_rows import Rows
from dsv4.ops.types import Array, Ints
from dsv4_accel.cuda.device import Device, on_host
from dsv4_accel.cuda.packed_rows import unpacked
from dsv4_accel.cuda.selection import MAX_K, best_entries
from dsv4_accel.cuda.source import kernels
from dsv4_accel.cuda.vectors import are_float32, rows_by_sequence, whole_vectors

FILE = "indexer.cu"
KEYS, HEADS, STRIDE, THREADS = 128, 64, 36, 256
"""Constants of the kernel: keys and heads of a tile, floats of its rows, threads."""


def index_scores(device: Device, queries: Array, keys: Rows, weights: Array) -> Array:
    """As dsv4.ops.indexer.index_scores."""
    keys = unpacked(device, keys, queries.dtype)
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
    keys = unpacked(device, keys, queries.dtype)
    if not _fit(queries, keys, weights) or visible.shape != queries.shape[:2] or not 1 <= k <= MAX_K:
        return on_host(device, reference.index_top_k, queries, keys, weights, visible, k)

    def some_best(queries: Array, weights: Array, visible: Ints) -> Ints:
        seen = _counts(device, visible)
        return best_entries(device, _scores(device, queries, keys, weights, seen), seen, k)

    if queries.shape[1] == 1:  # one token needs no runs, and so no joining of them
        return some_best(queries, weights, visible)
    return over_queries(some_best, len(keys) * keys.shape[1], queries, weights, visible)


def _scores(device: Device, queries: Array, keys: Array, weights: Array, visible: Ints | None) -> Array:
    """visible: without gaps, int64, or None where every key needs a score."""
    batch, length, heads, _ = queries.shape
    count = keys.shape[1]
    scores = device.empty((batch, length, count), np.float32)
    if scores.size:
        blocks = batch * length, -(-count // KEYS)
        queries, (keys, step) = whole_vectors(device, queries), rows_by_sequence(device, keys)
        numbers = length, heads, count, queries.shape[3], step
        arguments = queries, keys, device.compact(weights), visible, scores, *numbers
        shared = 2 * (KEYS + HEADS) * STRIDE * scores.itemsize
        device.launch(kernels(FILE)["index_scores"], blocks, THREADS, arguments, shared)
    return scores


def _counts(device: Device, visible: Ints) -> Ints:
    return device.compact(visible.astype(np.int64, copy=False))


def _fit(queries: Array, keys: Array, weights: Array) -> bool:
    """Whether the kernels take these: float32 of shapes that fit, with heads and channels."""
    if not are_float32(queries, keys, weights) or min(queries.shape[2:]) == 0:
        return False
    batch, length, heads, width = queries.shape
    return keys.ndim == 3 and keys.shape[::2] == (batch, width) and weights.shape == (batch, length, heads)
