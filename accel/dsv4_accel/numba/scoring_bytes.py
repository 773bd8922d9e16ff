"""Scores of packed keys for one query of the indexer: in whole numbers, where these give the same bits as floats.

A number of FP4 is a whole number of at most 12 times half the scale of its block. So where a query's heads were rounded
to FP4, each is a row of small whole numbers times a unit of its own, a power of two; and a key is one, too, if the
scales of its blocks differ little. Then all partial sums of a product are whole numbers below 2^24 times a power of
two, which float32 holds: whatever is added in whichever order has the same bits. Four products a lane go at once, the
key's bytes as unsigned numbers, which are BIAS too large, and the query's as signed ones. What does not fit is read
into floats and scored as float keys are.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from dsv4.ops.formats import FP4_VALUES
from dsv4.ops.quantise import FP4_BLOCK
from dsv4_accel.numba.compile import inlined
from dsv4_accel.numba.cpu import MULTIPLIES_BYTES
from dsv4_accel.numba.memory import load, load_uint32, load_words, loader, prefetch, store
from dsv4_accel.numba.packed_rows import read_fp4
from dsv4_accel.numba.products import aligned_floats
from dsv4_accel.numba.scoring import ALL_BITS, EXTRA_ROWS, TILE, score_six, weigh, weigh_four
from dsv4_accel.numba.vectors import (
    FLOATS,
    LANES,
    WORDS,
    F32x16,
    U32x16,
    any_word,
    call,
    constant,
    floats,
    greater,
    lane_sum,
    maximum,
    of_one,
    of_three,
    of_two,
    splat,
    splat_word,
    words,
)

AT_ONCE = 2 * FP4_BLOCK
"""Channels of a key that are read at once."""

MOST_CHANNELS = 1024
"""So many products of at most 127 · 96 have a sum below 2^24."""

STEPS = 3
"""How many powers of two the scales of a key's blocks may lie apart: 12 · 2^3 and BIAS fit into a byte."""

BIAS = 96

LEAST, MOST = np.float32(2.0**-40), np.float32(2.0**40)
"""Between these lie scales, and the largest number of each head, so that no product leaves the normal floats."""

LEAST_SCALE, MOST_SCALE = 127 - 40, 127 + 40
"""The bytes of such scales."""

EXPONENT, MAGNITUDE = np.uint32(0x7F800000), np.uint32(0x7FFFFFFF)
"""The bits of a float32's exponent, and all but its sign."""

SIX_POWERS = np.uint32(6 << 23)
"""What makes an exponent smaller by six: a head's largest number is then at least 64 and less than 128 units."""

MAGIC = np.float32(1.5 * 2**23)
"""A small number beside it keeps no fraction, and stands as a whole number in its lowest bits."""


def _tables() -> np.ndarray[Any, Any]:
    """[16 · 64] uint8: by the steps that two blocks' scales are above the smallest one, the bytes of their 16 codes."""
    doubled = (2 * FP4_VALUES).astype(np.int64)
    of_step = [(doubled * 2**step + BIAS).astype(np.uint8) for step in range(STEPS + 1)]
    return np.concatenate([np.tile(of_step[step], 2) for pair in np.ndindex(4, 4) for step in pair])


TABLES = _tables()


def _nibbles(builder: Any, items: Any) -> Any:
    """32 bytes, two in each lane, become 64: a byte for each half of one."""
    halves = builder.bitcast(items, ir.VectorType(ir.IntType(16), LANES))
    bits = builder.zext(halves, WORDS)
    for shift, mask in ((8, 0x00FF00FF), (4, 0x0F0F0F0F)):
        bits = builder.and_(builder.or_(bits, builder.shl(bits, constant(WORDS, shift))), constant(WORDS, mask))
    return bits


def _look_up(builder: Any, table: Any, places: Any) -> Any:
    bytes_ = ir.VectorType(ir.IntType(8), 4 * LANES)
    table, places = builder.bitcast(table, bytes_), builder.bitcast(places, bytes_)
    return builder.bitcast(call(builder, "llvm.x86.avx512.pshuf.b.512", bytes_, table, places), WORDS)


def _add_bytes(builder: Any, total: Any, unsigned: Any, signed: Any) -> Any:
    return call(builder, "llvm.x86.avx512.vpdpbusd.512", WORDS, total, unsigned, signed)


_load_nibbles = loader(types.uint8, 2 * LANES, U32x16, _nibbles)
"""_load_nibbles(array of uint8, index): 64 codes of FP4, four a lane."""
_looked_up = of_two(U32x16, U32x16, U32x16, _look_up)
"""For each byte of the second, below 16, that byte of the table in its quarter of the first."""
_add_products = of_three(U32x16, _add_bytes)
"""total + the four products of unsigned and signed bytes in each lane."""
_as_floats = of_one(U32x16, F32x16, lambda builder, whole: builder.sitofp(whole, FLOATS))
"""Signed whole numbers as floats."""


