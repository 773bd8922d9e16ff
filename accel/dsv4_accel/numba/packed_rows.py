"""Packed rows of a cache: mirrors dsv4.ops.packed_rows. A row is read into floats, two vectors at a time.

Each number is the same, bit for bit, as in the reference: a code's value times the scale of its block.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import prange, types

from dsv4.ops.formats import E8M0_VALUES, FP4_VALUES, FP8_VALUES
from dsv4.ops.packed_rows import Fp4Format, Fp8Format, Nvfp4Format, PackedRows, Rows
from dsv4.ops.quantise import FP4_BLOCK, NVFP4_GROUP
from dsv4.ops.types import Array, Bytes, Ints
from dsv4_accel.numba.codes import fp4_values, load_fp8_or_nan
from dsv4_accel.numba.compile import inlined, kernel, reads, writes
from dsv4_accel.numba.memory import loader, store
from dsv4_accel.numba.vectors import (
    LANES,
    WORDS,
    F32x16,
    U32x16,
    constant,
    extract,
    floats,
    of_two,
    splat,
    splat_word,
)

BYTE = np.dtype(np.uint8)

STORED = types.Array(types.uint8, 3, "A", readonly=True)
"""[B, N, width], each [N, width] in one piece."""

RUN = 32
"""Rows of one task."""

READING = 16
"""Multiply-adds that take about as long as it takes to read a number."""


class Layout(NamedTuple):
    """How a kernel reads the rows of a format."""

    codes: int
    """Channels that are stored as codes, the first ones; the others are bfloat16."""
    bits: int
    """Bits of a code: 4 or 8."""
    block: int
    """Codes that share one scale."""
    scales: Array
    """[256] float32: what the byte of a scale stands for."""


def layout(rows: Any) -> Layout | None:
    """How a kernel reads packed rows [B, N, c]; None for others, and for those that are left to the reference."""
    if not isinstance(rows, PackedRows) or not isinstance(rows.stored, np.ndarray) or rows.stored.dtype != BYTE:
        return None
    if rows.stored.ndim != 3 or rows.stored.shape[2] != rows.form.width:
        return None
    match rows.form:
        case Fp8Format(channels, block, rotated):
            return Layout(channels - rotated, 8, block, E8M0_VALUES)
        case Fp4Format(channels) if channels % 2 == 0:
            return Layout(channels, 4, FP4_BLOCK, E8M0_VALUES)
        case Nvfp4Format(channels) if channels % 2 == 0:
            return Layout(channels, 4, NVFP4_GROUP, FP8_VALUES)
    return None


def in_one_piece(stored: Bytes) -> Bytes:
    """The bytes of each sequence one row behind the other, without a copy for a part of a cache. [B, N, width]"""
    return stored if stored.strides[1:] == (stored.shape[2], 1) else np.array(stored, order="C")


def unpacked(rows: Rows) -> Any:
    """All of packed rows as float32. What no kernel reads is given back as it is."""
    how = layout(rows)
    if how is None or not isinstance(rows, PackedRows):
        return rows
    batch, count, _ = rows.shape
    return _read(rows, how, np.tile(np.arange(count), (batch, 1)))


def named(queries: Array, rows: Rows, index: Ints) -> tuple[Rows, Ints]:
    """Packed rows [B, N, c] as float32, and for an index [B, S, K] into them one into these.

    They are all rows or, where these are fewer, those that are named, once for each time. What no kernel reads, and
    what does not belong to queries [B, S, H, c], is given back as it is.
    """
    how = layout(rows)
    if how is None or not isinstance(rows, PackedRows) or not _names_rows(queries, rows, index):
        return rows, index
    batch, length, width = index.shape
    if length * width > rows.shape[1]:
        return unpacked(rows), index
    places = np.arange(length * width).reshape(length, width)
    chosen = index.reshape(batch, length * width).astype(np.int64, copy=False)
    return _read(rows, how, chosen), np.where(index >= 0, places, -1)


def _names_rows(queries: Array, rows: PackedRows, index: Any) -> bool:
    """Whether an index belongs to these queries and rows, and names nothing beyond the rows."""
    return (
        isinstance(index, np.ndarray)
        and index.dtype.kind == "i"
        and index.ndim == 3
        and queries.ndim == 4
        and rows.shape[::2] == queries.shape[::3]
        and index.shape[:2] == queries.shape[:2]
        and bool(index.max(initial=-1) < rows.shape[1])
    )


def _read(rows: PackedRows, how: Layout, index: Ints) -> Array:
    """The rows of an index [B, M] int64, each below N: [B, M, c]; they hold anything where it is negative."""
    numbers = np.empty((*index.shape, rows.shape[2]), np.float32)
    index = np.ascontiguousarray(index)
    _read_rows(READING * numbers.size, in_one_piece(rows.stored), *how, index, numbers)
    return numbers


@kernel(
    STORED,
    types.intp,
    types.intp,
    types.intp,
    reads(types.float32, 1),
    reads(types.int64, 2),
    writes(types.float32, 3),
)
def _read_rows(stored, codes, bits, block, scales, index, numbers):
    """stored [B, N, width], index [B, M] below N -> numbers [B, M, c], but where the index is negative"""
    batch, count = index.shape
    runs = (count + RUN - 1) // RUN
    for task in prange(batch * runs):
        b, first = task // runs, task % runs * RUN
        behind = min(first + RUN, count)
        _read_some(stored[b], codes, bits, block, scales, index[b], first, behind, numbers[b])


@inlined
def _read_some(stored, codes, bits, block, scales, index, first, behind, numbers):
    for place in range(first, behind):
        if index[place] >= 0:
            if bits == 4:
                read_fp4(stored, index[place], block, scales, numbers, place)
            else:
                _read_fp8(stored, index[place], codes, block, scales, numbers, place)


def _interleaved(first: int) -> Any:
    """Eight lanes of a and of b in turn, from lane `first` on."""
    lanes = [first + lane // 2 + LANES * (lane % 2) for lane in range(LANES)]
    return of_two(F32x16, F32x16, F32x16, lambda builder, a, b: builder.shuffle_vector(a, b, constant(WORDS, lanes)))


_first_in_turn, _last_in_turn = _interleaved(0), _interleaved(LANES // 2)

_load_bytes = loader(types.uint8, LANES, U32x16, lambda builder, items: builder.zext(items, WORDS))
"""_load_bytes(array of uint8, index): 16 bytes, one a lane."""


@inlined
def read_fp4(stored, row, block, scales, numbers, place):
    """numbers[place] of a row in FP4, with a scale for each 16 or 32 codes.

    stored [N, width], scales [256], numbers [M, c]
    """
    c, width = numbers.shape[1], stored.shape[1]
    whole = c - c % (2 * LANES)
    for channel in range(0, whole, 2 * LANES):
        pairs = _load_bytes(stored, row * width + channel // 2)
        even, odd = fp4_values(pairs), fp4_values(pairs >> 4)
        scale = splat(scales[stored[row, c // 2 + channel // block]])
        store(numbers, place * c + channel, _first_in_turn(even, odd) * scale)
        scale = splat(scales[stored[row, c // 2 + (channel + LANES) // block]])
        store(numbers, place * c + channel + LANES, _last_in_turn(even, odd) * scale)
    for channel in range(whole, c):
        code = stored[row, channel // 2] >> (4 * (channel % 2)) & 15
        numbers[place, channel] = FP4_VALUES[code] * scales[stored[row, c // 2 + channel // block]]


@inlined
def _read_fp8(stored, row, codes, block, scales, numbers, place):
    """numbers[place] of a row of FP8 codes with a scale for each block, and bfloat16 in the channels behind them."""
    c, width = numbers.shape[1], stored.shape[1]
    for start in range(0, codes, block):
        behind = min(start + block, codes)
        whole = behind - (behind - start) % LANES
        scale = scales[stored[row, codes + 2 * (c - codes) + start // block]]
        for channel in range(start, whole, LANES):
            store(numbers, place * c + channel, load_fp8_or_nan(stored, row * width + channel) * splat(scale))
        for channel in range(whole, behind):
            numbers[place, channel] = FP8_VALUES[stored[row, channel]] * scale
    for channel in range(codes, c):
        first = codes + 2 * (channel - codes)
        bits = np.uint32(stored[row, first]) << 16 | np.uint32(stored[row, first + 1]) << 24
        numbers[place, channel] = extract(floats(splat_word(np.uint32(bits))), 0)
