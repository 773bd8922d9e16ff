"""Routing by score or by token id: mirrors the first half of dsv4.ops.moe."""

import numpy as np
from numba import prange, types

from dsv4.ops import moe as reference
from dsv4.ops.moe import Routing
from dsv4.ops.types import Array, Ints
from dsv4_accel.numba.arrays import are_float32, compact
from dsv4_accel.numba.compile import inlined, kernel, reads, writes
from dsv4_accel.numba.exponential import exp, sigmoid, softplus
from dsv4_accel.numba.memory import copy, load, store
from dsv4_accel.numba.vectors import LANES, lane_max, lane_sum, maximum, splat, square_root

SCORE_FUNCTIONS = {"sqrtsoftplus": 0, "sigmoid": 1, "softmax": 2}
"""By the numbers that kernels know them by."""

SIGMOID, SOFTMAX = SCORE_FUNCTIONS["sigmoid"], SCORE_FUNCTIONS["softmax"]

TOKENS_TOGETHER = 16
"""How many tokens a thread takes at a time."""

WORK_PER_LOGIT = 32
"""About how many multiply-adds the score of one expert takes."""


def route(logits: Array, bias: Array, k: int, score_function: str, scale: float) -> Routing:
    """As dsv4.ops.moe.route."""
    routing = routed(logits, bias, k, score_function, scale, 0.0, divides=True)
    return reference.route(logits, bias, k, score_function, scale) if routing is None else routing


def routed(
    logits: Array, bias: Array, k: int, score_function: str, scale: float, smallest: float, divides: bool
) -> Routing | None:
    """As `route`, or None for arguments that are left to the reference.

    smallest: added to the sum of the scores that weights are divided by; divides: whether they are, but under softmax.
    """
    fits = _fit(logits, score_function) and bias.shape == logits.shape[1:] and 1 <= k <= logits.shape[1]
    if not fits:
        return None
    routing = Routing(np.empty((len(logits), k), np.float32), np.empty((len(logits), k), np.int64))
    _route(
        WORK_PER_LOGIT * logits.size,
        compact(logits),
        compact(bias.astype(np.float32, copy=False)),
        SCORE_FUNCTIONS[score_function],
        scale,
        smallest,
        divides and score_function != "softmax",
        *routing,
    )
    return routing


def route_by_id(logits: Array, indices: Ints, score_function: str, scale: float) -> Routing:
    """As dsv4.ops.moe.route_by_id."""
    fits = _fit(logits, score_function) and indices.ndim == 2 and len(indices) == len(logits) and indices.size
    if not fits or indices.dtype.kind not in "iu":
        return reference.route_by_id(logits, indices, score_function, scale)
    routing = Routing(np.empty(indices.shape, np.float32), indices.astype(np.int64, order="C"))
    is_beyond = np.zeros(1, np.bool_)
    _route_by_id(
        WORK_PER_LOGIT * logits.size,
        compact(logits),
        SCORE_FUNCTIONS[score_function],
        scale,
        *routing,
        is_beyond,
    )
    if is_beyond[0]:  # the reference says what becomes of such a number
        return reference.route_by_id(logits, indices, score_function, scale)
    return routing


def _fit(logits: Array, score_function: str) -> bool:
    return are_float32(logits) and logits.ndim == 2 and logits.size > 0 and score_function in SCORE_FUNCTIONS


