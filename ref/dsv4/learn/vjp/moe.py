"""The experts and their vector-Jacobian product (report §2.1)."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import numpy as np

from dsv4.learn.vjp.linear import linear
from dsv4.ops import Expert, Routing
from dsv4.ops.elementwise import sigmoid
from dsv4.ops.types import Array

Rounded = Callable[[Array], Array]
"""What becomes of a product's input; its gradient goes straight through."""


def not_rounded(x: Array) -> Array:
    """x itself."""
    return x


class ExpertGradients(NamedTuple):
    """The gradients of `expert`."""

    d_x: Array
    d_weight: Array
    d_matrices: Expert
    """Of w1, w2 and w3."""


class ExpertsGradients(NamedTuple):
    """The gradients of `experts`."""

    d_x: Array
    d_weights: Array
    """[T, k] of the routing's weights; its indices have none."""
    d_expert_list: list[Expert | None]
    """Those of each expert; None for one that no token met, whose gradient is zero."""


def experts(
    x: Array,
    routing: Routing,
    expert_list: Sequence[Expert],
    limit: float,
    round_inputs: bool,
) -> tuple[Array, Callable[[Array], ExpertsGradients]]:
    """`ops.experts` with dense matrices, y_t = Σ_j expert_(i_tj)(x_t, w_tj), and its pullback.

    Each of a token's k experts gets the token's d_y, and d_x_t is the sum of what they give back. An expert that no
    token met is not touched. x [T, d]; routing for the T tokens. Source: report §2.1; code: MoE.
    """
    return each_by(expert, x, routing, expert_list, limit, round_inputs)


def each_by(
    one_expert: Callable[..., tuple[Array, Callable[[Array], ExpertGradients]]],
    x: Array,
    routing: Routing,
    expert_list: Sequence[Expert],
    limit: float,
    round_inputs: bool,
) -> tuple[Array, Callable[[Array], ExpertsGradients]]:
    """`experts`, each of them computed by a function like `expert`, which may be an accelerated one."""
    outputs = np.zeros((*routing.indices.shape, x.shape[-1]), x.dtype)  # [T, k, d]
    visits = []
    for number in np.unique(routing.indices):
        token, slot = np.nonzero(routing.indices == number)
        weight = routing.weights[token, slot]
        outputs[token, slot], pull_expert = one_expert(x[token], weight, expert_list[number], limit, round_inputs)
        visits.append((number, token, slot, pull_expert))

    def pull(d_result: Array) -> ExpertsGradients:
        d_inputs = np.zeros((*routing.indices.shape, x.shape[-1]), x.dtype)  # [T, k, d]
        d_weights = np.zeros_like(routing.weights)
        d_expert_list: list[Expert | None] = [None] * len(expert_list)
        for number, token, slot, pull_expert in visits:
            d_inputs[token, slot], d_weights[token, slot], d_expert_list[number] = pull_expert(d_result[token])
        return ExpertsGradients(d_inputs.sum(axis=1), d_weights, d_expert_list)

    return outputs.sum(axis=1), pull


def expert(
    x: Array, weight: Array, matrices: Expert, limit: float, round_inputs: bool, rounded: Rounded = not_rounded
) -> tuple[Array, Callable[[Array], ExpertGradients]]:
    """`ops.expert` with dense matrices, y = w2 (weight · h) with h = SwiGLU(w1 x, w3 x), and its pullback.

    With g the gradient of weight · h, from the product with w2:

        d_weight = g · h        d_h = weight · g        d_gate, d_up = swiglu's pullback of d_h
        d_x = w1ᵀ d_gate + w3ᵀ d_up

    x [T, d]; weight [T]; rounded: what round_inputs does to x and to weight · h, nothing unless said, since the
    matrices are dense. Source: report §2.1.
    """
    prepare = rounded if round_inputs else not_rounded
    given = prepare(x)
    of_dtype = weight.astype(x.dtype, copy=False)[:, None]
    w1, w2, w3 = cast(tuple[Array, Array, Array], matrices)
    gate, pull_gate = linear(given, w1)
    up, pull_up = linear(given, w3)
    hidden, pull_hidden = swiglu(gate, up, limit)
    down = w2.astype(x.dtype, copy=False)

    def pull(d_result: Array) -> ExpertGradients:
        d_weighted = d_result @ down
        d_w2 = (d_result.T @ prepare(of_dtype * hidden)).astype(w2.dtype, copy=False)
        d_weight = np.einsum("tw,tw->t", d_weighted, hidden).astype(weight.dtype, copy=False)
        d_gate, d_up = pull_hidden(of_dtype * d_weighted)
        through_gate, d_w1 = pull_gate(d_gate)
        through_up, d_w3 = pull_up(d_up)
        return ExpertGradients(through_gate + through_up, d_weight, Expert(d_w1, d_w2, d_w3))

    return prepare(of_dtype * hidden) @ down.T, pull


def swiglu(gate: Array, up: Array, limit: float) -> tuple[Array, Callable[[Array], tuple[Array, Array]]]:
    """`ops.moe.swiglu`, h = a σ(a) b with a = min(gate, limit) and b = up clipped to ±limit, and its pullback.

        d_gate = d_h · b · σ(a) (1 + a (1 − σ(a))) where gate ≤ limit, else 0
        d_up   = d_h · a σ(a) where |up| ≤ limit, else 0

    gate, up [..., width]. Source: report §4.2.3.
    """
    share = sigmoid(np.minimum(gate, limit))

    def pull(d_hidden: Array) -> tuple[Array, Array]:
        silu = np.minimum(gate, limit) * share
        slope = share + silu * (1 - share)
        d_gate = np.where(gate <= limit, d_hidden * np.clip(up, -limit, limit) * slope, 0)
        return d_gate, np.where(np.abs(up) <= limit, d_hidden * silu, 0)

    return np.minimum(gate, limit) * share * np.clip(up, -limit, limit), pull
