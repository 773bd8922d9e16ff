"""Weights as the kernels take them: flat items, flat scale bytes, and where each row stands."""

import itertools
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import ml_dtypes
import numpy as np

from dsv4.ops.moe41 import MX_BLOCK
from dsv4.ops.quantise import FP4_BLOCK, Fp4Weight, Fp8Weight, Weight
from dsv4_accel.numba.arrays import compact
from dsv4_accel.numba.packed import CHUNK
from dsv4_accel.numba.products import Layout
from dsv4_accel.numba.storage import BFLOAT, FLOAT, FP4, FP8, MX, Storage

T = TypeVar("T")

NO_SCALES = np.zeros(1, np.uint8)
FP4_CHUNK = CHUNK // FP4_BLOCK

FIELDS = len(Layout._fields) + 2
"""Of a row of the matrices of `Together`."""


class Together(NamedTuple):
    """Weights of one storage and one width, as a kernel takes them that multiplies one x with all of them."""

    storage: Storage
    width: int
    columns: int
    """The width, up to whole chunks."""
    rows: tuple[int, ...]
    starts: tuple[int, ...]
    """How many rows stand before those of each weight."""
    all_rows: int
    matrices: np.ndarray[Any, Any]
    """[M, 9] int64: the fields of each Layout, and the addresses of its items and scales."""
    memory: tuple[np.ndarray[Any, Any], ...]
    """What the addresses point to, which must live as long."""

    @property
    def is_quantised(self) -> bool:
        """Whether x may be rounded for these weights."""
        return self.storage is not BFLOAT and self.storage is not FLOAT


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
        matrices = np.array([[*layout, items.ctypes.data, scales.ctypes.data]], np.int64)
        columns = layout.chunks * CHUNK
        self.alone = Together(storage, width, columns, (layout.rows,), (0,), layout.rows, matrices, (items, scales))
        self.is_placed = False
        self.beside: dict[tuple[Any, ...], tuple[list[Flat], Any]] = {}
        """What was found of this and others, by their identities; they are kept, so that these stay theirs."""


Found = Flat | np.ndarray[Any, Any] | None
"""A matrix as kernels take it, a vector in float32, or nothing for what is left to the reference."""

_placed: dict[int, tuple[weakref.ref[Any], Found]] = {}
"""What was found of each weight that `place` gave and that is still alive, by its identity."""


def place(weight: Weight) -> Weight:
    """As dsv4.ops.Ops.place: the same memory under another name, with which `flat` finds what it found of it."""
    if isinstance(weight, (Fp4Weight, Fp8Weight)):
        placed: Weight = replace(weight)
        found: Found = _look_at(weight)
    else:
        array = np.asarray(weight)
        placed = array.view()  # what is found may be the array itself: of this, it would keep what it is forgotten with
        found = _vector(array) if array.ndim == 1 and array.dtype.kind in "fV" else _look_at(array)
    if isinstance(found, Flat):
        found.is_placed = True
    key, forget = id(placed), _placed.pop  # at the end of a process the module's names are gone before the weights
    _placed[key] = weakref.ref(placed, lambda _: forget(key, None)), found
    return placed


def flat(weight: Weight) -> Flat | None:
    """A weight [out, in] as kernels take it, or None for one that is left to the reference (float64, or malformed).

    Rows that are no whole number of chunks are copied, still packed, with zeros behind them; no released model has any.
    A weight that was not placed may have changed, and is looked at each time.
    """
    known = _placed.get(id(weight))
    if known is None or known[0]() is not weight:
        return _look_at(weight)
    return known[1] if isinstance(known[1], Flat) else None


def vector(weight: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A weight [d] of floats as kernels take it, in float32: found out once where it was placed."""
    known = _placed.get(id(weight))
    if known is None or known[0]() is not weight or not isinstance(known[1], np.ndarray):
        return _vector(weight)
    return known[1]


def _vector(weight: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return compact(weight.astype(np.float32, copy=False))


def together(weights: Sequence[Weight]) -> Together | None:
    """Several weights as one kernel takes them; None for none, and where they are not alike, or not for kernels."""
    return found_of(weights, _join) if weights else None


def found_of(weights: Sequence[Weight], find: Callable[[list[Together]], T | None]) -> T | None:
    """What there is to find of several weights, each by itself as kernels take it; None where one is not for kernels.

    Of placed weights it is found out once.
    """
    first, *others = map(flat, weights)
    if first is None:
        return None
    key = find, *map(id, others)
    if key in first.beside:
        known: T | None = first.beside[key][1]
        return known
    parts = [part for part in (first, *others) if part is not None]
    found = find([part.alone for part in parts]) if len(parts) == len(weights) else None
    if all(part.is_placed for part in parts):
        first.beside[key] = parts[1:], found
    return found


def _join(alone: list[Together]) -> Together | None:
    storage, width, columns = alone[0][:3]
    if any(one.storage is not storage or one.width != width for one in alone):
        return None
    rows = tuple(one.all_rows for one in alone)
    memory = tuple(part for one in alone for part in one.memory)
    matrices = np.concatenate([one.matrices for one in alone])
    starts = tuple(itertools.accumulate(rows[:-1], initial=0))
    return Together(storage, width, columns, rows, starts, sum(rows), matrices, memory)


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
    """The rows one behind the other in memory, each with zeros behind it up to a whole number of chunks."""
    missing = -rows.shape[1] % chunk
    return compact(np.pad(rows, ((0, 0), (0, missing))) if missing else rows)  # `pad` keeps the order of its argument
