"""What a weight's bytes stand for, sixteen columns at a time: FP4, FP8, bfloat16 and float32 (mirrors ops.formats).

A row of any weight is gone through in chunks of 128 columns. `numbers`, `scale` and their like choose their code by a
`Storage` when a kernel is compiled, so that a kernel is written once.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic, overload

from dsv4.ops.formats import E8M0_NAN
from dsv4_accel.numba.codes import (
    NAN_BITS,
    emit_fp8,
    fp4_pairs,
    fp4_values,
    fp8_by_table,
    fp8_of_blocks_by_table,
    load_fp8,
)
from dsv4_accel.numba.compile import inlined
from dsv4_accel.numba.cpu import LOOKS_UP_BYTES, PERMUTES
from dsv4_accel.numba.memory import load, load_bfloats, load_words, loader, partial_loader, pointer_to
from dsv4_accel.numba.pairs import add_pairs
from dsv4_accel.numba.storage import PAIRS, Storage
from dsv4_accel.numba.vectors import (
    FLOATS,
    LANES,
    WORDS,
    F32x16,
    U32x16,
    call,
    constant,
    fma,
    of_one,
    splat,
    splat_word,
)

CHUNKS_TOGETHER = 4
"""Chunks whose scales are loaded at once."""

CHUNK = 128
"""Columns that a step covers: 64 bytes of FP4, and the width of an FP8 weight's scale."""


def _e8m0(builder: Any, items: Any) -> Any:
    """2^(e − 127) for 16 bytes e; 0 is a subnormal number, and 255 NaN."""
    exponents = builder.zext(items, WORDS)
    shifted, least = builder.shl(exponents, constant(WORDS, 23)), constant(WORDS, 1 << 22)
    bits = builder.select(builder.icmp_unsigned(">", shifted, least), shifted, least)
    is_nan = builder.icmp_unsigned("==", exponents, constant(WORDS, E8M0_NAN))
    return builder.bitcast(builder.select(is_nan, constant(WORDS, NAN_BITS), bits), FLOATS)


def _lengthened(builder: Any, items: Any) -> Any:
    """A few items as 16, again and again."""
    return builder.shuffle_vector(items, items, constant(WORDS, [lane % items.type.count for lane in range(LANES)]))


def _arranged(lanes: list[int]) -> Any:
    return of_one(F32x16, F32x16, lambda builder, value: builder.shuffle_vector(value, value, constant(WORDS, lanes)))


