"""The best entries of one query by their scores: which they are, and in which order.

Scores become ranks: unsigned words in the same order. Whether at least k words reach a limit is a count, which vectors
do quickly, so the limit that exactly the k largest reach is found bit by bit. Most entries never get that far: the
k-th largest of what blocks of entries have at most is a safe limit, since k entries reach it, so that the k best are
all in k blocks: the first ones among those with the largest maxima.
"""

import numpy as np
from llvmlite import ir
from numba import types

from dsv4_accel.numba.compile import inlined
from dsv4_accel.numba.memory import copy, load, load_part, load_uint32, store
from dsv4_accel.numba.vectors import (
    LANES,
    WORDS,
    F32x16,
    U32x16,
    any_word,
    call,
    choose,
    constant,
    greater,
    lane_max_word,
    larger_word,
    of_one,
    of_two,
    splat,
    splat_word,
    words,
)

BLOCK = 64
"""Entries of which only the best one is looked at first."""

DIGITS = 256
"""Values of a byte of a rank, by which ranks are sorted, one byte after the other."""

SIGN = np.uint32(0x80000000)

LANE_NUMBERS = np.arange(LANES, dtype=np.float32)

is_number = of_one(F32x16, U32x16, lambda builder, a: builder.sext(builder.fcmp_ordered("ord", a, a), WORDS))
"""All bits set in the lanes that are no NaN."""
at_least = of_two(U32x16, U32x16, U32x16, lambda builder, a, b: builder.sext(builder.icmp_unsigned(">=", a, b), WORDS))
"""All bits set in the lanes where a ≥ b."""
sum_of_words = of_one(
    U32x16, types.uint32, lambda builder, a: call(builder, "llvm.vector.reduce.add.v16i32", ir.IntType(32), a)
)
"""The sum of the lanes, as an unsigned number."""


def _flags(builder, mask):
    flags = builder.icmp_unsigned("!=", mask, constant(WORDS, 0))
    return builder.zext(builder.bitcast(flags, ir.IntType(LANES)), ir.IntType(32))


lane_flags = of_one(U32x16, types.uint32, _flags)
"""Bit i says whether lane i has any bit set."""
first_flag = of_one(
    types.uint32,
    types.uint32,
    lambda builder, flags: call(builder, "llvm.cttz.i32", ir.IntType(32), flags, ir.IntType(1)(0)),
)
"""The number of the lowest bit that is set."""


