"""Weights as the kernels take them: flat items, flat scale bytes, and where each row stands."""

import weakref
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np

from dsv4.ops.moe41 import MX_BLOCK
from dsv4.ops.quantise import FP4_BLOCK, Fp4Weight, Fp8Weight, Weight
from dsv4_accel.numba.arrays import compact
from dsv4_accel.numba.packed import CHUNK
from dsv4_accel.numba.products import Layout
from dsv4_accel.numba.storage import BFLOAT, FLOAT, FP4, FP8, MX, Storage

NO_SCALES = np.zeros(1, np.uint8)
FP4_CHUNK = CHUNK // FP4_BLOCK


class Flat:
    """A weight's memory, without a copy where its rows are whole chunks."""

    def __init__(
        self,
        storage: Storage,
        items: np.ndarray[Any, Any],
        scales: np.ndarray[Any, Any],
        layout: Layout,
        width: int,
    ) -> None:
        """items: bytes of FP4 or FP8, bits of bfloat16, or float32; scales: bytes; width: the weight's columns."""
        self.storage, self.layout = storage, layout
        self.items, self.scales = items.reshape(-1), scales.reshape(-1)
        self.fields = np.array(layout, np.int64)
        self.rows, self.width, self.columns = layout.rows, width, layout.chunks * CHUNK
        self.addresses = self.items.ctypes.data, self.scales.ctypes.data


_placed: dict[int, tuple[weakref.ref[Any], Flat | None]] = {}
"""What was found of each weight that `place` gave and that is still alive, by its identity."""


def place(weight: Weight) -> Weight:
    """As dsv4.ops.Ops.place: the same memory under another name, with which `flat` finds what it found of it."""
    match weight:
        case Fp4Weight() | Fp8Weight():
            placed: Weight = replace(weight)
        case np.ndarray():
            placed = weight.view()  # what is found of it keeps alive who owns the memory, and not this
        case _:
            placed = np.asarray(weight)
    key, forget = id(placed), _placed.pop  # at the end of a process the module's names are gone before the weights
    _placed[key] = weakref.ref(placed, lambda _: forget(key, None)), _look_at(placed)
    return placed


def flat(weight: Weight) -> Flat | None:
    """A weight [out, in] as kernels take it, or None for one that is left to the reference (float64, or malformed).

    Rows that are no whole number of chunks are copied, still packed, with zeros behind them; no released model has any.
    A weight that was not placed may have changed, and is looked at each time.
    """
    known = _placed.get(id(weight))
    return known[1] if known is not None and known[0]() is weight else _look_at(weight)


def _look_at(weight: Weight) -> Flat | None:
    match weight:
        case Fp4Weight(packed, scales):
            return _flat_fp4(packed, scales)
        case Fp8Weight(codes, scales, block):
            return _flat_fp8(codes, scales, block)
    if not isinstance(weight, np.ndarray) or weight.ndim != 2:
        return None
    if weight.dtype == np.float32:
        return _flat_dense(FLOAT, weight)
    if weight.dtype == ml_dtypes.bfloat16:
        return _flat_dense(BFLOAT, weight.view(np.uint16))
    return None


def _flat_fp4(packed: np.ndarray[Any, Any], scales: np.ndarray[Any, Any]) -> Flat | None:
    rows, width = packed.shape
    if packed.dtype != np.uint8 or scales.dtype != np.uint8 or scales.shape != (rows, 2 * width // FP4_BLOCK):
        return None
    if 2 * width % FP4_BLOCK:
        return None
    items, blocks = _whole_chunks(packed, CHUNK // 2), _whole_chunks(scales, FP4_CHUNK)
    chunks = items.shape[1] // (CHUNK // 2)
    layout = Layout(rows, chunks, items.shape[1], CHUNK // 2, blocks.shape[1], FP4_CHUNK, 1)
    return Flat(FP4, items, blocks, layout, 2 * width)


def _flat_fp8(codes: np.ndarray[Any, Any], scales: np.ndarray[Any, Any], block: tuple[int, int]) -> Flat | None:
    rows, width = codes.shape
    high, wide = block
    expected = -(-rows // high), -(-width // wide)
    if codes.dtype != np.uint8 or scales.dtype != np.uint8 or scales.shape != expected:
        return None
    items = _whole_chunks(codes, CHUNK)
    chunks = items.shape[1] // CHUNK
    if wide == CHUNK:
        return Flat(FP8, items, compact(scales), Layout(rows, chunks, chunks * CHUNK, CHUNK, chunks, 1, high), width)
    if wide != MX_BLOCK:
        return None
    blocks = _whole_chunks(scales, CHUNK // MX_BLOCK)
    layout = Layout(rows, chunks, chunks * CHUNK, CHUNK, blocks.shape[1], CHUNK // MX_BLOCK, high)
    return Flat(MX, items, blocks, layout, width)


def _flat_dense(storage: Storage, weight: np.ndarray[Any, Any]) -> Flat:
    items = _whole_chunks(weight, CHUNK)
    layout = Layout(weight.shape[0], items.shape[1] // CHUNK, items.shape[1], CHUNK, 0, 0, 1)
    return Flat(storage, items, NO_SCALES, layout, weight.shape[1])


def _whole_chunks(rows: np.ndarray[Any, Any], chunk: int) -> np.ndarray[Any, Any]:
    """The rows, with zeros behind them up to a whole number of chunks."""
    missing = -rows.shape[1] % chunk
    return np.pad(rows, ((0, 0), (0, missing))) if missing else compact(rows)
