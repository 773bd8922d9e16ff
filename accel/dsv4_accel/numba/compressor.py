"""Compressing runs of tokens into single entries: mirrors dsv4.ops.compressor."""

import numpy as np
from numba import prange, types

from dsv4.ops import compressor as reference
from dsv4.ops.types import Array
from dsv4_accel.numba.arrays import are_float32, compact
from dsv4_accel.numba.compile import inlined, kernel, reads, writes
from dsv4_accel.numba.exponential import exp
from dsv4_accel.numba.memory import load_to_end, store_to_end
from dsv4_accel.numba.vectors import LANES, fma, maximum, splat

WORK_PER_NUMBER = 16
"""About how many multiply-adds the exponential of a score takes, and what is done with it."""


def compress(kv: Array, score: Array) -> Array:
    """As dsv4.ops.compressor.compress."""
    if not are_float32(kv, score) or not kv.size or kv.shape != score.shape or kv.ndim < 2:
        return reference.compress(kv, score)
    *leading, slots, width = kv.shape
    entries = np.empty((*leading, width), np.float32)
    _compress(
        WORK_PER_NUMBER * kv.size,
        compact(kv).reshape(-1, slots, width),
        compact(score).reshape(-1, slots, width),
        entries.reshape(-1, width),
    )
    return entries


@kernel(reads(types.float32, 3), reads(types.float32, 3), writes(types.float32, 2))
def _compress(kv, score, entries):
    """kv, score [N, slots, c] -> entries [N, c]; one task for each vector of channels of each entry"""
    vectors = (entries.shape[1] + LANES - 1) // LANES
    for task in prange(entries.shape[0] * vectors):
        entry, start = task // vectors, task % vectors * LANES
        store_to_end(entries[entry], start, _weighted_mean(kv[entry], score[entry], start))


@inlined
def _weighted_mean(kv, score, start):
    """16 channels of one entry. kv, score [slots, c] -> F32x16"""
    largest = splat(np.float32(-np.inf))
    for slot in range(score.shape[0]):
        largest = maximum(load_to_end(score[slot], start), largest)
    total = weights = splat(np.float32(0))
    for slot in range(score.shape[0]):
        weight = exp(load_to_end(score[slot], start) - largest)
        total = fma(load_to_end(kv[slot], start), weight, total)
        weights = weights + weight
    return total / weights
