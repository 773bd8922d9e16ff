"""What a weight's bytes stand for, sixteen columns at a time: FP4, FP8, bfloat16 and float32 (mirrors ops.formats).

A row of any weight is gone through in chunks of 128 columns. `step` adds the products of one chunk to an accumulator
of 16 lanes: eight vectors of weights times eight of x, one fma after the other, and last the scale. It is the only
order in which any kernel adds, so that a token's result has the same bits alone and among others.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from dsv4.ops.formats import E8M0_NAN, FP4_VALUES
from dsv4.ops.formats import E8M0_VALUES as E8M0
from dsv4_accel.numba.compile import inlined
from dsv4_accel.numba.cpu import CONVERTS_HALF, PERMUTES
from dsv4_accel.numba.vectors import (
    FLOATS,
    LANES,
    WORDS,
    F32x16,
    U32x16,
    any_word,
    call,
    constant,
    load,
    load_bfloats,
    load_words,
    loader,
    of_one,
    splat,
    splat_word,
)

CHUNK = 128
"""Columns that a step covers: 64 bytes of FP4, and the width of an FP8 weight's scale."""


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


load_fp8 = loader(types.uint8, LANES, F32x16, _fp8_by_half if CONVERTS_HALF else _fp8_by_arithmetic)
"""load_fp8(array of uint8, index): the values of 16 FP8 codes; 0x7f and 0xff, which are NaN, come out as ±480."""


def _e8m0_of_four(builder: Any, items: Any) -> Any:
    """2^(e − 127) for four bytes e, each in four neighbouring lanes; 0 is a subnormal number, 255 comes out infinite."""
    few = ir.VectorType(ir.IntType(32), 4)
    shifted = builder.shl(builder.zext(items, few), constant(few, 23))
    least = constant(few, 1 << 22)
    bits = builder.select(builder.icmp_unsigned(">", shifted, least), shifted, least)
    spread = constant(WORDS, [lane // 4 for lane in range(LANES)])
    return builder.bitcast(builder.shuffle_vector(bits, bits, spread), FLOATS)


load_scales = loader(types.uint8, 4, F32x16, _e8m0_of_four)
"""load_scales(array of uint8, index): the scales of four FP4 blocks, each in the four lanes that hold its columns."""


@inlined
def fp4_numbers(codes, start, part):
    """Columns part, part + 8, part + 16, … of the chunk that starts at byte `start` of FP4 codes."""
    return fp4_values(load_words(codes, start) >> (4 * part))


@inlined
def fp8_numbers(codes, start, part):
    """Columns 16·part … 16·part + 15 of the chunk that starts at byte `start` of FP8 codes."""
    return load_fp8(codes, start + LANES * part)


@inlined
def bfloat_numbers(codes, start, part):
    """Columns 16·part … 16·part + 15 of the chunk that starts at item `start` of bfloat16 bits."""
    return load_bfloats(codes, start + LANES * part)


@inlined
def float_numbers(codes, start, part):
    """Columns 16·part … 16·part + 15 of the chunk that starts at item `start` of float32."""
    return load(codes, start + LANES * part)


@inlined
def fp8_scale(scales, index):
    """The scale of a chunk of FP8 in every lane."""
    return splat(E8M0[scales[index]])


@inlined
def no_scale(scales, index):
    """A dense weight stands for itself."""
    return splat(np.float32(1))


@inlined
def fp4_holds_nan(items, scales, layout, row):
    """Whether a row has a scale of NaN, the byte 255; no FP4 code is NaN."""
    first = row * layout.row_scales
    largest = np.uint8(0)
    for index in range(first, first + layout.row_scales):
        largest = max(largest, scales[index])
    return largest == E8M0_NAN


@inlined
def fp8_holds_nan(items, scales, layout, row):
    """Whether a row has a code of NaN, 0x7f or 0xff; a scale of NaN makes its products NaN by itself."""
    first = row * layout.row_items
    found = splat_word(np.uint32(0))
    for start in range(first, first + layout.row_items, 4 * LANES):
        magnitudes = load_words(items, start) & np.uint32(0x7F7F7F7F)
        found = found | (magnitudes + np.uint32(0x01010101))  # only 0x7f reaches the highest bit of its byte
    return any_word(found & np.uint32(0x80808080))


@inlined
def holds_no_codes(items, scales, layout, row):
    """A dense weight is computed with as it is."""
    return False
