"""Packed rows of a cache: mirrors dsv4.ops.packed_rows. Kernels read them as they are stored (packed.cuh)."""

from typing import Any, NamedTuple

import numpy as np

from dsv4.ops import packed_rows as reference
from dsv4.ops.packed_rows import Fp4Format, Fp8Format, Nvfp4Format, PackedRows, RowFormat, Rows
from dsv4.ops.quantise import FP4_BLOCK, NVFP4_GROUP
from dsv4.ops.types import Array, Bytes
from dsv4_accel.cuda.device import Device, on_host
from dsv4_accel.cuda.source import kernels
from dsv4_accel.cuda.vectors import VECTOR, rows_by_sequence

FILE = "packed_rows.cu"
THREADS = 128

FLOATS, FP8_ROWS, FP4_ROWS, NVFP4_ROWS = range(4)
"""Kinds of rows, as in packed.cuh."""


class Layout(NamedTuple):
    """How a kernel reads rows: RowFormat of packed.cuh."""

    kind: int
    codes: int
    """Channels that are stored as codes, the first ones."""
    rotated: int
    """The others, in bfloat16."""
    block: int
    """Codes that share one scale."""


AS_FLOATS = Layout(FLOATS, 0, 0, VECTOR)


def layout(form: RowFormat) -> Layout | None:
    """How kernels read and write rows of a format; None for what is left to the reference."""
    match form:
        case Fp8Format(channels, block, rotated) if block % VECTOR == 0:
            return Layout(FP8_ROWS, channels - rotated, rotated, block)
        case Fp4Format(channels) if channels % 2 == 0:
            return Layout(FP4_ROWS, channels, 0, FP4_BLOCK)
        case Nvfp4Format(channels) if channels % 2 == 0:
            return Layout(NVFP4_ROWS, channels, 0, NVFP4_GROUP)
    return None


def layout_of(rows: Rows) -> Layout | None:
    """How kernels read these rows [B, N, c], floats or packed; None for what is left to the reference."""
    if not isinstance(rows, PackedRows):
        return AS_FLOATS if rows.dtype == np.float32 and rows.ndim == 3 else None
    stored = rows.stored
    fits = stored.dtype == np.uint8 and stored.ndim == 3 and stored.shape[2] == rows.form.width
    return layout(rows.form) if fits else None


def pack_rows(device: Device, rows: Array, form: RowFormat) -> Bytes:
    """As Ops.pack_rows."""
    how = layout(form)
    if how is None or rows.dtype != np.float32 or rows.shape[-1] != form.channels:
        return on_host(device, form.pack, rows)
    packed = device.empty((*rows.shape[:-1], form.width), np.uint8)
    if packed.size:
        blocks = packed.size // form.width
        device.launch(kernels(FILE)["pack_rows"], (blocks,), THREADS, (device.compact(rows), packed, *how))
    return packed


def unpack_rows(device: Device, rows: Rows, dtype: Any) -> Array:
    """As Ops.unpack_rows."""
    if not isinstance(rows, PackedRows):
        return rows
    how = layout_of(rows)
    if how is None or dtype != np.float32:
        return on_host(device, lambda packed: reference.unpacked(packed, dtype), rows)
    numbers = device.empty(rows.shape, np.float32)
    if numbers.size:
        stored, step = bytes_by_sequence(device, rows.stored)
        blocks, count = numbers.size // rows.shape[2], rows.shape[1]
        device.launch(kernels(FILE)["unpack_rows"], (blocks,), THREADS, (stored, numbers, count, step, *how))
    return numbers


def bytes_by_sequence(device: Device, stored: Bytes) -> tuple[Bytes, int]:
    """[B, N, width] -> the bytes of the first sequence, and how many further those of the next one begin.

    The first rows of a longer cache stay where they are.
    """
    if len(stored) and stored[0].flags.c_contiguous:
        return stored[0], stored.strides[0]
    whole = device.compact(stored)
    return whole, whole.shape[1] * whole.shape[2]


def by_sequence(device: Device, rows: Rows) -> tuple[Array | Bytes, int]:
    """Floats [B, N, c] or packed rows: those of the first sequence, and how many bytes behind them the next begin."""
    if isinstance(rows, PackedRows):
        return bytes_by_sequence(device, rows.stored)
    first, step = rows_by_sequence(device, rows)
    return first, step * first.itemsize
