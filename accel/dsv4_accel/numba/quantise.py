"""Rounding to FP8 and FP4 with block scales, and back: mirrors dsv4.ops.quantise, bit for bit."""

from typing import NamedTuple

import numpy as np
from numba import prange, types

from dsv4.ops import formats
from dsv4.ops import quantise as reference
from dsv4.ops.types import Array
from dsv4_accel.numba.arrays import are_float32, compact
from dsv4_accel.numba.compile import inlined, kernel, reads, writes
from dsv4_accel.numba.memory import load, load_part, load_to_end, store, store_part, store_to_end
from dsv4_accel.numba.vectors import (
    LANES,
    choose,
    floats,
    greater,
    lane_max_word,
    larger_word,
    maximum,
    minimum,
    splat,
    splat_word,
    words,
)

SIGN, MAGNITUDE, EXPONENT = np.uint32(0x80000000), np.uint32(0x7FFFFFFF), np.uint32(0x7F800000)
"""Masks of parts of a float32. The exponent's bits alone are the power of two at or below the number."""

FRACTION_BITS = 23
"""How many of a float32's bits come after its exponent."""


class SmallFloat(NamedTuple):
    """What rounding needs to know of a format: each number is that of a float32."""

    floor: np.float32
    """The largest magnitude of a block is taken as at least this."""
    carry: np.uint32
    """Added to a float32's bits, it raises the exponent if the fraction is above that of the format's maximum."""
    max_exponent: np.uint32
    """The exponent of the format's maximum, where a float32 keeps it."""
    smallest_normal: np.float32
    """Below this, the format's steps get no smaller."""
    rounder: np.float32
    """Times a power of two, it is the number whose last place is a step of the format at that power of two."""


def _small_float(maximum: float, floor: float, smallest_normal: float, fraction_bits: int) -> SmallFloat:
    bits = np.float32(maximum).view(np.uint32)
    exponent = ((bits & EXPONENT) >> FRACTION_BITS) - 127
    return SmallFloat(
        np.float32(floor),
        ~bits & (MAGNITUDE ^ EXPONENT),
        np.uint32(exponent << FRACTION_BITS),
        np.float32(smallest_normal),
        np.float32(1.5 * 2 ** (FRACTION_BITS - fraction_bits)),
    )


FP4_MAX, FP8_MAX = np.float32(formats.FP4_MAX), np.float32(formats.FP8_MAX)
NVFP4_FLOOR = np.float32(reference.NVFP4_FLOOR)

FP8 = _small_float(formats.FP8_MAX, reference.FP8_FLOOR, 2.0**-6, 3)
FP4 = _small_float(formats.FP4_MAX, reference.FP4_FLOOR, 1.0, 1)


def fake_quant_fp8(x: Array, block: int) -> Array:
    """As dsv4.ops.quantise.fake_quant_fp8."""
    if not are_float32(x) or not x.size or not x.ndim or block < 1:
        return reference.fake_quant_fp8(x, block)
    return _rounded(x, block, 8)


def fake_quant_fp4(x: Array, block: int = reference.FP4_BLOCK) -> Array:
    """As dsv4.ops.quantise.fake_quant_fp4."""
    if not are_float32(x) or not x.size or not x.ndim or block < 1:
        return reference.fake_quant_fp4(x, block)
    return _rounded(x, block, 4)


def fake_quant_nvfp4(x: Array) -> Array:
    """As dsv4.ops.quantise.fake_quant_nvfp4."""
    if not are_float32(x) or not x.size or not x.ndim:
        return reference.fake_quant_nvfp4(x)
    rounded, width = np.empty(x.shape, np.float32), x.shape[-1]
    _round_groups(8 * x.size, compact(x).reshape(-1, width), rounded.reshape(-1, width))
    return rounded


def _rounded(x: Array, block: int, bits: int) -> Array:
    rounded = np.empty(x.shape, np.float32)
    width = x.shape[-1]
    _round_rows(4 * x.size, compact(x).reshape(-1, width), block, bits, rounded.reshape(-1, width))
    return rounded


