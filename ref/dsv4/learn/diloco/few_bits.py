"""Differences as integers of four bits, an eighth of the bytes of float32 and a little more for the scales; or of two.

Which rounding Decoupled DiLoCo uses is not known here, only that four bits are as good as bf16 and two are not
(2604.21428, second-hand). Ours: symmetric, to the nearest, one scale for each block of numbers.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dsv4.ops.types import Array

BLOCK = 128
"""Numbers that share a scale: the largest of a whole tensor would round most others to nothing."""

SMALLEST = np.finfo(np.float32).tiny
"""A block with a smaller scale becomes zeros: float32 has too few digits there to divide by it."""


class Packed(NamedTuple):
    """A tensor in a few bits: plain data that can be sent."""

    codes: npt.NDArray[np.uint8]
    """[⌈n · bits / 8⌉] bytes, the first number in the lowest bits, each as code + 2^(bits − 1)."""
    scales: npt.NDArray[np.float32]
    """[⌈n / BLOCK⌉]: what a code of 1 stands for."""
    shape: tuple[int, ...]
    bits: int = 4

    @property
    def nbytes(self) -> int:
        """Bytes of codes and scales."""
        return self.codes.nbytes + self.scales.nbytes


def pack(array: Array, bits: int = 4) -> Packed:
    """code = round(x / scale), half to even, scale = the largest of the block's absolute values / (2^(bits − 1) − 1).

    array: float32 of any shape, finite; bits: 2 or 4, for codes from −1 to 1 or from −7 to 7: −8 would have no
    counterpart. Blocks go along the numbers row by row, the last one may be short. Each number comes back from `unpack`
    at most half a scale away, from 0 in a block of numbers too small for one.
    """
    flat = np.asarray(array, np.float32).reshape(-1)
    count, half = flat.size, 2 ** (bits - 1)
    blocks = np.zeros((-(-count // BLOCK), BLOCK), np.float32)
    blocks.reshape(-1)[:count] = flat
    scales = np.max(np.abs(blocks), axis=1, initial=0) / np.float32(half - 1)
    scales = np.where(scales < SMALLEST, np.float32(0), scales)
    rounded = np.rint(blocks / np.where(scales == 0, np.float32(np.inf), scales)[:, None])
    shifts = _shifts(bits)
    codes = (rounded + half).astype(np.uint8).reshape(-1, len(shifts))[: -(-count // len(shifts))]
    return Packed(np.bitwise_or.reduce(codes << shifts, axis=1), scales, array.shape, bits)


def unpack(packed: Packed) -> Array:
    """code · scale, float32 of the shape that was packed."""
    half = 2 ** (packed.bits - 1)
    codes = (packed.codes[:, None] >> _shifts(packed.bits) & np.uint8(2 * half - 1)).reshape(-1)
    count = int(np.prod(packed.shape, dtype=np.int64))
    numbers = codes[:count].astype(np.float32) - np.float32(half)
    found: Array = (numbers * np.repeat(packed.scales, BLOCK)[:count]).reshape(packed.shape)
    return found


def _shifts(bits: int) -> npt.NDArray[np.uint8]:
    """Where in a byte each of its codes begins."""
    return np.arange(0, 8, bits, dtype=np.uint8)
