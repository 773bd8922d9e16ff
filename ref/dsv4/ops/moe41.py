"""What V4.1 does otherwise than `dsv4.ops.moe`: inputs in FP8 in blocks of 32, and the weight of a single expert."""

from collections.abc import Sequence

import numpy as np

from dsv4.ops.linear import linear
from dsv4.ops.moe import Expert, Routing, expert_scores, mixture, route, swiglu
from dsv4.ops.quantise import Weight, fake_quant_fp8, is_quantised
from dsv4.ops.types import Array

MX_BLOCK = 32
"""Channels of an activation that share one FP8 scale."""

SMALLEST_SUM = 1e-20
"""Added to the sum of the scores that a weight is divided by."""


def route41(logits: Array, bias: Array, k: int, score_function: str, scale: float) -> Routing:
    """As `route`; but where a token has one expert, its weight is the score itself, and not 1.

    The arguments, results and errors are those of `route`. Source: V4.1's code: Gate.
    """
    indices = route(logits, bias, k, score_function, scale).indices
    weights = np.take_along_axis(expert_scores(logits, score_function), indices, axis=-1)
    if score_function != "softmax" and k > 1:
        weights = weights / (weights.sum(axis=-1, keepdims=True) + weights.dtype.type(SMALLEST_SUM))
    return Routing(weights * weights.dtype.type(scale), indices)


def mx_linear(x: Array, weight: Weight, round_inputs: bool) -> Array:
    """As `linear`, but x is rounded to FP8 in blocks of 32 channels. Source: V4.1's code."""
    rounds = round_inputs and is_quantised(weight)
    return linear(fake_quant_fp8(x, MX_BLOCK) if rounds else x, weight)


def mx_expert(x: Array, share: Array, matrices: Expert, limit: float, round_inputs: bool) -> Array:
    """As `expert`, with products as in `mx_linear`. Source: V4.1's code."""
    gate, up = mx_linear(x, matrices.w1, round_inputs), mx_linear(x, matrices.w3, round_inputs)
    return mx_linear(share.astype(x.dtype)[:, None] * swiglu(gate, up, limit), matrices.w2, round_inputs)


def mx_experts(x: Array, routing: Routing, expert_list: Sequence[Expert], limit: float, round_inputs: bool) -> Array:
    """As `experts`, each of them a `mx_expert`. Source: V4.1's code."""
    return mixture(
        x, routing, expert_list, lambda tokens, share, one: mx_expert(tokens, share, one, limit, round_inputs)
    )
