"""Attention over a window and chosen entries: mirrors dsv4.ops.attention."""

from typing import Any

import numpy as np

from dsv4.ops import attention as reference
from dsv4.ops.packed_rows import Rows
from dsv4.ops.types import Array, Ints
from dsv4_accel.cuda.device import Device, on_host
from dsv4_accel.cuda.packed_rows import by_sequence, layout_of
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
    window: Rows,
    window_index: Ints,
    entries: Rows,
    entry_index: Ints,
    attn_sink: Array,
) -> Array:
    """As dsv4.ops.attention.sparse_attention."""
    given = queries, window, window_index, entries, entry_index, attn_sink
    if not _fit(*given):
        return on_host(device, reference.sparse_attention, *given)
    return _attention(device, *given, None)


def turned_attention(
    device: Device,
    queries: Array,
    window: Rows,
    window_index: Ints,
    entries: Rows,
    entry_index: Ints,
    attn_sink: Array,
    positions: Ints,
    frequencies: Array,
) -> Array | None:
    """As Ops.turned_attention; None for what no kernel takes, and where queries are many."""
    given = queries, window, window_index, entries, entry_index, attn_sink
    pairs, keys = len(frequencies), window_index.shape[2] + entry_index.shape[2]
    fits = _fit(*given) and positions.shape == queries.shape[:2] and 0 < 2 * pairs <= queries.shape[3]
    if not fits or queries.shape[3] % VECTOR or not _by_splits(device, queries, keys):
        return None
    turn = positions.astype(np.int64, copy=False), frequencies.astype(np.float32, copy=False)
    return _attention(device, *given, (device.compact(turn[0]), device.compact(turn[1])))


def _attention(
    device: Device,
    queries: Array,
    window: Rows,
    window_index: Ints,
    entries: Rows,
    entry_index: Ints,
    attn_sink: Array,
    turn: tuple[Ints, Array] | None,
) -> Array:
    """What fits; turn: of few queries, the positions and frequencies that the output is turned by."""
    if not queries.size:
        return device.empty(queries.shape, np.float32)
    channels = queries.shape[3]
    queries = whole_vectors(device, queries)
    common = _common_arguments(device, queries, window, window_index, entries, entry_index)
    keys = window_index.shape[2] + entry_index.shape[2]
    sink, scaled = device.compact(attn_sink), (*common, channels**-0.5)
    out = device.empty(queries.shape, np.float32)
    if _by_splits(device, queries, keys):
        _in_splits(device, scaled, sink, _splits(keys), out, turn)
    else:
        _in_queries(device, scaled, sink, _splits(keys), out)
    return out if out.shape[3] == channels else out[..., :channels]


def _by_splits(device: Device, queries: Array, keys: int) -> bool:
    """Whether so few queries have so many keys that each split has blocks of its own."""
    blocks_of_queries = queries.shape[0] * queries.shape[1] * -(-queries.shape[2] // HEADS_OF_QUERIES)
    return bool(_splits(keys) > 1 and blocks_of_queries < device.multiprocessors)


def _common_arguments(
    device: Device, queries: Array, window: Rows, window_index: Ints, entries: Rows, entry_index: Ints
) -> tuple[Any, ...]:
    """What both kernels take, up to the scale. queries: in whole vectors."""
    both = _of_rows(device, window, window_index) + _of_rows(device, entries, entry_index)
    return queries, *both, device.status, *queries.shape[1:]


def _of_rows(device: Device, rows: Rows, index: Ints) -> tuple[Any, ...]:
    """What the kernels take of the window or of the entries, as they are stored."""
    first, step = by_sequence(device, rows)
    named = device.compact(index.astype(np.int64, copy=False))
    return first, named, index.shape[2], rows.shape[1], step, *(layout_of(rows) or ())


def _in_queries(device: Device, common: tuple[Any, ...], attn_sink: Array, splits: int, out: Array) -> None:
    """Each block goes through all splits of its query."""
    batch, length, heads, channels = out.shape
    blocks = batch * length, -(-heads // HEADS_OF_QUERIES) * -(-channels // RUN)
    arguments = *common, attn_sink, out, splits
    shared = _shared_bytes(HEADS_OF_QUERIES, channels)
    device.launch(kernels(FILE)["attention_of_queries"], blocks, THREADS, arguments, shared)


def _in_splits(
    device: Device,
    common: tuple[Any, ...],
    attn_sink: Array,
    splits: int,
    out: Array,
    turn: tuple[Ints, Array] | None,
) -> None:
    """Each split has blocks of its own, and what they leave is joined, and turned where that is wanted."""
    batch, length, heads, channels = out.shape
    softmaxes = device.empty((batch * length, splits, heads, 2), np.float32)
    sums = device.empty((batch * length, splits, heads, channels), np.float32)
    blocks = batch * length, -(-heads // HEADS_OF_SPLITS) * -(-channels // RUN), splits
    shared = _shared_bytes(HEADS_OF_SPLITS, channels)
    device.launch(kernels(FILE)["attention_of_splits"], blocks, THREADS, (*common, softmaxes, sums), shared)
    pairs = 0 if turn is None else len(turn[1])
    joining = softmaxes, sums, attn_sink, *(turn or (None, None)), out, splits, heads, channels, pairs
    runs = -(-channels // JOIN_THREADS)
    device.launch(kernels(FILE)["join_splits"], (batch * length * heads, runs), JOIN_THREADS, joining)


def _splits(keys: int) -> int:
    """How many splits so many keys make."""
    in_short = min(keys, SHORT_SPLIT * SHORT_SPLITS)
    return -(-in_short // SHORT_SPLIT) + -(-(keys - in_short) // LONG_SPLIT)


def _fit(queries: Array, window: Rows, window_index: Ints, entries: Rows, entry_index: Ints, attn_sink: Array) -> bool:
    """Whether the kernels take these: float32 or packed rows that fit, and a tile of them in shared memory."""
    if not are_float32(queries, attn_sink) or layout_of(window) is None or layout_of(entries) is None:
        return False
    batch, length, heads, channels = queries.shape
    fit = all(
        index.ndim == 3 and rows.shape[::2] == (batch, channels) and index.shape[:2] == (batch, length)
        for rows, index in ((window, window_index), (entries, entry_index))
    )
    return fit and attn_sink.shape == (heads,) and _shared_bytes(HEADS_OF_QUERIES, channels) <= MAX_SHARED


def _shared_bytes(heads: int, channels: int) -> int:
    """What a block shares: rows of queries and keys, and the partial sums, shares and factors of a tile."""
    stride = -(-channels // (SLICES * VECTOR)) * SLICES * VECTOR + VECTOR
    sums, shares = THREADS // 32 * heads * TILE, TILE * (heads + VECTOR)
    return 4 * ((heads + TILE) * stride + sums + shares + 2 * heads)
