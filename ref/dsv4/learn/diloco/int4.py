"""Differences as four-bit integers: an eighth of the bytes of float32, and a little more for the scales.

Which rounding Decoupled DiLoCo uses is not known here, only that four bits are as good as bf16 and two are not
(2604.21428, second-hand). Ours: symmetric, to the nearest, one scale for each block of numbers.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dsv4.ops.types import Array

BLOCK = 128
"""Numbers that share a scale: the largest of a whole tensor would round most others to nothing."""

LARGEST = 7
"""Codes are the integers from −7 to 7: −8 would have no counterpart."""


FOUR = np.uint8(4)
"""Bits of a code."""

SMALLEST = np.finfo(np.float32).tiny
"""A block with a smaller scale becomes zeros: float32 has too few digits there to divide by it."""


class Packed(NamedTuple):
    """A tensor in four bits: plain data that can be sent."""

    codes: npt.NDArray[np.uint8]
    """[⌈n / 2⌉] bytes, the even number in the low four bits, each as code + 8."""
    scales: npt.NDArray[np.float32]
    """[⌈n / BLOCK⌉]: what a code of 1 stands for."""
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of codes and scales."""
        return self.codes.nbytes + self.scales.nbytes


def pack(array: Array) -> Packed:
    """code = round(x / scale), half to even, scale = the largest of the block's absolute values / 7.

    array: float32 of any shape, finite; blocks go along its numbers row by row, the last one may be short. Each number
    comes back from `unpack` at most half a scale away, from 0 in a block of numbers too small for one.
    """
    flat = np.asarray(array, np.float32).reshape(-1)
    count = flat.size
    blocks = np.zeros((-(-count // BLOCK), BLOCK), np.float32)
    blocks.reshape(-1)[:count] = flat
    scales = np.max(np.abs(blocks), axis=1, initial=0) / np.float32(LARGEST)
    scales = np.where(scales < SMALLEST, np.float32(0), scales)
    rounded = np.rint(blocks / np.where(scales == 0, np.float32(np.inf), scales)[:, None])
    codes = (rounded + 8).astype(np.uint8).reshape(-1)[: count + count % 2]
    return Packed(codes[0::2] | codes[1::2] << FOUR, scales, array.shape)


def unpack(packed: Packed) -> Array:
    """code · scale, float32 of the shape that was packed."""
    codes = np.stack([packed.codes & 15, packed.codes >> FOUR], axis=1).reshape(-1)
    count = int(np.prod(packed.shape, dtype=np.int64))
    numbers = codes[:count].astype(np.float32) - np.float32(8)
    found: Array = (numbers * np.repeat(packed.scales, BLOCK)[:count]).reshape(packed.shape)
    return found