@inlined
def no_maxima(queries, entries):
    """Room for the maxima of each query's blocks, up to whole vectors, all 0. [queries, ≥ blocks] uint32"""
    blocks = (entries + BLOCK - 1) // BLOCK
    return np.zeros((queries, (blocks + LANES - 1) // LANES * LANES), np.uint32)


@inlined
def write_maxima(scores, first, behind, maxima):
    """The largest rank of each block of entries first … behind − 1; first is where a block begins.

    scores [≥ behind]; maxima [≥ blocks] uint32
    """
    for start in range(first, behind, BLOCK):
        largest = splat_word(np.uint32(0))
        for entry in range(start, start + BLOCK, LANES):
            largest = larger_word(_ranks(scores, entry, behind), largest)
        maxima[start // BLOCK] = lane_max_word(largest)


@inlined
def write_best(scores, visible, maxima, chosen):
    """The best of the first `visible` entries, as dsv4.ops.indexer.top_k orders them.

    scores [T]; maxima [whole vectors ≥ blocks] uint32, 0 behind the blocks; chosen [min(k, T)] int64
    """
    best_blocks = np.empty(min((visible + BLOCK - 1) // BLOCK, chosen.size), np.int64)
    limit = _write_places_of_largest(maxima, best_blocks, np.uint32(0))
    floor = limit if best_blocks.size == chosen.size else np.uint32(0)  # in each block one entry at least reaches it
    ranks, entries = _gather(scores, visible, best_blocks, floor)
    places = np.empty(min(chosen.size, _count_at_least(ranks, np.uint32(1))), np.int64)
    _write_places_of_largest(ranks, places, floor)
    best = chosen[: places.size]
    best_ranks = np.empty(places.size, np.uint32)
    for i in range(places.size):
        best_ranks[i] = ranks[places[i]]
        best[i] = entries[places[i] // LANES] + places[i] % LANES
    _sort(best_ranks, best)
    _write_rest(scores, visible, chosen, places.size)


@inlined
def _gather(scores, visible, blocks, floor):
    """The ranks of some blocks' entries by vectors, without vectors of which no entry reaches the floor.

    Returns the ranks [vectors · 16] uint32, and the first entry of each vector [≥ vectors] int64.
    """
    ranks, entries = np.empty(blocks.size * BLOCK, np.uint32), np.empty(blocks.size * BLOCK // LANES, np.int64)
    count = 0
    for block in blocks:
        for entry in range(block * BLOCK, block * BLOCK + BLOCK, LANES):
            some = _ranks(scores, entry, visible)
            store(ranks, count * LANES, some)
            entries[count] = entry
            count += 1 if any_word(at_least(some, splat_word(floor))) else 0
    return ranks[: count * LANES], entries


@inlined
def _write_rest(scores, visible, chosen, count):
    """What comes behind the `count` best numbers: −1 for each entry that is not visible, and then those of NaN."""
    numbers_and_hidden = min(count + scores.size - visible, chosen.size)
    chosen[count:numbers_and_hidden] = -1
    entry = 0
    for i in range(numbers_and_hidden, chosen.size):
        while not np.isnan(scores[entry]):
            entry += 1
        chosen[i] = entry
        entry += 1


@inlined
def _ranks(scores, entry, behind):
    """The ranks of 16 scores: −0.0 is 0.0; a NaN, and what does not stand before `behind`, has rank 0."""
    if entry + LANES <= behind:
        numbers = load(scores, entry)
    elif entry < behind:
        is_there = greater(splat(np.float32(behind - entry)), load(LANE_NUMBERS, 0))
        numbers = choose(is_there, load_part(scores, entry, behind - entry), splat(np.float32(np.nan)))
    else:
        numbers = splat(np.float32(np.nan))
    zero = splat(np.float32(0))
    numbers = numbers + zero
    return (words(numbers) ^ (greater(zero, numbers) | SIGN)) & is_number(numbers)


@inlined
def _write_places_of_largest(ranks, places, floor):
    """Where the largest ranks stand, in the order of places; among equals the first ones.

    ranks [whole vectors] uint32; places [≤ ranks.size] int64; floor: what so many ranks are known to reach. Returns a
    limit that they reach, and no smaller one than the floor.
    """
    limit = _limit_of_largest(ranks, places.size, floor)
    equals = places.size - _count_at_least(ranks, np.uint32(limit + np.uint32(1)))
    found = 0
    for start in range(0, ranks.size, LANES):
        flags = lane_flags(at_least(load_uint32(ranks, start), splat_word(limit)))
        while flags and found < places.size:
            place = start + np.int64(first_flag(flags))
            flags = np.uint32(flags & np.uint32(flags - np.uint32(1)))
            if ranks[place] == limit:
                if equals == 0:
                    continue
                equals -= 1
            places[found] = place
            found += 1
    return limit


@inlined
def _limit_of_largest(ranks, k, floor):
    """The largest word that at least k ranks reach, or a smaller one that as many reach; at least k reach the floor."""
    limit, largest = np.uint32(0), _largest(ranks)
    for bit in range(31, -1, -1):
        trial = np.uint32(limit | np.uint32(np.uint32(1) << np.uint32(bit)))
        if trial <= floor:
            limit = trial
        elif trial <= largest:
            count = _count_at_least(ranks, trial)
            if count >= k:
                limit = trial
            if count == k:
                break
    return limit


@inlined
def _largest(ranks):
    largest = splat_word(np.uint32(0))
    for start in range(0, ranks.size, LANES):
        largest = larger_word(load_uint32(ranks, start), largest)
    return lane_max_word(largest)


@inlined
def _count_at_least(ranks, limit):
    """How many ranks reach a limit. ranks [whole vectors] uint32"""
    count = splat_word(np.uint32(0))
    for start in range(0, ranks.size, LANES):
        count = count - at_least(load_uint32(ranks, start), splat_word(limit))  # a mask is −1
    return np.int64(sum_of_words(count))


@inlined
def _sort(ranks, entries):
    """Sort by falling rank; equals stay in their order. ranks uint32, entries int64: both change."""
    ranks_before, entries_before = np.empty_like(ranks), np.empty_like(entries)
    places = np.empty(DIGITS, np.int64)
    for shift in range(0, 32, 8):
        copy(ranks, ranks_before)
        copy(entries, entries_before)
        places[:] = 0
        for i in range(ranks.size):
            places[_digit(ranks[i], shift)] += 1
        place = 0
        for digit in range(DIGITS):
            count = places[digit]
            places[digit] = place
            place += count
        for i in range(ranks.size):
            digit = _digit(ranks_before[i], shift)
            ranks[places[digit]], entries[places[digit]] = ranks_before[i], entries_before[i]
            places[digit] += 1


@inlined
def _digit(rank, shift):
    """A byte of a rank, turned round so that the largest comes first."""
    return DIGITS - 1 - np.int64((rank >> np.uint32(shift)) & np.uint32(0xFF))
