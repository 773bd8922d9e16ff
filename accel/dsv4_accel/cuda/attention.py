"""Attention over a window and chosen entries: mirrors dsv4.ops.attention."""

import numpy as np

from dsv4.ops import attention as reference
from dsv4.ops.types import Array, Ints
from dsv4_accel.cuda.device import Device, on_host
from dsv4_accel.cuda.source import kernels
from dsv4_accel.cuda.vectors import VECTOR, are_float32, whole_vectors

FILE = "attention.cu"
THREADS, TILE, SLICES, RUN = 256, 16, 16, 512
SHORT_SPLIT, SHORT_SPLITS, LONG_SPLIT = 32, 32, 256
"""Constants of the kernels."""

HEADS_OF_SPLITS, HEADS_OF_QUERIES = 8, 16
"""How many heads a block takes in the kernel for few queries, and in the one for many."""

JOIN_THREADS = 128

MAX_SHARED = 99 * 1024
"""The shared memory of a block on the smallest supported GPUs."""


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
    if not queries.size:
        return device.empty(queries.shape, np.float32)
    channels = queries.shape[3]
    rows = (whole_vectors(device, array) for array in (queries, window, entries))
    indices = (device.compact(index.astype(np.int64, copy=False)) for index in (window_index, entry_index))
    out = _attend(device, *rows, *indices, device.compact(attn_sink), channels**-0.5)
    return out[..., :channels]


def _attend(
    device: Device,
    queries: Array,
    window: Array,
    entries: Array,
    window_index: Ints,
    entry_index: Ints,
    attn_sink: Array,
    scale: float,
) -> Array:
    """The arguments as kernels take them: without gaps, channels in whole vectors, indices in int64."""
    batch, length, heads, channels = queries.shape
    count, runs, keys = batch * length, -(-channels // RUN), window_index.shape[2] + entry_index.shape[2]
    splits = -(-min(keys, SHORT_SPLIT * SHORT_SPLITS) // SHORT_SPLIT)
    splits += -(-max(keys - SHORT_SPLIT * SHORT_SPLITS, 0) // LONG_SPLIT)
    out = device.empty(queries.shape, np.float32)
    places = queries, window, window_index, entries, entry_index
    rows = window.shape[1], entries.shape[1]
    sizes = length, heads, channels, window_index.shape[2], entry_index.shape[2], *rows
    numbers = *sizes, *(one * channels for one in rows), scale
    groups = -(-heads // HEADS_OF_QUERIES)
    if splits <= 1 or count * groups >= device.multiprocessors:
        arguments = *places, attn_sink, out, device.status, *numbers, splits
        shared = _shared_bytes(HEADS_OF_QUERIES, channels)
        device.launch(kernels(FILE)["attention_of_queries"], (count, groups * runs), THREADS, arguments, shared)
        return out
    softmaxes = device.empty((count, splits, heads, 2), np.float32)
    sums = device.empty((count, splits, heads, channels), np.float32)
    blocks = count, -(-heads // HEADS_OF_SPLITS) * runs, splits
    arguments = *places, softmaxes, sums, device.status, *numbers
    shared = _shared_bytes(HEADS_OF_SPLITS, channels)
    device.launch(kernels(FILE)["attention_of_splits"], blocks, THREADS, arguments, shared)
    joining = softmaxes, sums, attn_sink, out, splits, heads, channels
    device.launch(kernels(FILE)["join_splits"], (count * heads, -(-channels // JOIN_THREADS)), JOIN_THREADS, joining)
    return out


def _fit(
    queries: Array, window: Array, window_index: Ints, entries: Array, entry_index: Ints, attn_sink: Array
) -> bool:
    """Whether the kernels take these: float32 of shapes that fit, and a tile of them in shared memory."""
    if not are_float32(queries, window, entries, attn_sink):
        return False
    batch, length, heads, channels = queries.shape
    fit = all(
        rows.shape == (batch, rows.shape[1], channels) and index.shape == (batch, length, index.shape[2])
        for rows, index in ((window, window_index), (entries, entry_index))
    )
    return fit and attn_sink.shape == (heads,) and 0 < _shared_bytes(HEADS_OF_QUERIES, channels) <= MAX_SHARED


def _shared_bytes(heads: int, channels: int) -> int:
    """What a block shares: rows of queries and keys, and the partial sums, shares and factors of a tile."""
    stride = -(-channels // (SLICES * VECTOR)) * SLICES * VECTOR + VECTOR
    sums, shares = THREADS // 32 * heads * TILE, TILE * (heads + VECTOR)
    return 4 * ((heads + TILE) * stride + sums + shares + 2 * heads)
