"""Manifold-constrained hyper-connections: mirrors dsv4.ops.mhc."""

import numpy as np
from numba import prange, types

from dsv4.ops import mhc as reference
from dsv4.ops.mhc import MhcWeights
from dsv4.ops.types import Array
from dsv4_accel.numba.arrays import are_float32, compact
from dsv4_accel.numba.compile import inlined, kernel, reads, writes
from dsv4_accel.numba.memory import load, load_part, load_to_end, store_to_end
from dsv4_accel.numba.norm import sum_of_squares
from dsv4_accel.numba.sinkhorn import SMALLEST_EPS, head_weights, mixing_weights
from dsv4_accel.numba.vectors import LANES, fma, lane_sum, splat

TILE = 4
"""Tokens, and rows of fn, that are multiplied together."""


def mhc_weights(
    streams: Array, fn: Array, base: Array, scale: Array, iterations: int, eps: float, norm_eps: float
) -> MhcWeights:
    """As dsv4.ops.mhc.mhc_weights."""
    n = streams.shape[2] if streams.ndim == 4 else 0
    if not _fit(streams, fn, base, scale, (2 + n) * n, 3) or eps < SMALLEST_EPS:
        return reference.mhc_weights(streams, fn, base, scale, iterations, eps, norm_eps)
    mixes = _mixes(streams, fn, norm_eps)
    batch, length = streams.shape[:2]
    pre, post = np.empty((batch, length, n), np.float32), np.empty((batch, length, n), np.float32)
    comb = np.empty((batch, length, n, n), np.float32)
    tokens = batch * length
    mixing_weights(
        2 * n * n * iterations * tokens,
        mixes,
        compact(base),
        compact(scale),
        iterations,
        eps,
        pre.reshape(tokens, n),
        post.reshape(tokens, n),
        comb.reshape(tokens, n * n),
    )
    return MhcWeights(pre, post, comb)


def mhc_head_weights(streams: Array, fn: Array, base: Array, scale: Array, eps: float, norm_eps: float) -> Array:
    """As dsv4.ops.mhc.mhc_head_weights."""
    n = streams.shape[2] if streams.ndim == 4 else 0
    if not _fit(streams, fn, base, scale, n, 1):
        return reference.mhc_head_weights(streams, fn, base, scale, eps, norm_eps)
    mixes = _mixes(streams, fn, norm_eps)
    weights = np.empty(streams.shape[:3], np.float32)
    head_weights(8 * weights.size, mixes, compact(base), compact(scale), eps, weights.reshape(-1, n))
    return weights


def mhc_collapse(streams: Array, pre: Array) -> Array:
    """As dsv4.ops.mhc.mhc_collapse."""
    if not are_float32(streams, pre) or not streams.size or streams.ndim != 4 or pre.shape != streams.shape[:3]:
        return reference.mhc_collapse(streams, pre)
    batch, length, n, width = streams.shape
    collapsed = np.empty((batch, length, width), np.float32)
    _collapse(
        streams.size,
        compact(streams).reshape(-1, n, width),
        compact(pre).reshape(-1, n),
        collapsed.reshape(-1, width),
    )
    return collapsed


def mhc_mix(streams: Array, output: Array, post: Array, comb: Array) -> Array:
    """As dsv4.ops.mhc.mhc_mix."""
    if not are_float32(streams, output, post, comb) or not streams.size or streams.ndim != 4:
        return reference.mhc_mix(streams, output, post, comb)
    batch, length, n, width = streams.shape
    place = batch, length
    if (output.shape, post.shape, comb.shape) != ((*place, width), (*place, n), (*place, n, n)):
        return reference.mhc_mix(streams, output, post, comb)
    mixed = np.empty(streams.shape, np.float32)
    _mix(
        (n + 1) * streams.size,
        compact(streams).reshape(-1, n, width),
        compact(output).reshape(-1, width),
        compact(post).reshape(-1, n),
        compact(comb).reshape(-1, n, n),
        mixed.reshape(-1, n, width),
    )
    return mixed


def _fit(streams: Array, fn: Array, base: Array, scale: Array, rows: int, scales: int) -> bool:
    """Whether a kernel takes these arrays, and they belong together."""
    return (
        are_float32(streams, fn, base, scale)
        and streams.size > 0
        and streams.ndim == 4
        and fn.shape == (rows, streams.shape[2] * streams.shape[3])
        and base.shape == (rows,)
        and scale.shape == (scales,)
    )


