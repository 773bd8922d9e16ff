"""Engram's gate: mirrors dsv4.ops.engram. Its hashes are few, and inherited."""

import math

import numpy as np
from numba import prange, types

from dsv4.ops import engram as reference
from dsv4.ops.engram import SMALLEST_DOT
from dsv4.ops.types import Array
from dsv4_accel.numba.arrays import are_float32, compact
from dsv4_accel.numba.compile import inlined, kernel, reads, writes
from dsv4_accel.numba.exponential import sigmoid_of_one
from dsv4_accel.numba.memory import load_to_end, store_to_end
from dsv4_accel.numba.norm import sum_of_squares
from dsv4_accel.numba.vectors import LANES, fma, lane_sum, splat

LEAST = np.float32(SMALLEST_DOT)


def engram_gate(streams: Array, keys_and_value: Array, q_weight: Array, k_weight: Array, eps: float) -> Array:
    """As dsv4.ops.engram.engram_gate."""
    if not are_float32(streams, keys_and_value) or streams.ndim != 4 or not streams.size:
        return reference.engram_gate(streams, keys_and_value, q_weight, k_weight, eps)
    batch, length, n, d = streams.shape
    fit = q_weight.shape == k_weight.shape == (n, d) and keys_and_value.shape == (batch, length, (n + 1) * d)
    if not fit:
        return reference.engram_gate(streams, keys_and_value, q_weight, k_weight, eps)
    weight = compact(q_weight.astype(np.float32) * k_weight.astype(np.float32))
    gated = np.empty(streams.shape, np.float32)
    _gate(
        4 * streams.size,
        compact(streams).reshape(-1, n, d),
        compact(keys_and_value).reshape(-1, n + 1, d),
        weight,
        eps,
        np.float32(d**-0.5),
        gated.reshape(-1, n, d),
    )
    return gated


@kernel(
    reads(types.float32, 3),
    reads(types.float32, 3),
    reads(types.float32, 2),
    types.float32,
    types.float32,
    writes(types.float32, 3),
)
def _gate(streams, keys_and_value, weight, eps, factor, gated):
    """streams, gated [T, n, d]; keys_and_value [T, n + 1, d], the value last; weight [n, d]; factor: d^−½"""
    n = streams.shape[1]
    for token in prange(streams.shape[0]):
        value = keys_and_value[token, n]
        for i in range(n):
            stream, key = streams[token, i], keys_and_value[token, i]
            product = _weighted_product(stream, weight[i], key)
            dot = product / (_root_mean_square(stream, eps) * _root_mean_square(key, eps)) * factor
            share = splat(_share(dot))
            for start in range(0, stream.size, LANES):
                store_to_end(gated[token, i], start, fma(share, load_to_end(value, start), load_to_end(stream, start)))


@inlined
def _weighted_product(stream, weight, key):
    """Σ stream · weight · key: 16 sums side by side, over the channels in turn."""
    total = splat(np.float32(0))
    for start in range(0, stream.size, LANES):
        total = fma(load_to_end(stream, start) * load_to_end(weight, start), load_to_end(key, start), total)
    return lane_sum(total)


@inlined
def _root_mean_square(row, eps):
    return np.sqrt(sum_of_squares(row) / np.float32(row.size) + eps)


@inlined
def _share(dot):
    """σ of the root of a dot product with its sign, that of −0.0, too; a NaN passes."""
    magnitude = np.abs(dot)
    root = np.sqrt(LEAST if magnitude < LEAST else magnitude)
    return sigmoid_of_one(math.copysign(root, dot))
