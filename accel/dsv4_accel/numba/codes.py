"""What the codes of FP4 and FP8 stand for, sixteen or more at a time: by tables in registers where there are any.

A code's value is the same in every way to it (mirrors ops.formats).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from dsv4.ops.formats import FP4_VALUES, FP8_NAN, FP8_VALUES
from dsv4_accel.numba.compile import inlined
from dsv4_accel.numba.cpu import CONVERTS_HALF, MULTIPLIES_BFLOATS, PERMUTES
from dsv4_accel.numba.memory import loader
from dsv4_accel.numba.pairs import fp4_pairs_by_table, pair
from dsv4_accel.numba.vectors import FLOATS, LANES, WORDS, F32x16, U32x16, call, constant, of_one

NAN_BITS = 0x7FC00000
"""A float32 that is no number."""


def _fp4_by_table(builder: Any, words: Any) -> Any:
    table = constant(FLOATS, [float(value) for value in FP4_VALUES])
    return call(builder, "llvm.x86.avx512.permvar.sf.512", FLOATS, table, words)


def _small_floats(builder: Any, magnitudes: Any, signs: Any, bias: int, least: float) -> Any:
    """Floats from exponent and mantissa bits that stand in their float32 place, but with an exponent short by bias.

    With the exponent raised, each normal number is itself; one with exponent zero has a leading 1 too many and is
    half the size: 2a − 2·2^least undoes both, and is not below a for normal numbers, so the minimum serves both.
    """
    raised = builder.bitcast(builder.add(magnitudes, constant(WORDS, bias << 23)), FLOATS)
    twice = call(builder, "llvm.fma.v16f32", FLOATS, raised, constant(FLOATS, 2.0), constant(FLOATS, -least))
    size = builder.select(builder.fcmp_ordered("<", twice, raised), twice, raised)
    return builder.bitcast(builder.xor(builder.bitcast(size, WORDS), signs), FLOATS)


def _fp4_by_arithmetic(builder: Any, words: Any) -> Any:
    magnitudes = builder.and_(builder.shl(words, constant(WORDS, 22)), constant(WORDS, 7 << 22))
    signs = builder.and_(builder.shl(words, constant(WORDS, 28)), constant(WORDS, 1 << 31))
    return _small_floats(builder, magnitudes, signs, bias=126, least=1.0)


fp4_values = of_one(U32x16, F32x16, _fp4_by_table if PERMUTES else _fp4_by_arithmetic)
"""The FP4 values of the lowest four bits of each lane; what stands above them does not matter."""


@inlined
def _fp4_pairs_one_by_one(words):
    return pair(fp4_values(words), fp4_values(words >> 16))


fp4_pairs = fp4_pairs_by_table if MULTIPLIES_BFLOATS else _fp4_pairs_one_by_one
"""The FP4 values of the lowest four bits of each half of a lane, as a pair of bfloat16."""


def _fp8_by_half(builder: Any, items: Any) -> Any:
    """A byte's exponent and mantissa are those of a float16 that is 2^8 too small."""
    halves = ir.VectorType(ir.IntType(16), LANES)
    shifted = builder.shl(builder.sext(items, halves), constant(halves, 7))
    bits = builder.and_(shifted, constant(halves, 0xBFFF))
    floats = builder.fpext(builder.bitcast(bits, ir.VectorType(ir.HalfType(), LANES)), FLOATS)
    return builder.fmul(floats, constant(FLOATS, 256.0))


def _fp8_by_arithmetic(builder: Any, items: Any) -> Any:
    words = builder.zext(items, WORDS)
    magnitudes = builder.and_(builder.shl(words, constant(WORDS, 20)), constant(WORDS, 127 << 20))
    signs = builder.and_(builder.shl(words, constant(WORDS, 24)), constant(WORDS, 1 << 31))
    return _small_floats(builder, magnitudes, signs, bias=120, least=2.0**-6)


emit_fp8 = _fp8_by_half if CONVERTS_HALF else _fp8_by_arithmetic
"""The code for the values of 16 bytes, ±480 for those that are NaN."""


def _fp8_or_nan(builder: Any, items: Any) -> Any:
    """A scale of NaN speaks for itself, but a code must be looked at."""
    magnitudes = builder.and_(items, constant(items.type, FP8_NAN))
    nan = builder.bitcast(constant(WORDS, NAN_BITS), FLOATS)
    return builder.select(
        builder.icmp_unsigned("==", magnitudes, constant(items.type, FP8_NAN)), nan, emit_fp8(builder, items)
    )