def _mixes(streams: Array, fn: Array, norm_eps: float) -> Array:
    """streams [B, S, n, d], fn [rows, n·d] -> [rows + 1, B·S, up to whole vectors], as `_project` makes them."""
    tokens, rows = streams.shape[0] * streams.shape[1], fn.shape[0]
    mixes = np.zeros((rows + 1, -(-tokens // LANES) * LANES), np.float32)
    _project(rows * streams.size, compact(streams).reshape(tokens, -1), compact(fn), norm_eps, mixes)
    return mixes


@kernel(reads(types.float32, 2), reads(types.float32, 2), types.float32, writes(types.float32, 2))
def _project(streams, fn, eps, mixes):
    """The product of each token's streams with each row of fn, and in the last row 1 / their root mean square.

    streams [T, n·d], fn [rows, n·d], mixes [rows + 1, ≥ T]
    """
    tokens, rows = streams.shape[0], fn.shape[0]
    row_tiles = (rows + TILE - 1) // TILE
    for tile in prange((tokens + TILE - 1) // TILE * row_tiles):
        first_token, first_row = tile // row_tiles * TILE, tile % row_tiles * TILE
        behind = min(first_token + TILE, tokens)
        if behind - first_token == TILE:
            _multiply_four(streams, first_token, fn, first_row, mixes)
        else:
            for token in range(first_token, behind):
                _multiply_one(streams, token, fn, first_row, mixes)
        if first_row == 0:
            for token in range(first_token, behind):
                mean_square = sum_of_squares(streams[token]) / np.float32(streams.shape[1])
                mixes[rows, token] = np.float32(1) / np.sqrt(mean_square + eps)


@inlined
def _multiply_four(streams, token, fn, row, mixes):
    """Four tokens times four rows; each product is summed as in `_multiply_one`."""
    x0, x1, x2, x3 = streams[token], streams[token + 1], streams[token + 2], streams[token + 3]
    a = b = c = d = _four_zeros()
    whole = fn.shape[1] - fn.shape[1] % LANES
    for start in range(0, whole, LANES):
        numbers = _load_four(fn, row, start)
        a = _add_products(load(x0, start), numbers, a)
        b = _add_products(load(x1, start), numbers, b)
        c = _add_products(load(x2, start), numbers, c)
        d = _add_products(load(x3, start), numbers, d)
    _finish(x0, whole, fn, row, a, mixes, token)
    _finish(x1, whole, fn, row, b, mixes, token + 1)
    _finish(x2, whole, fn, row, c, mixes, token + 2)
    _finish(x3, whole, fn, row, d, mixes, token + 3)


@inlined
def _multiply_one(streams, token, fn, row, mixes):
    """One token times four rows: 16 sums side by side for each, over the channels in turn."""
    x = streams[token]
    totals = _four_zeros()
    whole = x.size - x.size % LANES
    for start in range(0, whole, LANES):
        totals = _add_products(load(x, start), _load_four(fn, row, start), totals)
    _finish(x, whole, fn, row, totals, mixes, token)


@inlined
def _finish(x, whole, fn, row, totals, mixes, token):
    """The channels that fill no vector, and the sums of the lanes."""
    present = x.size - whole
    for i in range(min(TILE, fn.shape[0] - row)):
        total = totals[i]
        if present > 0:
            total = total + load_part(x, whole, present) * load_part(fn[row + i], whole, present)
        mixes[row + i, token] = lane_sum(total)


@inlined
def _four_zeros():
    zero = splat(np.float32(0))
    return zero, zero, zero, zero


@inlined
def _load_four(fn, row, start):
    """16 channels of four rows; of the last one again where fewer are left."""
    last = fn.shape[0] - 1
    return (
        load(fn[row], start),
        load(fn[min(row + 1, last)], start),
        load(fn[min(row + 2, last)], start),
        load(fn[min(row + 3, last)], start),
    )


@inlined
def _add_products(x, numbers, totals):
    return (
        fma(x, numbers[0], totals[0]),
        fma(x, numbers[1], totals[1]),
        fma(x, numbers[2], totals[2]),
        fma(x, numbers[3], totals[3]),
    )


@kernel(reads(types.float32, 3), reads(types.float32, 2), writes(types.float32, 2))
def _collapse(streams, pre, collapsed):
    """streams [T, n, d], pre [T, n] -> collapsed [T, d]"""
    for token in prange(streams.shape[0]):
        for start in range(0, streams.shape[2], LANES):
            store_to_end(collapsed[token], start, _weighted_sum(streams[token], pre[token], start))


@kernel(
    reads(types.float32, 3),
    reads(types.float32, 2),
    reads(types.float32, 2),
    reads(types.float32, 3),
    writes(types.float32, 3),
)
def _mix(streams, output, post, comb, mixed):
    """streams, mixed [T, n, d]; output [T, d]; post [T, n]; comb [T, n, n]"""
    for token in prange(streams.shape[0]):
        for start in range(0, streams.shape[2], LANES):
            added = load_to_end(output[token], start)
            for i in range(streams.shape[1]):
                total = _weighted_sum(streams[token], comb[token, :, i], start)
                store_to_end(mixed[token, i], start, fma(splat(post[token, i]), added, total))


@inlined
def _weighted_sum(streams, weights, start):
    """Σ_j weights_j · stream_j for 16 channels. streams [n, d], weights [n] -> F32x16"""
    total = splat(np.float32(0))
    for j in range(streams.shape[0]):
        total = fma(splat(weights[j]), load_to_end(streams[j], start), total)
    return total