@kernel(reads(types.float32, 2), types.intp, types.intp, writes(types.float32, 2))
def _round_rows(x, block, bits, rounded):
    """x, rounded [T, K]; bits: 8 or 4."""
    for row in prange(x.shape[0]):
        _round_blocks(x[row], block, FP8 if bits == 8 else FP4, rounded[row])


@kernel(reads(types.float32, 2), writes(types.float32, 2))
def _round_groups(x, rounded):
    """x, rounded [T, K]: groups of 16, which are a vector, as fake_quant_nvfp4 rounds them"""
    for row in prange(x.shape[0]):
        for start in range(0, x.shape[1], LANES):
            numbers = load_to_end(x[row], start)
            store_to_end(rounded[row], start, _round_group(numbers))


@inlined
def _round_group(numbers):
    """A scale of E4M3 is no power of two: numbers are divided by it, and one that was rounded down leaves some above 6.

    Magnitudes alone are compared with the largest one, so that −0.0 stays.
    """
    largest = floats(splat_word(lane_max_word(words(numbers) & MAGNITUDE)))
    wanted = maximum(splat(NVFP4_FLOOR), largest) / splat(FP4_MAX)
    scale = _round(minimum(splat(FP8_MAX), wanted), FP8)
    scaled = numbers / scale
    magnitude = minimum(splat(FP4_MAX), floats(words(scaled) & MAGNITUDE))
    codes = _round(floats(words(magnitude) | (words(numbers) & SIGN)), FP4)
    is_finite = greater(splat(np.float32(np.inf)), largest)
    return choose(is_finite, codes * scale, splat(np.float32(np.nan)))


@inlined
def round_to_fp8(row, block):
    """Round a row in place, as fake_quant_fp8 does. row [K] float32, contiguous; block ≥ 1."""
    _round_blocks(row, block, FP8, row)


@inlined
def _round_blocks(row, block, small_float, rounded):
    """row [K] -> rounded [K], which may be the same array"""
    for start in range(0, row.size, block):
        stop = min(start + block, row.size)
        scale = _block_scale(splat_word(_largest(row, start, stop)), small_float)
        inverse = splat(np.float32(1)) / scale
        whole = stop - (stop - start) % LANES
        for channel in range(start, whole, LANES):
            store(rounded, channel, _round(load(row, channel) * inverse, small_float) * scale)
        if whole < stop:
            numbers = load_part(row, whole, stop - whole)
            store_part(rounded, whole, _round(numbers * inverse, small_float) * scale, stop - whole)


@inlined
def _largest(row, start, stop):
    """The bits of the largest magnitude of a block; those of a NaN are the largest of all."""
    largest = splat_word(np.uint32(0))
    while start + LANES <= stop:
        largest = larger_word(words(load(row, start)) & MAGNITUDE, largest)
        start += LANES
    if start < stop:
        largest = larger_word(words(load_part(row, start, stop - start)) & MAGNITUDE, largest)
    return lane_max_word(largest)


@inlined
def _block_scale(largest, small_float):
    """The smallest power of two that brings the largest magnitude into the format; NaN where that is not finite."""
    raised = words(maximum(splat(small_float.floor), floats(largest)))
    scale = ((raised + small_float.carry) & EXPONENT) - small_float.max_exponent
    is_finite = greater(splat(np.float32(np.inf)), floats(largest))
    return choose(is_finite, floats(scale), splat(np.float32(np.nan)))


@inlined
def _round(numbers, small_float):
    """Numbers within the format's range to the nearest of its values, ties to the even one; −0.0 and NaN stay.

    A number much larger than x has no room for fractions of its last place: added to x and taken away again, it
    leaves x rounded to that place, which the exponent of x decides. The sign is kept aside, for the sake of −0.0.
    """
    power = maximum(floats(words(numbers) & EXPONENT), splat(small_float.smallest_normal))
    rounder = power * splat(small_float.rounder)
    magnitude = (floats(words(numbers) & MAGNITUDE) + rounder) - rounder
    return floats(words(magnitude) | (words(numbers) & SIGN))
