"""Stored weights as kernels read them: bytes whose rows are whole chunks, without a copy where they are already."""

import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from dsv4.ops.quantise import FP4_BLOCK, FP8_WEIGHT_BLOCK, Fp4Weight, Fp8Weight, Weight
from dsv4.ops.types import Bytes
from dsv4_accel.cuda.device import Device

CHUNK = 128
"""Columns of a chunk: rows are whole chunks for the kernels (weights.cuh)."""


class Form(NamedTuple):
    """What kernels need to know of a matrix."""

    storage: str
    """fp4, fp8, bfloat or float: the end of the kernels' names."""
    rows: int
    columns: int

    @property
    def chunks(self) -> int:
        """The chunks of a row."""
        return -(-self.columns // CHUNK)

    @property
    def is_quantised(self) -> bool:
        """Whether a product in the released model rounds its input for it."""
        return self.storage in ("fp4", "fp8")


class Matrix(NamedTuple):
    """A matrix whose rows are whole chunks."""

    form: Form
    bytes: Bytes
    scales: Bytes | None


def matrix_of(device: Device, weight: Weight) -> Matrix | None:
    """A weight [out, in] as kernels read it, or None for one that is left to the reference.

    That of a packed weight is kept for as long as the weight lives; a dense one is looked at each time, since what is
    kept would keep it alive.
    """
    if isinstance(weight, Fp8Weight | Fp4Weight):
        return kept((weight,), lambda: _matrix(device, weight))
    return _matrix(device, weight)


_known: dict[tuple[int, ...], tuple[list[weakref.ref[Any]], Any]] = {}
"""What was made for owners that are still alive, by their identities."""


def kept(owners: tuple[Any, ...], make: Callable[[], Any]) -> Any:
    """What `make` gives, once for the same owners; each time for owners that cannot be watched, as lists cannot."""
    key = tuple(map(id, owners))
    known = _known.get(key)
    if known is not None and all(one() is owner for one, owner in zip(known[0], owners, strict=True)):
        return known[1]
    found, forget = make(), _known.pop  # at the end of a process the module's names are gone before the owners
    try:
        _known[key] = [weakref.ref(owner, lambda _: forget(key, None)) for owner in owners], found
    except TypeError:
        return found
    return found


def _matrix(device: Device, weight: Weight) -> Matrix | None:
    rows, columns = weight.shape
    match weight:
        case Fp4Weight(packed, scales):
            fits = packed.dtype == scales.dtype == np.uint8 and columns % FP4_BLOCK == 0
            if not fits or scales.shape != (rows, columns // FP4_BLOCK):
                return None
            items = _whole_chunks(device, packed, CHUNK // 2)
            return Matrix(Form("fp4", rows, columns), items, _whole_chunks(device, scales, CHUNK // FP4_BLOCK))
        case Fp8Weight(codes, scales):
            squares = -(-rows // FP8_WEIGHT_BLOCK), -(-columns // FP8_WEIGHT_BLOCK)
            if not codes.dtype == scales.dtype == np.uint8 or scales.shape != squares:
                return None
            return Matrix(Form("fp8", rows, columns), _whole_chunks(device, codes, CHUNK), device.compact(scales))
    if weight.ndim != 2 or weight.dtype not in (np.float32, ml_dtypes.bfloat16):
        return None
    storage = "float" if weight.dtype == np.float32 else "bfloat"
    return Matrix(Form(storage, rows, columns), _whole_chunks(device, weight, CHUNK).view(np.uint8), None)


def _whole_chunks(device: Device, rows: Any, chunk: int) -> Any:
    """The rows, with zeros behind them up to a whole number of chunks; no released model needs any."""
    height, width = rows.shape
    missing = -width % chunk
    if not missing:
        return device.compact(rows)
    padded = device.zeros((height, width + missing), rows.dtype)
    padded[:, :width] = rows
    return padded
