"""RMSNorm, with a learned weight and without: mirrors dsv4.ops.norm."""

import numpy as np
from numba import prange, types

from dsv4.ops import norm as reference
from dsv4.ops.types import Array
from dsv4_accel.numba.arrays import are_float32, compact
from dsv4_accel.numba.compile import inlined, kernel, reads, writes
from dsv4_accel.numba.memory import load, load_part, store
from dsv4_accel.numba.vectors import LANES, fma, lane_sum, splat
from dsv4_accel.numba.weights import vector

NO_WEIGHT = np.empty(0, np.float32)

ROWS_TOGETHER = 16
"""How many rows a thread takes at a time."""


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    """As dsv4.ops.norm.rms_norm."""
    if not are_float32(x) or not x.size or weight.shape != x.shape[-1:]:
        return reference.rms_norm(x, weight, eps)
    return _normalise(x, vector(weight), eps)


def rms_scale(x: Array, eps: float) -> Array:
    """As dsv4.ops.norm.rms_scale."""
    if not are_float32(x) or not x.size or not x.ndim:
        return reference.rms_scale(x, eps)
    return _normalise(x, NO_WEIGHT, eps)


def _normalise(x: Array, weight: Array, eps: float) -> Array:
    """x [..., d]; weight [d], or [0] for none."""
    normalised = np.empty(x.shape, np.float32)
    width = x.shape[-1]
    _normalise_rows(x.size, compact(x).reshape(-1, width), weight, eps, normalised.reshape(-1, width))
    return normalised


@kernel(reads(types.float32, 2), reads(types.float32, 1), types.float32, writes(types.float32, 2))
def _normalise_rows(x, weight, eps, normalised):
    """x, normalised [T, d]; weight [d] or [0]"""
    for group in prange((x.shape[0] + ROWS_TOGETHER - 1) // ROWS_TOGETHER):
        for row in range(group * ROWS_TOGETHER, min((group + 1) * ROWS_TOGETHER, x.shape[0])):
            root = np.sqrt(sum_of_squares(x[row]) / np.float32(x.shape[1]) + eps)
            if weight.size:
                _divide_and_weigh(x[row], root, weight, normalised[row])
            else:
                _divide(x[row], root, normalised[row])


@inlined
def sum_of_squares(row):
    """Σ x² of one row, in one fixed order: four sums of 16 lanes, over vectors in turn, then of what they hold."""
    a = b = c = d = splat(np.float32(0))
    start = 0
    while start + 4 * LANES <= row.size:
        a = _add_squares(load(row, start), a)
        b = _add_squares(load(row, start + LANES), b)
        c = _add_squares(load(row, start + 2 * LANES), c)
        d = _add_squares(load(row, start + 3 * LANES), d)
        start += 4 * LANES
    while start + LANES <= row.size:
        a = _add_squares(load(row, start), a)
        start += LANES
    if start < row.size:
        b = _add_squares(load_part(row, start, row.size - start), b)
    return lane_sum((a + b) + (c + d))


@inlined
def _add_squares(numbers, total):
    return fma(numbers, numbers, total)


@inlined
def _divide(row, root, normalised):
    """A division for each number: a product with the inverse would be rounded twice."""
    whole = row.size - row.size % LANES
    for start in range(0, whole, LANES):
        store(normalised, start, load(row, start) / splat(root))
    for channel in range(whole, row.size):
        normalised[channel] = row[channel] / root


@inlined
def _divide_and_weigh(row, root, weight, normalised):
    whole = row.size - row.size % LANES
    for start in range(0, whole, LANES):
        store(normalised, start, load(row, start) / splat(root) * load(weight, start))
    for channel in range(whole, row.size):
        normalised[channel] = row[channel] / root * weight[channel]
