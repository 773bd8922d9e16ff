"""What all cases of a run share: the backend, the roof, the peers, random data, and how large all of it may be."""

import itertools
import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dsv4.ops import Fp4Weight, Fp8Weight, Ops
from dsv4.ops.map_arrays import map_arrays
from dsv4.ops.packed_rows import PackedRows
from dsv4.ops.quantise import FP4_BLOCK, FP8_WEIGHT_BLOCK, Weight
from dsv4.ops.types import Array, Bytes
from dsv4_accel.bench.layer import LargeLayer
from dsv4_accel.bench.peers import Peers
from dsv4_accel.bench.roof import DeviceRoof, Roof
from dsv4_accel.bench.timing import Pace

OURS = "ours"
"""The name of the chosen backend's contestant, where that is not NumPy's."""

NUMPY = "NumPy"
"""The name of the reference's contestant."""


@dataclass
class Stage:
    """Where contests take place.

    ops: the backend that the rows are about; threads: how many it may use; rotation_bytes: the size that arrays used
    in turn have together at least; layer: where the checkpoint of one large layer comes from; resources: what is to be
    undone after a row.
    """

    ops: Ops
    pace: Pace
    roof: Roof | DeviceRoof
    threads: int
    rotation_bytes: int
    peers: Peers
    layer: LargeLayer
    resources: ExitStack = field(default_factory=ExitStack)
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    @property
    def all_ops(self) -> dict[str, Ops]:
        """The backend that the rows are about and, where that is another, NumPy's, by their contestants' names."""
        return {NUMPY: self.ops} if type(self.ops) is Ops else {OURS: self.ops, NUMPY: Ops()}

    def finish(self) -> None:
        """Wait until everything that was asked of the backend is done: a number that it gives back comes last."""
        self.ops.to_numpy(self.ops.zeros((1,)))

    def copies(self, nbytes: int) -> int:
        """How many weights, or arguments, of so many bytes take turns, so that no cache holds them."""
        return max(2, math.ceil(self.rotation_bytes / nbytes))

    def floats(self, *shape: int) -> Array:
        """Normally distributed numbers in float32."""
        return self.random.standard_normal(shape, np.float32)

    def fp4_weights(self, rows: int, columns: int, count: int = 0) -> list[Weight]:
        """FP4 matrices [rows, columns] of random bytes: so many, or as many as take turns."""
        count = count or self.copies(rows * columns // 2 + rows * columns // FP4_BLOCK)
        packed = self._bytes(count, rows, columns // 2)
        scales = self.random.integers(118, 122, (count, rows, columns // FP4_BLOCK), np.uint8)
        return [Fp4Weight(*parts) for parts in zip(packed, scales, strict=True)]

    def fp8_weights(self, rows: int, columns: int, count: int = 0) -> list[Weight]:
        """FP8 matrices [rows, columns] of random bytes that are numbers: so many, or as many as take turns."""
        count = count or self.copies(rows * columns)
        codes = self._bytes(count, rows, columns)
        codes &= 0xBF  # without the exponent's highest bit: no NaN, and no number above 2
        shape = count, math.ceil(rows / FP8_WEIGHT_BLOCK), math.ceil(columns / FP8_WEIGHT_BLOCK)
        scales = self.random.integers(118, 122, shape, np.uint8)
        return [Fp8Weight(*parts) for parts in zip(codes, scales, strict=True)]

    def _bytes(self, *shape: int) -> Bytes:
        words = self.random.integers(0, 2**64, math.prod(shape) // 8, np.uint64)
        return words.view(np.uint8).reshape(shape)


def lives_elsewhere(ops: Ops) -> bool:
    """Whether the arrays of a backend are not NumPy's."""
    return not isinstance(ops.zeros((0,)), np.ndarray)


def in_turn(function: Callable[..., object], arguments: Sequence[tuple[Any, ...]]) -> Callable[[], object]:
    """A call without arguments that gives the function the next of these each time, and begins anew at the end."""
    endless = itertools.cycle(arguments)
    return lambda: function(*next(endless))


def place(ops: Ops, value: Any) -> Any:
    """An array, a weight, packed rows, or a list or named tuple of them, where the backend computes."""
    match value:
        case np.ndarray():
            return ops.asarray(value)
        case Fp8Weight() | Fp4Weight():
            return ops.place(value)
        case PackedRows():
            return map_arrays(value, ops.asarray)
        case tuple() if hasattr(value, "_fields"):
            return type(value)(*(place(ops, part) for part in value))
        case list():
            return [place(ops, part) for part in value]
    return value


def nbytes(*values: Any) -> int:
    """The bytes of arrays, weights, packed rows, and lists and tuples of them; other values have none."""
    total = 0
    for value in values:
        match value:
            case np.ndarray():
                total += value.nbytes
            case Fp8Weight() | Fp4Weight():
                total += nbytes(*vars(value).values())
            case PackedRows(stored, _):
                total += stored.nbytes
            case tuple() | list():
                total += nbytes(*value)
    return total
