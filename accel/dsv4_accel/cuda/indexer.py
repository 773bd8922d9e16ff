"""The lightning indexer: mirrors dsv4.ops.indexer."""

import numpy as np

from dsv4.ops import indexer as reference
from dsv4.ops.types import Array, Ints
from dsv4_accel.cuda.device import Device, on_host
from dsv4_accel.cuda.source import kernels

KEYS = 128
"""How many keys a block scores; a constant of the kernel."""

SCORE_THREADS, CHOOSE_THREADS = 128, 512

RUN = 8192
"""How many entries a block chooses from."""

MAX_CHOSEN = 4096
"""The largest k: its candidates are sorted in 32 KiB of shared memory."""

MAX_SCORES = 2**25
"""How many scores of a long prompt are held at once."""


def index_scores(device: Device, queries: Array, keys: Array, weights: Array) -> Array:
    """As dsv4.ops.indexer.index_scores."""
    if not _fit(queries, keys, weights):
        return on_host(device, reference.index_scores, queries, keys, weights)
    return _score(device, queries, keys, weights, None)


def top_k(device: Device, scores: Array, visible: Ints, k: int) -> Ints:
    """As dsv4.ops.indexer.top_k."""
    if scores.dtype != np.float32 or scores.ndim != 3 or visible.shape != scores.shape[:2] or not 1 <= k <= MAX_CHOSEN:
        return on_host(device, reference.top_k, scores, visible, k)
    return _choose(device, scores, device.compact(visible.astype(np.int64, copy=False)), k)


def index_top_k(device: Device, queries: Array, keys: Array, weights: Array, visible: Ints, k: int) -> Ints:
    """As dsv4.ops.indexer.index_top_k."""
    if not _fit(queries, keys, weights) or visible.shape != queries.shape[:2] or not 1 <= k <= MAX_CHOSEN:
        return on_host(device, reference.index_top_k, queries, keys, weights, visible, k)
    seen = visible.astype(np.int64, copy=False)
    step = max(1, MAX_SCORES // max(1, len(keys) * keys.shape[1]))
    chosen = []
    for start in range(0, max(1, queries.shape[1]), step):
        here, seen_here = slice(start, start + step), device.compact(seen[:, start : start + step])
        scores = _score(device, queries[:, here], keys, weights[:, here], seen_here)
        chosen.append(_choose(device, scores, seen_here, k))
    return chosen[0] if len(chosen) == 1 else np.concatenate(chosen, axis=1)


def _score(device: Device, queries: Array, keys: Array, weights: Array, visible: Ints | None) -> Array:
    """visible: contiguous int64, or None where every key is scored."""
    batch, length, heads, width = queries.shape
    count = keys.shape[1]
    scores = device.empty((batch, length, count), np.float32)
    if scores.size:
        given = (device.compact(array) for array in (queries, keys, weights))
        arguments = *given, visible, scores, length, heads, count, width
        blocks = batch * length, -(-count // KEYS)
        device.launch(kernels("indexer.cu")["index_scores"], blocks, SCORE_THREADS, arguments)
    return scores


def _choose(device: Device, scores: Array, visible: Ints, k: int) -> Ints:
    """visible: contiguous int64."""
    batch, length, count = scores.shape
    k = min(k, count)
    entries = device.empty((batch, length, k), np.int64)
    if entries.size:
        rows, runs = batch * length, -(-count // RUN)
        room = 1 << (k - 1).bit_length()
        found = device.empty((rows, runs, k), np.uint64)
        in_runs = device.compact(scores), visible, found, count, RUN, k, room
        functions = kernels("selection.cu")
        device.launch(functions["choose_in_runs"], (rows, runs), CHOOSE_THREADS, in_runs, shared=8 * room)
        among_found = found, visible, entries, runs * k, k, room
        device.launch(functions["choose_among_found"], (rows,), CHOOSE_THREADS, among_found, shared=8 * room)
    return entries


def _fit(queries: Array, keys: Array, weights: Array) -> bool:
    """Whether the kernels take these: float32 of shapes that fit."""
    if any(array.dtype != np.float32 for array in (queries, keys, weights)) or queries.ndim != 4 or keys.ndim != 3:
        return False
    batch, length, heads, width = queries.shape
    return keys.shape[::2] == (batch, width) and weights.shape == (batch, length, heads)