@inlined
def _small_query(rows, channels):
    """A spread query in bytes, a word of four channels in each lane, and whether they are exact.

    Returns [(D/4 + 2)·lanes] uint32: behind the words of the channels, what a sum begins with so that the key's BIAS
    is nothing, and the bits of the heads' units.
    """
    lanes = rows.size // (channels + EXTRA_ROWS)
    small = aligned_floats((channels // 4 + 2) * lanes).view(np.uint32)
    zero, magic, inexact = splat(np.float32(0)), splat(MAGIC), splat_word(np.uint32(0))
    for head in range(0, lanes, LANES):
        largest = splat(LEAST)
        for channel in range(channels):
            largest = maximum(largest, floats(words(load(rows, channel * lanes + head)) & MAGNITUDE))
        unit = floats((words(largest) & EXPONENT) - SIX_POWERS)
        inverse, total = splat(np.float32(1)) / unit, splat_word(np.uint32(0))
        inexact = inexact | greater(largest, splat(MOST))
        for channel in range(0, channels, 4):
            four = splat_word(np.uint32(0))
            for i in range(4):
                number = load(rows, (channel + i) * lanes + head) * inverse + zero  # no −0
                moved = number + magic
                is_within = greater(splat(np.float32(128)), floats(words(number) & MAGNITUDE))  # and so no NaN
                inexact = inexact | (words(moved - magic) ^ words(number)) | (is_within ^ ALL_BITS)
                whole = words(moved) - words(magic)
                total = total + whole
                four = four | ((whole & np.uint32(255)) << np.uint32(8 * i))
            store(small, channel // 4 * lanes + head, four)
        store(small, channels // 4 * lanes + head, splat_word(np.uint32(0)) - (total << 6) - (total << 5))
        store(small, (channels // 4 + 1) * lanes + head, words(unit))
    return small, not any_word(inexact)


@inlined
def _lowest_scale(stored, row, channels):
    """The byte of the smallest scale of a key, or 0 where its scales do not fit."""
    low = high = np.int64(stored[row, channels // 2])
    for place in range(channels // 2 + 1, stored.shape[1]):
        low, high = min(low, np.int64(stored[row, place])), max(high, np.int64(stored[row, place]))
    return low if low >= LEAST_SCALE and high <= MOST_SCALE and high - low <= STEPS else np.int64(0)


@inlined
def _read_small(stored, row, channels, lowest, room, place):
    """A key [D] as bytes, D/4 words from a place of the room on."""
    for channel in range(0, channels, AT_ONCE):
        scale = channels // 2 + channel // FP4_BLOCK
        first, second = np.int64(stored[row, scale]) - lowest, np.int64(stored[row, scale + 1]) - lowest
        codes = _load_nibbles(stored, row * stored.shape[1] + channel // 2)
        table = load_words(TABLES, (first * (STEPS + 1) + second) * 4 * LANES)
        store(room, place + channel // 4, _looked_up(table, codes))


@inlined
def _score_in_bytes(rows, stored, channels, block, scales, first, behind, scores):
    """As `score_keys`, of keys stored [T, width] in FP4. scales [256]: what the byte of a scale stands for."""
    may_be_small = block == FP4_BLOCK and channels % AT_ONCE == 0 and channels <= MOST_CHANNELS
    small, is_small = np.empty(0, np.uint32), False
    if may_be_small:
        small, is_small = _small_query(rows, channels)
    room, halves = aligned_floats(TILE * channels).reshape((TILE, channels)), np.zeros(TILE, np.float32)
    small_room = aligned_floats(TILE * channels // 4 + LANES).view(np.uint32)
    for key in range(first, behind, TILE):
        _ask_for_tile(stored, key + TILE)
        present, fit = min(TILE, behind - key), is_small
        for i in range(present if is_small else 0):
            lowest = _lowest_scale(stored, key + i, channels)
            fit = fit and lowest > 0
            if fit:
                halves[i] = scales[lowest] * np.float32(0.5)
                _read_small(stored, key + i, channels, lowest, small_room, i * (channels // 4))
        if fit:
            six = _score_six_small(rows, small, channels, small_room, present - 1, halves)
        else:
            six = _read_and_score(rows, stored, key, present, block, scales, room)
        for i in range(present):
            scores[key + i] = six[i]


@inlined
def _score_in_floats(rows, stored, channels, block, scales, first, behind, scores):
    """As `_score_in_bytes`, without."""
    room = aligned_floats(TILE * channels).reshape((TILE, channels))
    for key in range(first, behind, TILE):
        _ask_for_tile(stored, key + TILE)
        present = min(TILE, behind - key)
        six = _read_and_score(rows, stored, key, present, block, scales, room)
        for i in range(present):
            scores[key + i] = six[i]


score_packed = _score_in_bytes if MULTIPLIES_BYTES else _score_in_floats


@inlined
def _ask_for_tile(stored, key):
    for place in range(key * stored.shape[1], (key + TILE) * stored.shape[1], 4 * LANES):
        prefetch(stored, place)


@inlined
def _read_and_score(rows, stored, key, present, block, scales, room):
    """The scores of a tile of keys that are read into floats. room [TILE, D]"""
    for i in range(present):
        read_fp4(stored, key + i, block, scales, room, i)
    return score_six(rows, room, 0, present - 1)


@inlined
def _score_six_small(rows, small, channels, keys, last, halves):
    """The scores of six keys in bytes; behind the last one it is taken again. halves [6]: half of each key's scale"""
    steps = channels // 4
    lanes = small.size // (steps + 2)
    k1, k2, k3 = min(1, last) * steps, min(2, last) * steps, min(3, last) * steps
    k4, k5 = min(4, last) * steps, min(5, last) * steps
    t0 = t1 = t2 = t3 = t4 = t5 = splat(np.float32(0))
    whole = lanes - lanes % (4 * LANES)
    for head in range(0, whole, 4 * LANES):
        a = b = c = d = e = f = _load_four(small, steps * lanes + head)
        for step in range(steps):
            heads = _load_four(small, step * lanes + head)
            a = _multiply_four(keys[step], heads, a)
            b = _multiply_four(keys[k1 + step], heads, b)
            c = _multiply_four(keys[k2 + step], heads, c)
            d = _multiply_four(keys[k3 + step], heads, d)
            e = _multiply_four(keys[k4 + step], heads, e)
            f = _multiply_four(keys[k5 + step], heads, f)
        units, place = (steps + 1) * lanes + head, channels * lanes + head
        t0 = weigh_four(rows, place, lanes, _products_of_four(small, units, a, halves[0]), t0)
        t1 = weigh_four(rows, place, lanes, _products_of_four(small, units, b, halves[1]), t1)
        t2 = weigh_four(rows, place, lanes, _products_of_four(small, units, c, halves[2]), t2)
        t3 = weigh_four(rows, place, lanes, _products_of_four(small, units, d, halves[3]), t3)
        t4 = weigh_four(rows, place, lanes, _products_of_four(small, units, e, halves[4]), t4)
        t5 = weigh_four(rows, place, lanes, _products_of_four(small, units, f, halves[5]), t5)
    for head in range(whole, lanes, LANES):
        p0 = p1 = p2 = p3 = p4 = p5 = load_uint32(small, steps * lanes + head)
        for step in range(steps):
            heads = load_uint32(small, step * lanes + head)
            p0, p1 = _multiply(keys[step], heads, p0), _multiply(keys[k1 + step], heads, p1)
            p2, p3 = _multiply(keys[k2 + step], heads, p2), _multiply(keys[k3 + step], heads, p3)
            p4, p5 = _multiply(keys[k4 + step], heads, p4), _multiply(keys[k5 + step], heads, p5)
        units, place = (steps + 1) * lanes + head, channels * lanes + head
        t0 = weigh(rows, place, lanes, _product(small, units, p0, halves[0]), t0)
        t1 = weigh(rows, place, lanes, _product(small, units, p1, halves[1]), t1)
        t2 = weigh(rows, place, lanes, _product(small, units, p2, halves[2]), t2)
        t3 = weigh(rows, place, lanes, _product(small, units, p3, halves[3]), t3)
        t4 = weigh(rows, place, lanes, _product(small, units, p4, halves[4]), t4)
        t5 = weigh(rows, place, lanes, _product(small, units, p5, halves[5]), t5)
    return lane_sum(t0), lane_sum(t1), lane_sum(t2), lane_sum(t3), lane_sum(t4), lane_sum(t5)


@inlined
def _load_four(small, place):
    return (
        load_uint32(small, place),
        load_uint32(small, place + LANES),
        load_uint32(small, place + 2 * LANES),
        load_uint32(small, place + 3 * LANES),
    )


@inlined
def _multiply(four, heads, total):
    return _add_products(total, splat_word(four), heads)


@inlined
def _multiply_four(four, heads, totals):
    four = splat_word(four)
    return (
        _add_products(totals[0], four, heads[0]),
        _add_products(totals[1], four, heads[1]),
        _add_products(totals[2], four, heads[2]),
        _add_products(totals[3], four, heads[3]),
    )


@inlined
def _product(small, units, total, half):
    """A sum of whole numbers as the product that it stands for."""
    return _as_floats(total) * floats(load_uint32(small, units)) * splat(half)


@inlined
def _products_of_four(small, units, totals, half):
    return (
        _product(small, units, totals[0], half),
        _product(small, units + LANES, totals[1], half),
        _product(small, units + 2 * LANES, totals[2], half),
        _product(small, units + 3 * LANES, totals[3], half),
    )