load_fp8 = loader(types.uint8, LANES, F32x16, emit_fp8)
"""load_fp8(array of uint8, index): the values of 16 FP8 codes, ±480 for 0x7f and 0xff, which are NaN."""
load_fp8_or_nan = loader(types.uint8, LANES, F32x16, _fp8_or_nan)
"""As `load_fp8`, with NaN for what is NaN."""


BYTES = ir.VectorType(ir.IntType(8), 4 * LANES)
PLACES = ir.VectorType(ir.IntType(32), 4 * LANES)

UPPER_HALVES = np.array(FP8_VALUES[:128], np.float32).view(np.uint32) >> 16
"""Those of the values of all codes without their signs, NaN among them; the lower halves are zeros."""


def _looked_up(builder: Any, codes: Any, table: Sequence[int]) -> Any:
    """table[code without its sign] of 64 codes. table [128] bytes"""
    tables = constant(BYTES, table[:64]), constant(BYTES, table[64:])
    return call(builder, "llvm.x86.avx512.vpermi2var.qi.512", BYTES, tables[0], codes, tables[1])


def _side_by_side(builder: Any, low: Any, high: Any, half: int) -> Any:
    """Bytes of two vectors in turn, the first or the second eight of each 16: in each word the halves of two values."""
    places = [16 * lane + 8 * half + place + of for lane in range(4) for place in range(8) for of in (0, BYTES.count)]
    return builder.bitcast(builder.shuffle_vector(low, high, constant(PLACES, places)), WORDS)


def _one_of_four(builder: Any, first: Any, second: Any, part: Any, columns: Callable[[int, int], int]) -> Any:
    """One of four parts of 64 codes that stand somewhere in two vectors: 16 values. All four are looked up together.

    part: 0 … 3; columns(part, four): where the codes of lanes 4·four … 4·four + 3 of a part begin, 0 … 127
    """
    places = [
        columns(2 * half + place % 2, four) + place // 2 for four in range(4) for half in range(2) for place in range(8)
    ]
    codes = builder.shuffle_vector(first, second, constant(PLACES, places))
    low = _looked_up(builder, codes, [int(half) & 255 for half in UPPER_HALVES])
    high = _looked_up(builder, codes, [int(half) >> 8 for half in UPPER_HALVES])
    high = builder.or_(high, builder.and_(codes, constant(BYTES, 1 << 7)))
    of_two_parts = [_side_by_side(builder, low, high, half) for half in range(2)]
    halves = builder.select(builder.icmp_unsigned("<", part, part.type(2)), *of_two_parts)
    even, odd = builder.shl(halves, constant(WORDS, 16)), builder.and_(halves, constant(WORDS, 0xFFFF0000))
    is_even = builder.icmp_unsigned("==", builder.and_(part, part.type(1)), part.type(0))
    return builder.bitcast(builder.select(is_even, even, odd), FLOATS)


def _of_64(part: int, four: int) -> int:
    return 16 * part + 4 * four


def _of_blocks(group: int, part: int, four: int) -> int:
    """Four lanes are of one block, whose columns are two groups of four parts."""
    return 32 * four + 16 * group + 4 * part


@intrinsic
def fp8_by_table(context, words, part):
    """The values of codes 16·part … 16·part + 15 of 64, NaN for what is NaN."""

    def code(context, builder, signature, values):
        codes = builder.bitcast(values[0], BYTES)
        return _one_of_four(builder, codes, codes, values[1], _of_64)

    return F32x16(U32x16, types.intp), code


@intrinsic
def fp8_of_blocks_by_table(context, low, high, part):
    """The values of codes 4·part … 4·part + 3 of each of the four blocks of 128 codes, NaN for what is NaN."""

    def code(context, builder, signature, values):
        low, high = (builder.bitcast(codes, BYTES) for codes in values[:2])
        part, four = values[2], values[2].type(4)
        of_groups = [
            _one_of_four(builder, low, high, builder.urem(part, four), partial(_of_blocks, group)) for group in range(2)
        ]
        return builder.select(builder.icmp_unsigned("<", part, four), *of_groups)

    return F32x16(U32x16, U32x16, types.intp), code
