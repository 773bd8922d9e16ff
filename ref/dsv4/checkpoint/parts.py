"""Weights of which some rows at a time are made when they are written, so that a large table needs little memory."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from dsv4.ops.quantise import Fp4Weight, Fp8Weight, Weight

NUMBERS_AT_ONCE = 2**22
"""About so many numbers of a table are held at once."""


@dataclass(frozen=True)
class InParts:
    """A weight [N, d] whose rows do not depend on each other: dense, or in FP8 with scales for parts of single rows."""

    shape: tuple[int, ...]
    rows: Callable[[slice], Weight]
    """Makes some rows, as a weight of its own."""


@dataclass(frozen=True)
class Rows:
    """An array [N, ...] that stores such a weight, or its scales."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    some: Callable[[slice], npt.NDArray[Any]]

    @property
    def nbytes(self) -> int:
        """The bytes of the whole array."""
        return prod(self.shape) * self.dtype.itemsize

    def parts(self) -> Iterator[npt.NDArray[Any]]:
        """All rows, a few at a time."""
        count = max(1, NUMBERS_AT_ONCE // prod(self.shape[1:]))
        for start in range(0, self.shape[0], count):
            yield self.some(slice(start, start + count))


def rows_of(weight: Weight, rows: slice) -> Weight:
    """Some rows of a dense weight, or of one in FP8 that has scales for parts of single rows."""
    match weight:
        case Fp8Weight(codes, scales, (1, _) as block):
            return Fp8Weight(codes[rows], scales[rows], block)
        case Fp8Weight() | Fp4Weight():
            raise ValueError(f"rows: expected a dense weight or scales of single rows, found {type(weight).__name__}")
    return weight[rows]
