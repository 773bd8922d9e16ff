"""Stored weights as kernels read them: bytes whose rows are whole chunks, without a copy where they are already."""

import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from dsv4.ops.map_arrays import map_arrays
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

    @property
    def arrays(self) -> list[Bytes]:
        """Its items, and its scales if it has any."""
        return [self.bytes] if self.scales is None else [self.bytes, self.scales]

    def addresses(self, device: Device) -> tuple[int, int]:
        """Where items and scales lie, 0 for no scales."""
        return device.address(self.bytes), 0 if self.scales is None else device.address(self.scales)


_placed: dict[int, tuple[weakref.ref[Any], Matrix | None]] = {}
"""Each weight that `place` gave and that is still alive, by its identity, and what was found of a packed one."""


def place(device: Device, weight: Weight) -> Weight:
    """As dsv4.ops.Ops.place. Of a packed weight it keeps the form in which kernels read it.

    Not of a dense one, since what is kept would keep it alive.
    """
    placed: Weight = map_arrays(weight, device.asarray)
    found = _matrix(device, placed) if isinstance(placed, Fp8Weight | Fp4Weight) else None
    key, forget = id(placed), _placed.pop  # at the end of a process the module's names are gone before the weights
    _placed[key] = weakref.ref(placed, lambda _: forget(key, None)), found
    return placed


def is_placed(weight: Weight) -> bool:
    """Whether `place` gave this weight, which then does not change."""
    known = _placed.get(id(weight))
    return known is not None and known[0]() is weight


def storage_of_placed(weight: Weight) -> str | None:
    """How a placed matrix is stored: as `Form.storage`; None for another weight."""
    if not is_placed(weight):
        return None
    if isinstance(weight, Fp4Weight | Fp8Weight):
        return "fp4" if isinstance(weight, Fp4Weight) else "fp8"
    return {"float32": "float", "bfloat16": "bfloat"}.get(weight.dtype.name)


def matrix_of(device: Device, weight: Weight) -> Matrix | None:
    """A weight [out, in] as kernels read it, or None for one that is left to the reference.

    One that was not placed may have changed, and is looked at each time.
    """
    kept = _placed[id(weight)][1] if is_placed(weight) else None
    return kept or _matrix(device, weight)


def but_the_weights(device: Device, arrays: Sequence[Bytes], weights: Sequence[Weight]) -> list[Bytes]:
    """The arrays, less the dense weights themselves: what is kept for as long as those live would keep them alive."""
    own = {device.address(weight) for weight in weights if not isinstance(weight, Fp4Weight | Fp8Weight)}
    return [array for array in arrays if device.address(array) not in own]


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
