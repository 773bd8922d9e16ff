"""Mixture of experts: routing by score or by token id, and the experts (report §2.1)."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from dsv4.ops.elementwise import sigmoid, softplus
from dsv4.ops.linear import linear, linears
from dsv4.ops.quantise import Weight
from dsv4.ops.types import Array, Ints


class Expert(NamedTuple):
    """One SwiGLU expert: w1 the gate [width, d], w2 down [d, width], w3 up [width, d]."""

    w1: Weight
    w2: Weight
    w3: Weight


class Routing(NamedTuple):
    """Which experts each token visits, and how much each counts."""

    weights: Array
    """[T, k] float: they sum to the routing scale, except under the softmax score function."""
    indices: Ints
    """[T, k] int64 expert numbers."""


def route(logits: Array, bias: Array, k: int, score_function: str, scale: float) -> Routing:
    """The k experts with the best biased score; their weights come from the scores without the bias.

    logits [T, E] float; bias [E] float32; score_function "sqrtsoftplus", "sigmoid" or "softmax"; scale: the routed
    scaling factor. Returns Routing with the best expert first; among equal scores the lowest number comes first.
    Raises ValueError for an unknown score function, or a k or bias that does not fit. Source: report §2.1; code: Gate.
    """
    count = logits.shape[-1]
    if not 1 <= k <= count or bias.shape != (count,):
        raise ValueError(f"route: k = {k} must lie in 1 … {count}, and the bias {bias.shape} have {count} numbers")
    scores = expert_scores(logits, score_function)
    order = np.argsort(-(scores + bias.astype(scores.dtype)), axis=-1, kind="stable")
    return _weigh(scores, order[:, :k], score_function, scale)


def route_by_id(logits: Array, indices: Ints, score_function: str, scale: float) -> Routing:
    """The experts that a table gives for the token id; the weights come from the scores of those experts.

    logits [T, E] float; indices [T, k]: the rows of tid2eid for the tokens. Returns Routing in the table's order.
    Source: report §2.1, hash routing; code: a stored table instead of a hash function.
    """
    return _weigh(expert_scores(logits, score_function), indices.astype(np.int64), score_function, scale)


def expert_scores(logits: Array, score_function: str) -> Array:
    """The score of each expert: sqrt(softplus(·)), sigmoid(·) or softmax(·) of the gate's logits.

    logits [T, E] float. Returns the same shape and dtype. Raises ValueError for another score function.
    Source: report §2.1; code: Gate.
    """
    match score_function:
        case "sqrtsoftplus":
            return np.sqrt(softplus(logits))
        case "sigmoid":
            return sigmoid(logits)
        case "softmax":
            exponential = np.exp(logits - logits.max(axis=-1, keepdims=True))
            share: Array = exponential / exponential.sum(axis=-1, keepdims=True)
            return share
    raise ValueError(f'expert_scores: expected "sqrtsoftplus", "sigmoid" or "softmax", found "{score_function}"')


def experts(x: Array, routing: Routing, expert_list: Sequence[Expert], limit: float, round_inputs: bool) -> Array:
    """The weighted sum of each token's experts.

    x [T, d] float; routing for the T tokens; expert_list: E experts, of which only the chosen are touched; limit and
    round_inputs as for `expert`. Returns [T, d] of x's dtype. Raises ValueError where the routing is not for T tokens
    or names an expert that does not exist. Source: report §2.1; code: MoE.
    """
    return mixture(x, routing, expert_list, lambda tokens, share, one: expert(tokens, share, one, limit, round_inputs))


def mixture(
    x: Array, routing: Routing, expert_list: Sequence[Expert], compute: Callable[[Array, Array, Expert], Array]
) -> Array:
    """The sum of what each token's experts make of it, as `experts`.

    compute: from some tokens [M, d], their shares [M] and an expert to [M, d].
    """
    indices, count = routing.indices, len(expert_list)
    if len(indices) != len(x) or routing.weights.shape != indices.shape:
        raise ValueError(f"experts: routing {routing.weights.shape}, {indices.shape} is not for {len(x)} tokens")
    if indices.size and not 0 <= indices.min() <= indices.max() < count:
        raise ValueError(f"experts: numbers must lie in 0 … {count - 1}, found {indices.min()} … {indices.max()}")
    outputs = np.zeros_like(x, shape=(*routing.indices.shape, x.shape[-1]))  # [T, k, d]
    for number in np.unique(routing.indices):
        token, slot = np.nonzero(routing.indices == number)
        share = routing.weights[token, slot]
        outputs[token, slot] = compute(x[token], share, expert_list[number])
    total: Array = outputs.sum(axis=1)
    return total


def expert(x: Array, share: Array, matrices: Expert, limit: float, round_inputs: bool) -> Array:
    """One expert on some tokens: w2 @ (share · SwiGLU(w1 @ x, w3 @ x)).

    x [T, d] float; share [T]: the routing weights, ones for a shared expert; limit: the clamp of `swiglu`;
    round_inputs: as for `linear`, in each product. Returns [T, d] of x's dtype. Source: report §2.1; code: Expert,
    where the share joins before w2's input is rounded.
    """
    gate, up = linears(x, (matrices.w1, matrices.w3), round_inputs)
    hidden = share.astype(x.dtype)[:, None] * swiglu(gate, up, limit)
    return linear(hidden, matrices.w2, round_inputs)


def swiglu(gate: Array, up: Array, limit: float) -> Array:
    """silu(gate) · up, with up clipped to ±limit and gate clipped above only.

    gate, up [..., width] float. Returns the same shape and dtype. Source: report §4.2.3; code: Expert, and since its
    correction also for the shared expert.
    """
    gate = np.minimum(gate, limit)
    return gate * sigmoid(gate) * np.clip(up, -limit, limit)


def _weigh(scores: Array, indices: Ints, score_function: str, scale: float) -> Routing:
    weights = np.take_along_axis(scores, indices, axis=-1)
    if score_function != "softmax":
        weights = weights / weights.sum(axis=-1, keepdims=True)
    return Routing(weights * scores.dtype.type(scale), indices)
