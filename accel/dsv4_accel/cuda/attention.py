"""Attention over a window and chosen entries: mirrors dsv4.ops.attention."""

import numpy as np

from dsv4.ops import attention as reference
from dsv4.ops.types import Array, Ints
from dsv4_accel.cuda.device import Device, on_host
from dsv4_accel.cuda.source import kernels

FILE = "attention.cu"
HEADS, TILE, SPLIT, SLICES, THREADS, MAX_CHANNELS = 16, 16, 64, 16, 256, 512
"""Constants of the kernels."""

MERGE_THREADS = 256


def sparse_attention(
    device: Device,
    queries: Array,
    window: Array,
    window_index: Ints,
    entries: Array,
    entry_index: Ints,
    attn_sink: Array,
) -> Array:
    """As dsv4.ops.attention.sparse_attention."""
    given = queries, window, window_index, entries, entry_index, attn_sink
    if not _fit(*given):
        return on_host(device, reference.sparse_attention, *given)
    keys = window_index.shape[2] + entry_index.shape[2]
    if not keys or not queries.size:
        return device.zeros(queries.shape, np.float32)
    near, far = (index.astype(np.int64, copy=False) for index in (window_index, entry_index))
    placed = tuple(map(device.compact, (queries, window, near, entries, far, attn_sink)))
    return _attend(device, placed, window_index.shape[2], entry_index.shape[2])


def _attend(device: Device, given: tuple[Array | Ints, ...], from_window: int, from_entries: int) -> Array:
    """given: the arguments, contiguous, indices in int64."""
    queries, window, _, entries, _, attn_sink = given
    batch, length, heads, channels = queries.shape
    count, groups, splits = batch * length, -(-heads // HEADS), -(-(from_window + from_entries) // SPLIT)
    padded = -(-channels // (4 * SLICES)) * 4 * SLICES
    shared = 4 * ((HEADS + TILE) * padded + 2 * HEADS * TILE + 4 * HEADS)
    numbers = length, heads, channels, from_window, from_entries, window.shape[1], entries.shape[1], channels**-0.5
    out = device.empty(queries.shape, np.float32)
    functions = kernels(FILE)
    if splits == 1 or count * groups >= device.multiprocessors:
        arguments = *given, None, None, out, device.status, *numbers
        device.launch(functions["attention_of_queries"], (count, groups), THREADS, arguments, shared)
        return out
    largest, total = (device.empty((count, splits, heads), np.float32) for _ in range(2))
    parts = device.empty((count, splits, heads, channels), np.float32)
    arguments = *given, largest, total, parts, device.status, *numbers
    device.launch(functions["attention_of_splits"], (count, groups, splits), THREADS, arguments, shared)
    merging = largest, total, parts, attn_sink, out, splits, heads, channels
    device.launch(functions["merge_splits"], (count, heads), MERGE_THREADS, merging)
    return out


def _fit(
    queries: Array, window: Array, window_index: Ints, entries: Array, entry_index: Ints, attn_sink: Array
) -> bool:
    """Whether the kernels take these: float32 of shapes that fit, and not too many channels."""
    if any(array.dtype != np.float32 for array in (queries, window, entries, attn_sink)) or queries.ndim != 4:
        return False
    batch, length, heads, channels = queries.shape
    pairs = (window, window_index), (entries, entry_index)
    fit = all(
        rows.ndim == index.ndim == 3 and rows.shape[::2] == (batch, channels) and index.shape[:2] == (batch, length)
        for rows, index in pairs
    )
    return fit and attn_sink.shape == (heads,) and 0 < channels <= MAX_CHANNELS
