"""From the projected streams of a token to its mixing weights: the second half of dsv4.ops.mhc's weights.

A vector has a token in each lane: no sum runs across lanes, any n is served, and a token's bits do not depend on its
neighbours. The Sinkhorn rounds leave the matrix K as it is, and change a factor for each of its rows and columns:
the matrix that they stand for, left_j · K_ji · right_i, has row sums left_j · Σ_i K_ji · right_i.
"""

import numpy as np
from numba import prange, types

from dsv4_accel.numba.compile import inlined, kernel, reads, writes
from dsv4_accel.numba.exponential import exp, sigmoid
from dsv4_accel.numba.memory import load, store
from dsv4_accel.numba.vectors import LANES, extract, fma, maximum, splat

SPAN = 2 * LANES
"""Tokens that go through the rounds together, so that a vector need not wait for another's divisions."""


@kernel(
    reads(types.float32, 2),
    reads(types.float32, 1),
    reads(types.float32, 1),
    types.intp,
    types.float32,
    writes(types.float32, 2),
    writes(types.float32, 2),
    writes(types.float32, 2),
)
def mixing_weights(mixes, base, scale, iterations, eps, pre, post, comb):
    """mixes [(2+n)n + 1, ≥ T]: the products, and what to multiply them by; base [(2+n)n]; scale [3];
    pre, post [T, n]; comb [T, n·n]; eps at least SMALLEST_EPS
    """
    tokens, n = pre.shape
    for block in prange((tokens + SPAN - 1) // SPAN):
        first, count = block * SPAN, min(SPAN, tokens - block * SPAN)
        room = np.empty((n + 2) * n * SPAN, np.float32)  # K [n, n, SPAN], left [n, SPAN], right [n, SPAN]
        for lane in range(0, count, LANES):
            _write_shares(mixes, 0, base, scale[0], np.float32(1), eps, pre, first + lane)
            _write_shares(mixes, n, base, scale[1], np.float32(2), np.float32(0), post, first + lane)
            for place in range(n * n):
                store(room, place * SPAN + lane, _logits(mixes, 2 * n + place, base, scale[2], first + lane))
            for row in range(n):
                _softmax(room, row * n * SPAN + lane, n, eps)
        _balance(room, n, iterations, eps, count)
        for lane in range(0, count, LANES):
            _write_balanced(room, n, lane, comb, first + lane)


SMALLEST_EPS = 1e-12
"""Below this eps a factor, which may grow to 1/eps², or a product of two divisors could leave float32."""


@kernel(
    reads(types.float32, 2),
    reads(types.float32, 1),
    reads(types.float32, 1),
    types.float32,
    writes(types.float32, 2),
)
def head_weights(mixes, base, scale, eps, weights):
    """mixes [n + 1, ≥ T] as above; base [n]; scale [1]; weights [T, n]"""
    for vector in prange((weights.shape[0] + LANES - 1) // LANES):
        _write_shares(mixes, 0, base, scale[0], np.float32(1), eps, weights, vector * LANES)


@inlined
def _logits(mixes, row, base, scale, token):
    """One row of the projected streams of 16 tokens, normalised, scaled and shifted."""
    normalised = load(mixes[row], token) * load(mixes[mixes.shape[0] - 1], token)
    return fma(normalised, splat(scale), splat(base[row]))


@inlined
def _write_shares(mixes, row, base, scale, factor, eps, shares, token):
    """factor · σ(·) + eps of n rows for 16 tokens. shares [T, n]"""
    for stream in range(shares.shape[1]):
        share = sigmoid(_logits(mixes, row + stream, base, scale, token))
        _write(fma(share, splat(factor), splat(eps)), shares, token, stream)


@inlined
def _write(numbers, table, token, column):
    """Put what belongs to 16 tokens, or to the last ones, into their rows."""
    for lane in range(min(LANES, table.shape[0] - token)):
        table[token + lane, column] = extract(numbers, lane)


@inlined
def _softmax(room, row, n, eps):
    """The softmax of n numbers plus eps, in place, for 16 tokens. row: where the first stands"""
    behind = row + n * SPAN
    largest = load(room, row)
    for place in range(row + SPAN, behind, SPAN):
        largest = maximum(largest, load(room, place))
    total = splat(np.float32(0))
    for place in range(row, behind, SPAN):
        exponential = exp(load(room, place) - largest)
        store(room, place, exponential)
        total = total + exponential
    inverse = splat(np.float32(1)) / total
    for place in range(row, behind, SPAN):
        store(room, place, fma(load(room, place), inverse, splat(eps)))


@inlined
def _balance(room, n, iterations, eps, count):
    """All rounds, for `count` tokens. room: K, then the factors of rows, then those of columns, as in mixing_weights.

    Divisions are what takes time here, so two factors share one: 1/a = b/(ab) and 1/b = a/(ab).
    """
    rows, columns = n * n * SPAN, n * (n + 1) * SPAN
    room[rows:] = np.float32(1)
    for half_round in range(2 * max(iterations, 1) - 1):
        if half_round % 2 == 0:
            step, stride, factors, others = SPAN, n * SPAN, columns, rows
        else:
            step, stride, factors, others = n * SPAN, SPAN, rows, columns
        for lane in range(0, count, LANES):
            for i in range(0, n - n % 2, 2):
                first, second = factors + i * SPAN + lane, factors + (i + 1) * SPAN + lane
                a = _divisor(room, i * step + lane, stride, others + lane, n, first, eps)
                b = _divisor(room, (i + 1) * step + lane, stride, others + lane, n, second, eps)
                inverse = splat(np.float32(1)) / (a * b)
                store(room, first, load(room, first) * (inverse * b))
                store(room, second, load(room, second) * (inverse * a))
            if n % 2:
                last = factors + (n - 1) * SPAN + lane
                divisor = _divisor(room, (n - 1) * step + lane, stride, others + lane, n, last, eps)
                store(room, last, load(room, last) / divisor)


@inlined
def _divisor(room, place, stride, others, n, factor, eps):
    """factor · Σ K · other + eps, along a row or a column of K that starts at `place`."""
    total = splat(np.float32(0))
    for j in range(n):
        total = fma(load(room, place + j * stride), load(room, others + j * SPAN), total)
    return fma(load(room, factor), total, splat(eps))


@inlined
def _write_balanced(room, n, lane, comb, token):
    """left_j · K_ji · right_i for 16 tokens. comb [T, n·n]"""
    rows, columns = n * n * SPAN + lane, n * (n + 1) * SPAN + lane
    for j in range(n):
        for i in range(n):
            share = load(room, rows + j * SPAN) * load(room, columns + i * SPAN)
            place = j * n + i
            _write(load(room, place * SPAN + lane) * share, comb, token, place)
