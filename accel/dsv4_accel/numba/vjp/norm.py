"""RMSNorm's vector-Jacobian product: mirrors dsv4.learn.vjp.norm."""

from collections.abc import Callable

import numpy as np
from numba import types

from dsv4.learn.vjp import norm as reference
from dsv4.learn.vjp.norm import NormGradients, ScaleGradients
from dsv4.ops.types import Array
from dsv4_accel.numba.arrays import are_float32, compact
from dsv4_accel.numba.compile import inlined, kernel, reads, writes
from dsv4_accel.numba.memory import load, store
from dsv4_accel.numba.norm import sum_of_squares
from dsv4_accel.numba.vectors import LANES, fma, lane_sum, splat


def rms_norm(x: Array, weight: Array, eps: float) -> tuple[Array, Callable[[Array], NormGradients]]:
    """As dsv4.learn.vjp.norm.rms_norm."""
    if not are_float32(x, weight) or x.shape[-1] % LANES:
        return reference.rms_norm(x, weight, eps)
    rows, of_rows = compact(x).reshape(-1, len(weight)), compact(weight)
    normalised = np.empty(rows.shape, np.float32)
    roots = np.empty(len(rows), np.float32)
    _normalise(0, rows, of_rows, eps, normalised, roots)

    def pull(d_result: Array) -> NormGradients:
        d_rows, d_weight = np.empty(rows.shape, np.float32), np.zeros(len(weight), np.float32)
        _pull_rows(0, rows, of_rows, roots, compact(d_result).reshape(rows.shape), d_rows, d_weight)
        return NormGradients(d_rows.reshape(x.shape), d_weight)

    return normalised.reshape(x.shape), pull


def rms_scale(x: Array, eps: float) -> tuple[Array, Callable[[Array], ScaleGradients]]:
    """As dsv4.learn.vjp.norm.rms_scale: the norm whose weights are ones."""
    if not are_float32(x) or x.shape[-1] % LANES:
        return reference.rms_scale(x, eps)
    scaled, pull_norm = rms_norm(x, np.ones(x.shape[-1], np.float32), eps)
    return scaled, lambda d_scaled: ScaleGradients(pull_norm(d_scaled).d_x)


ROWS, ONE_ROW = reads(types.float32, 2), reads(types.float32, 1)


@kernel(ROWS, ONE_ROW, types.float32, writes(types.float32, 2), writes(types.float32, 1))
def _normalise(x, weight, eps, normalised, roots):
    """x, normalised [T, d]; weight [d]; roots [T]: what each row is divided by"""
    for row in range(x.shape[0]):
        roots[row] = np.sqrt(sum_of_squares(x[row]) / np.float32(weight.size) + eps)
        for start in range(0, weight.size, LANES):
            store(normalised[row], start, load(x[row], start) / splat(roots[row]) * load(weight, start))


@kernel(ROWS, ONE_ROW, ONE_ROW, ROWS, writes(types.float32, 2), writes(types.float32, 1))
def _pull_rows(x, weight, roots, gradient, d_x, d_weight):
    """x, gradient, d_x [T, d]; weight, d_weight [d], at first zeros; roots [T]"""
    for row in range(x.shape[0]):
        inverse = np.float32(1) / roots[row]
        total = _add_to_weight(x[row], weight, gradient[row], splat(inverse), d_weight)
        inward = splat(lane_sum(total) / np.float32(weight.size))
        for start in range(0, weight.size, LANES):
            scaled = load(x[row], start) * splat(inverse)
            outward = load(gradient[row], start) * load(weight, start) - scaled * inward
            store(d_x[row], start, outward * splat(inverse))


@inlined
def _add_to_weight(x, weight, gradient, inverse, d_weight):
    """Add a row's share to d_weight, and return the lanes of Σ gradient · weight · x / root."""
    total = splat(np.float32(0))
    for start in range(0, weight.size, LANES):
        share = load(gradient, start) * (load(x, start) * inverse)
        store(d_weight, start, load(d_weight, start) + share)
        total = fma(share, load(weight, start), total)
    return total
