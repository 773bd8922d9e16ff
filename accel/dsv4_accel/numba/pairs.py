"""Two products a lane at once: FP4 weights times inputs that were rounded to FP8, as pairs of bfloat16.

Both kinds of numbers have few enough bits for bfloat16. An FP4 value is a multiple of 1/2 and at most 6; a rounded
input is a multiple of 2^−9 times its block's power of two, and at most 448 times that. So the sum of four products is
less than 2^14 and a multiple of 2^−10, times that power: 24 bits, which float32 holds, whatever the order of adding.
The columns of a lane lie in one block of x, and are summed in halves of four products. Each half is exact, so that
results have the same bits as those of float32 products. Only a magnitude near the end of float32 needs care: there a
sum may become infinite or not, depending on the order.

A pair stands in the 32 bits of a lane, and travels as if they were a float32.
"""

from typing import Any

import numpy as np
from llvmlite import ir

from dsv4.ops.formats import FP4_VALUES
from dsv4_accel.numba.compile import inlined
from dsv4_accel.numba.cpu import MULTIPLIES_BFLOATS
from dsv4_accel.numba.memory import load, store
from dsv4_accel.numba.quantise import MAGNITUDE
from dsv4_accel.numba.vectors import (
    FLOATS,
    LANES,
    WORDS,
    F32x16,
    U32x16,
    call,
    constant,
    floats,
    lane_max_word,
    larger_word,
    of_one,
    of_three,
    splat_word,
    words,
)

LARGEST = np.uint32(np.float32(2.0**100).view(np.uint32))
"""The bits of the largest magnitude of an x that goes in pairs: no sum of a chunk comes near the end of float32."""

UPPER = np.uint32(0xFFFF0000)
"""The bits of a float32 that are its bfloat16, and in a pair those of its second number."""


@inlined
def pair(first, second):
    """Numbers that bfloat16 holds, two a lane. F32x16, F32x16 -> F32x16"""
    return floats((words(first) >> 16) | (words(second) & UPPER))


def _fp4_by_table(builder: Any, words: Any) -> Any:
    halves = ir.VectorType(ir.IntType(16), 2 * LANES)
    bits = [int(np.float32(value).view(np.uint32)) >> 16 for value in FP4_VALUES]
    table = constant(halves, 2 * bits)  # of an index five bits count, but a code has four
    found = call(builder, "llvm.x86.avx512.permvar.hi.512", halves, table, builder.bitcast(words, halves))
    return builder.bitcast(found, FLOATS)


fp4_pairs_by_table = of_one(U32x16, F32x16, _fp4_by_table)
"""The FP4 values of the lowest four bits of each half of a lane, as a pair."""


def _add_in_one(builder: Any, a: Any, b: Any, total: Any) -> Any:
    a, b = builder.bitcast(a, WORDS), builder.bitcast(b, WORDS)
    return call(builder, "llvm.x86.avx512bf16.dpbf16ps.512", FLOATS, total, a, b)


def _add_one_by_one(builder: Any, a: Any, b: Any, total: Any) -> Any:
    for split in (_first, _second):
        total = call(builder, "llvm.fma.v16f32", FLOATS, split(builder, a), split(builder, b), total)
    return total


def _first(builder: Any, pairs: Any) -> Any:
    return builder.bitcast(builder.shl(builder.bitcast(pairs, WORDS), constant(WORDS, 16)), FLOATS)


def _second(builder: Any, pairs: Any) -> Any:
    return builder.bitcast(builder.and_(builder.bitcast(pairs, WORDS), constant(WORDS, int(UPPER))), FLOATS)


add_pairs = of_three(F32x16, _add_in_one if MULTIPLIES_BFLOATS else _add_one_by_one)
"""add_pairs(a, b, total): total + the two products of each lane. How it rounds depends on the processor: not to be used
but where the sum is exact."""


@inlined
def pack_row(row, pairs):
    """A rounded row, in FP4's order of columns, as pairs; returns the bits of its largest magnitude.

    row [chunks·128], pairs [chunks·64].
    """
    largest = splat_word(np.uint32(0))
    for place in range(0, row.size, 2 * LANES):
        first, second = load(row, place), load(row, place + LANES)
        largest = larger_word(words(first) & MAGNITUDE, larger_word(words(second) & MAGNITUDE, largest))
        store(pairs, place // 2, pair(first, second))
    return lane_max_word(largest)
