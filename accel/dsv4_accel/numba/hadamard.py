"""The Walsh–Hadamard rotation by butterflies: mirrors dsv4.ops.hadamard.

The matrix of order 2D is [[H, H], [H, −H]], so a product with it takes log2(D) rounds of sums and differences of
channels whose numbers differ in one bit: first those that lie in one vector, then those that lie in two.
"""

import numpy as np
from numba import prange, types

from dsv4.ops import hadamard as reference
from dsv4.ops.types import Array
from dsv4_accel.numba.arrays import are_float32, compact
from dsv4_accel.numba.compile import inlined, kernel, reads, writes
from dsv4_accel.numba.memory import load, load_part, store, store_part
from dsv4_accel.numba.vectors import LANES, exchange_1, exchange_2, exchange_4, exchange_8, fma, splat

ROWS_TOGETHER = 16
"""How many rows a thread takes at a time."""

SIGNS = np.array([[-1 if lane & bit else 1 for lane in range(LANES)] for bit in (1, 2, 4, 8)], np.float32)
"""Which lanes of a butterfly are differences. [4, 16]"""


def hadamard(x: Array) -> Array:
    """As dsv4.ops.hadamard.hadamard."""
    if not are_float32(x) or not x.size or not x.ndim or x.shape[-1] & (x.shape[-1] - 1):
        return reference.hadamard(x)
    rotated = np.empty(x.shape, np.float32)
    width = x.shape[-1]
    _rotate_rows(8 * x.size, compact(x).reshape(-1, width), SIGNS, rotated.reshape(-1, width))
    return rotated


@kernel(reads(types.float32, 2), reads(types.float32, 2), writes(types.float32, 2))
def _rotate_rows(x, signs, rotated):
    """x, rotated [T, D], D a power of two; signs: SIGNS"""
    scale = np.float32(np.float64(x.shape[1]) ** -0.5)
    for group in prange((x.shape[0] + ROWS_TOGETHER - 1) // ROWS_TOGETHER):
        for row in range(group * ROWS_TOGETHER, min((group + 1) * ROWS_TOGETHER, x.shape[0])):
            if x.shape[1] < LANES:
                numbers = _within(load_part(x[row], 0, x.shape[1]), signs)
                store_part(rotated[row], 0, numbers * splat(scale), x.shape[1])
            else:
                for start in range(0, x.shape[1], LANES):
                    store(rotated[row], start, _within(load(x[row], start), signs) * splat(scale))
                _between(rotated[row])


@inlined
def _within(numbers, signs):
    """The rounds within one vector."""
    numbers = fma(numbers, load(signs[0], 0), exchange_1(numbers))
    numbers = fma(numbers, load(signs[1], 0), exchange_2(numbers))
    numbers = fma(numbers, load(signs[2], 0), exchange_4(numbers))
    return fma(numbers, load(signs[3], 0), exchange_8(numbers))


@inlined
def _between(row):
    """The rounds between vectors, in place. row [D]"""
    distance = LANES
    while distance < row.size:
        for block in range(0, row.size, 2 * distance):
            for start in range(block, block + distance, LANES):
                a, b = load(row, start), load(row, start + distance)
                store(row, start, a + b)
                store(row, start + distance, a - b)
        distance *= 2
