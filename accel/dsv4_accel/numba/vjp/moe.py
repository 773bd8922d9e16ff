"""The experts' vector-Jacobian product: mirrors dsv4.learn.vjp.moe, all but its matrix products in one pass."""

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
from numba import types

from dsv4.learn.vjp import moe as reference
from dsv4.learn.vjp.linear import linear
from dsv4.learn.vjp.moe import ExpertGradients, ExpertsGradients
from dsv4.ops import Expert, Routing
from dsv4.ops.types import Array
from dsv4_accel.numba.arrays import are_float32, compact
from dsv4_accel.numba.compile import inlined, kernel, reads, writes
from dsv4_accel.numba.exponential import sigmoid
from dsv4_accel.numba.memory import load, store
from dsv4_accel.numba.vectors import LANES, choose, fma, greater, lane_sum, maximum, minimum, splat


def experts(
    x: Array, routing: Routing, expert_list: Sequence[Expert], limit: float, round_inputs: bool
) -> tuple[Array, Callable[[Array], ExpertsGradients]]:
    """As dsv4.learn.vjp.moe.experts."""
    return reference.each_by(expert, x, routing, expert_list, limit, round_inputs)


def expert(
    x: Array, weight: Array, matrices: Expert, limit: float, round_inputs: bool
) -> tuple[Array, Callable[[Array], ExpertGradients]]:
    """As dsv4.learn.vjp.moe.expert."""
    w1, w2, w3 = cast(tuple[Array, Array, Array], matrices)
    if not are_float32(x, weight, w1, w2, w3) or len(w1) % LANES:
        return reference.expert(x, weight, matrices, limit, round_inputs)
    gate, pull_gate = linear(x, w1)
    up, pull_up = linear(x, w3)
    weighted = np.empty(gate.shape, np.float32)
    _activate(0, gate, up, compact(weight), limit, weighted)
    result, pull_down = linear(weighted, w2)

    def pull(d_result: Array) -> ExpertGradients:
        d_weighted, d_w2 = pull_down(d_result)
        d_gate, d_up, d_weight = (np.empty(one.shape, np.float32) for one in (gate, up, weight))
        _pull_activation(0, gate, up, compact(weight), limit, d_weighted, d_gate, d_up, d_weight)
        through_gate, d_w1 = pull_gate(d_gate)
        through_up, d_w3 = pull_up(d_up)
        return ExpertGradients(through_gate + through_up, d_weight, Expert(d_w1, d_w2, d_w3))

    return result, pull


ROWS, NUMBERS = reads(types.float32, 2), reads(types.float32, 1)
ROWS_WRITTEN, NUMBERS_WRITTEN = writes(types.float32, 2), writes(types.float32, 1)


@kernel(ROWS, ROWS, NUMBERS, types.float32, ROWS_WRITTEN)
def _activate(gate, up, weight, limit, weighted):
    """weight · SwiGLU. gate, up, weighted [T, width]; weight [T]"""
    for token in range(gate.shape[0]):
        for start in range(0, gate.shape[1], LANES):
            clipped = minimum(splat(limit), load(gate[token], start))
            hidden = clipped * sigmoid(clipped) * _clipped(load(up[token], start), limit)
            store(weighted[token], start, splat(weight[token]) * hidden)


@kernel(ROWS, ROWS, NUMBERS, types.float32, ROWS, ROWS_WRITTEN, ROWS_WRITTEN, NUMBERS_WRITTEN)
def _pull_activation(gate, up, weight, limit, d_weighted, d_gate, d_up, d_weight):
    """As _activate; d_weighted [T, width]"""
    zero, one = splat(np.float32(0)), splat(np.float32(1))
    for token in range(gate.shape[0]):
        total = zero
        for start in range(0, gate.shape[1], LANES):
            raw_gate, raw_up = load(gate[token], start), load(up[token], start)
            clipped, clipped_up = minimum(splat(limit), raw_gate), _clipped(raw_up, limit)
            share = sigmoid(clipped)
            silu = clipped * share
            gradient = load(d_weighted[token], start)
            total = fma(gradient, silu * clipped_up, total)
            d_hidden = gradient * splat(weight[token])
            slope = fma(silu, one - share, share)
            is_above = greater(raw_gate, splat(limit))
            store(d_gate[token], start, choose(is_above, zero, d_hidden * clipped_up * slope))
            is_outside = greater(raw_up, splat(limit)) | greater(splat(-limit), raw_up)
            store(d_up[token], start, choose(is_outside, zero, d_hidden * silu))
        d_weight[token] = lane_sum(total)


@inlined
def _clipped(up, limit):
    return maximum(splat(-limit), minimum(splat(limit), up))