load_scales = loader(types.uint8, LANES, F32x16, _e8m0)
"""load_scales(array of uint8, index): the scales of 16 bytes."""
load_4_scales = loader(types.uint8, 4, F32x16, lambda builder, items: _e8m0(builder, _lengthened(builder, items)))
"""load_4_scales(array of uint8, index): the scales of four bytes, in lanes 0 … 3; the others are not looked at."""
load_1_scale = loader(types.uint8, 1, F32x16, lambda builder, items: _e8m0(builder, _lengthened(builder, items)))
"""load_1_scale(array of uint8, index): the scale of one byte, in each lane: a weight of 128 columns has no more."""
load_part_of_scales = partial_loader(types.uint8, LANES, F32x16, _e8m0)
"""load_part_of_scales(array of uint8, index, present): as `load_scales`, from fewer bytes."""
spread = _arranged([lane // 4 for lane in range(LANES)])
"""Lanes 0 … 3, each four times: the scales of a chunk whose lanes 4i … 4i + 3 hold columns of block i."""
repeat = _arranged([0] * LANES)
"""Lane 0 in each lane."""
rotate_4 = _arranged([(lane + 4) % LANES for lane in range(LANES)])
"""Lanes 4 … 15, then 0 … 3."""
rotate_1 = _arranged([(lane + 1) % LANES for lane in range(LANES)])
"""Lanes 1 … 15, then 0."""


FP4_ORDER = 0, 4, 1, 5, 2, 6, 3, 7
"""The column, of each eight that stand in a word, that a part of an FP4 chunk is made of. Two parts make a pair."""

FOUR = ir.VectorType(ir.IntType(32), 4)


def _four_words(builder: Any, low: Any, high: Any, part: Any) -> Any:
    """Words part, part + 8, part + 16 and part + 24 of the 32 of two vectors: a word of each of four blocks."""
    index = builder.trunc(part, ir.IntType(32))
    if PERMUTES:
        first = builder.insert_element(ir.Constant(WORDS, ir.Undefined), index, ir.IntType(32)(0))
        lanes = builder.shuffle_vector(first, first, constant(WORDS, 0))
        lanes = builder.add(lanes, constant(WORDS, [8 * (lane % 4) for lane in range(LANES)]))
        found = call(builder, "llvm.x86.avx512.vpermi2var.d.512", WORDS, low, lanes, high)
        return builder.shuffle_vector(found, found, constant(FOUR, [0, 1, 2, 3]))
    four = ir.Constant(FOUR, ir.Undefined)
    for place, (words, before) in enumerate(((low, 0), (low, 8), (high, 0), (high, 8))):
        word = builder.extract_element(words, builder.add(index, ir.IntType(32)(before)))
        four = builder.insert_element(four, word, ir.IntType(32)(place))
    return four


@intrinsic
def _fp8_of_four_blocks(context, low, high, part):
    def code(context, builder, signature, values):
        codes = builder.bitcast(_four_words(builder, *values), ir.VectorType(ir.IntType(8), LANES))
        return emit_fp8(builder, codes)

    return F32x16(U32x16, U32x16, types.intp), code


_fp8_of_blocks = fp8_of_blocks_by_table if LOOKS_UP_BYTES else _fp8_of_four_blocks


@inlined
def _mx_numbers(items, start, part):
    return _fp8_of_blocks(load_words(items, start), load_words(items, start + 4 * LANES), part)


def items_at(storage: Storage, address: int, layout: Any) -> Any:
    """The items of a weight that stand at an address, as an array."""
    raise NotImplementedError("only within kernels")


def parts(storage: Storage) -> int:
    """How many vectors of `numbers` a chunk is: eight, or four of pairs."""
    raise NotImplementedError("only within kernels")


def numbers(storage: Storage, items: Any, start: int, part: int) -> Any:
    """A part of the chunk that starts at item `start`, F32x16: columns 16·part … 16·part + 15.

    Of FP4 they are every eighth column from FP4_ORDER[part] on, whose codes stand at the same place of 16 words; of MX
    columns 4·part … 4·part + 3 of each block of 32. So a lane has the same scale in all parts.
    """
    raise NotImplementedError("only within kernels")


def add_products(storage: Storage, weights: Any, x: Any, total: Any) -> Any:
    """total + the products of a part of a chunk with those of x, F32x16."""
    raise NotImplementedError("only within kernels")


def load_some(storage: Storage, scales: Any, place: int, chunks: int) -> Any:
    """The scales of up to CHUNKS_TOGETHER chunks, F32x16: those of the first chunk in the first lanes."""
    raise NotImplementedError("only within kernels")


def scale(storage: Storage, some: Any) -> Any:
    """The scale of each lane of `numbers`, F32x16, of the first of the chunks that `some` holds scales of."""
    raise NotImplementedError("only within kernels")


def next_chunk(storage: Storage, some: Any) -> Any:
    """The scales of some chunks without the first one."""
    raise NotImplementedError("only within kernels")


def nan_bits(storage: Storage, items: Any, start: int) -> Any:
    """Words whose bits of NAN_CODES are set where the chunk that starts at item `start` has a code of NaN, U32x16.

    Only FP8 has such codes, 0x7f and 0xff. They need not be looked for where `numbers` is NaN for them; elsewhere it is
    ±480. A scale of NaN speaks for itself.
    """
    raise NotImplementedError("only within kernels")


NAN_CODES = np.uint32(0x80808080)
"""The highest bit of each byte: adding 1 to the lower seven sets it where they are 0x7f, and nowhere else."""


@inlined
def _scales_at(scales, place, count):
    if count == LANES:
        return load_scales(scales, place)
    if count == 1:
        return load_1_scale(scales, place)
    return load_4_scales(scales, place) if count == 4 else load_part_of_scales(scales, place, count)


@inlined
def _fp8_numbers_by_table(items, start, part):
    return fp8_by_table(load_words(items, start + part // 4 * 4 * LANES), part % 4)


@inlined
def _fp8_numbers_by_themselves(items, start, part):
    return load_fp8(items, start + LANES * part)


@inlined
def _nan_bits_of_bytes(items, start):
    low = load_words(items, start) & np.uint32(0x7F7F7F7F)
    high = load_words(items, start + 4 * LANES) & np.uint32(0x7F7F7F7F)
    return (low + np.uint32(0x01010101)) | (high + np.uint32(0x01010101))


@inlined
def _no_bits(items, start):
    return splat_word(np.uint32(0))


_fp8_numbers = _fp8_numbers_by_table if LOOKS_UP_BYTES else _fp8_numbers_by_themselves
_fp8_nan_bits = _no_bits if LOOKS_UP_BYTES else _nan_bits_of_bytes


@inlined
def _fp4_numbers(items, start, part):
    return fp4_values(load_words(items, start) >> np.uint32(4 * (part // 2) + 16 * (part % 2)))


_NUMBERS = {
    "FP4": lambda storage, items, start, part: _fp4_numbers(items, start, part),
    "FP4 in pairs": lambda storage, items, start, part: fp4_pairs(load_words(items, start) >> np.uint32(4 * part)),
    "FP8": lambda storage, items, start, part: _fp8_numbers(items, start, part),
    "FP8 in blocks of 32": lambda storage, items, start, part: _mx_numbers(items, start, part),
    "bfloat16": lambda storage, items, start, part: load_bfloats(items, start + LANES * part),
    "float32": lambda storage, items, start, part: load(items, start + LANES * part),
}
_LOAD_SOME = {
    "FP4": lambda storage, scales, place, chunks: _scales_at(scales, place, 4 * chunks),
    "FP4 in pairs": lambda storage, scales, place, chunks: _scales_at(scales, place, 4 * chunks),
    "FP8": lambda storage, scales, place, chunks: _scales_at(scales, place, chunks),
    "FP8 in blocks of 32": lambda storage, scales, place, chunks: _scales_at(scales, place, 4 * chunks),
    "bfloat16": lambda storage, scales, place, chunks: splat(np.float32(1)),
    "float32": lambda storage, scales, place, chunks: splat(np.float32(1)),
}
_SCALE = {
    "FP4": lambda storage, some: spread(some),
    "FP4 in pairs": lambda storage, some: spread(some),
    "FP8": lambda storage, some: repeat(some),
    "FP8 in blocks of 32": lambda storage, some: spread(some),
    "bfloat16": lambda storage, some: some,
    "float32": lambda storage, some: some,
}
_NEXT_CHUNK = {
    "FP4": lambda storage, some: rotate_4(some),
    "FP4 in pairs": lambda storage, some: rotate_4(some),
    "FP8": lambda storage, some: rotate_1(some),
    "FP8 in blocks of 32": lambda storage, some: rotate_4(some),
    "bfloat16": lambda storage, some: some,
    "float32": lambda storage, some: some,
}
_NAN_BITS = {
    "FP4": lambda storage, items, start: _no_bits(items, start),
    "FP4 in pairs": lambda storage, items, start: _no_bits(items, start),
    "FP8": lambda storage, items, start: _fp8_nan_bits(items, start),
    "FP8 in blocks of 32": lambda storage, items, start: _fp8_nan_bits(items, start),
    "bfloat16": lambda storage, items, start: _no_bits(items, start),
    "float32": lambda storage, items, start: _no_bits(items, start),
}


@overload(items_at)
def _items_at(storage, address, layout):
    number = {"bfloat16": np.uint16, "float32": np.float32}.get(storage.storage, np.uint8)
    return lambda storage, address, layout: carray(pointer_to(address), layout.rows * layout.row_items, number)


@overload(parts)
def _parts(storage):
    count = 4 if storage.storage == PAIRS.name else 8
    return lambda storage: count


@overload(add_products)
def _add_products(storage, weights, x, total):
    if storage.storage == PAIRS.name:
        return lambda storage, weights, x, total: add_pairs(weights, x, total)
    return lambda storage, weights, x, total: fma(weights, x, total)


overload(numbers)(lambda storage, items, start, part: _NUMBERS[storage.storage])
overload(load_some)(lambda storage, scales, place, chunks: _LOAD_SOME[storage.storage])
overload(scale)(lambda storage, some: _SCALE[storage.storage])
overload(next_chunk)(lambda storage, some: _NEXT_CHUNK[storage.storage])
overload(nan_bits)(lambda storage, items, start: _NAN_BITS[storage.storage])