@kernel(
    reads(types.float32, 2),
    reads(types.float32, 1),
    types.int64,
    types.float32,
    types.float32,
    types.boolean,
    writes(types.float32, 2),
    writes(types.int64, 2),
)
def _route(logits, bias, score_function, scale, smallest, divides, weights, indices):
    """logits [T, E], bias [E] -> weights, indices [T, k]"""
    tokens, count = logits.shape
    for group in prange((tokens + TOKENS_TOGETHER - 1) // TOKENS_TOGETHER):
        scores, biased = _room(count), np.empty(count, np.float32)
        for token in range(group * TOKENS_TOGETHER, min((group + 1) * TOKENS_TOGETHER, tokens)):
            _score(logits[token], score_function, scores)
            for expert in range(count):
                biased[expert] = scores[expert] + bias[expert]
            _write_best(biased, indices[token])
            _weigh(scores, indices[token], scale, smallest, divides, weights[token])


@kernel(
    reads(types.float32, 2),
    types.int64,
    types.float32,
    writes(types.float32, 2),
    writes(types.int64, 2),
    writes(types.boolean, 1),
)
def _route_by_id(logits, score_function, scale, weights, indices, is_beyond):
    """logits [T, E], indices [T, k] -> weights [T, k]; is_beyond [1] becomes true where an index names no expert.

    The indices are only read; a type that both kernels share halves what is to be compiled.
    """
    tokens, count = logits.shape
    for group in prange((tokens + TOKENS_TOGETHER - 1) // TOKENS_TOGETHER):
        scores = _room(count)
        for token in range(group * TOKENS_TOGETHER, min((group + 1) * TOKENS_TOGETHER, tokens)):
            if _are_beyond(indices[token], count):
                is_beyond[0] = True
            else:
                _score(logits[token], score_function, scores)
                _weigh(scores, indices[token], scale, np.float32(0), score_function != SOFTMAX, weights[token])


@inlined
def _room(count):
    """Room for a score of each expert, up to whole vectors."""
    return np.empty((count + LANES - 1) // LANES * LANES, np.float32)


@inlined
def _are_beyond(indices, count):
    """Whether any of some indices names no expert."""
    found = False
    for place in range(indices.size):
        found = found or not 0 <= indices[place] < count
    return found


@inlined
def _score(logits, score_function, scores):
    """One token's scores. logits [E]; scores [whole vectors]: behind the experts' there are zeros"""
    copy(logits, scores)
    for expert in range(logits.size, scores.size):
        scores[expert] = -np.inf  # the logit of score 0
    if score_function == SOFTMAX:
        _softmax(scores)
        return
    for start in range(0, scores.size, LANES):
        numbers = load(scores, start)
        is_sigmoid = score_function == SIGMOID
        store(scores, start, sigmoid(numbers) if is_sigmoid else square_root(softplus(numbers)))


@inlined
def _softmax(logits):
    """In place. A NaN or an infinity makes all of them NaN, as it does in NumPy."""
    largest = splat(np.float32(-np.inf))
    for start in range(0, logits.size, LANES):
        largest = maximum(load(logits, start), largest)
    largest, total = splat(lane_max(largest)), splat(np.float32(0))
    for start in range(0, logits.size, LANES):
        exponentials = exp(load(logits, start) - largest)
        store(logits, start, exponentials)
        total = total + exponentials
    total = splat(lane_sum(total))
    for start in range(0, logits.size, LANES):
        store(logits, start, load(logits, start) / total)


@inlined
def _write_best(biased, chosen):
    """The experts with the best biased scores, best first; among equals the lowest number. biased [E], chosen [k]"""
    count = 0
    for expert in range(biased.size):
        if count < chosen.size:
            count += 1
        elif not _is_better(biased[expert], biased[chosen[count - 1]]):
            continue
        place = count - 1
        while place > 0 and _is_better(biased[expert], biased[chosen[place - 1]]):
            chosen[place] = chosen[place - 1]
            place -= 1
        chosen[place] = expert


@inlined
def _is_better(score, other):
    """Whether a score comes before that of a lower number. A NaN comes behind all numbers."""
    return score > other or (np.isnan(other) and not np.isnan(score))


@inlined
def _weigh(scores, indices, scale, smallest, divides, weights):
    """The weights of one token's experts. scores [≥ E], indices, weights [k]"""
    total = smallest
    for place in range(indices.size):
        weights[place] = scores[indices[place]]
        total += weights[place]
    for place in range(indices.size):
        share = weights[place] / total if divides else weights[place]
        weights[place] = share * scale
