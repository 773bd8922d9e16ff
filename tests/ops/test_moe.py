"""Routing and experts, compared with formulas written out token by token, and with hand examples of each clamp."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dsv4.ops import Expert, Ops, Routing, dequantise
from dsv4.ops.moe import swiglu
from dsv4.ops.quantise import quantise_fp4, quantise_fp8
from ops.naive import FP8, fake_quant, matrix_vector, sigmoid
from strategies import generators, laid_out, normal, sizes
from verdicts import as_good, close, exact, hold, in_dtype

every_score_function = pytest.mark.parametrize("score_function", ["sqrtsoftplus", "sigmoid", "softmax"])
NO_CLAMP = 1e9


def naive_scores(logits, score_function):
    match score_function:
        case "sqrtsoftplus":
            return [math.sqrt(math.log1p(math.exp(logit))) for logit in logits]
        case "sigmoid":
            return [sigmoid(logit) for logit in logits]
    return [math.exp(logit) / sum(map(math.exp, logits)) for logit in logits]


def naive_routing(logits, bias, k, score_function, scale):
    chosen = np.zeros((len(logits), k), np.int64)
    for token, row in enumerate(logits):
        biased = [score + shift for score, shift in zip(naive_scores(row, score_function), bias, strict=True)]
        chosen[token] = sorted(range(len(biased)), key=lambda expert: (-biased[expert], expert))[:k]
    return Routing(naive_routing_weights(logits, chosen, score_function, scale), chosen)


def naive_routing_weights(logits, chosen, score_function, scale):
    weights = np.zeros(chosen.shape)
    for token, experts in enumerate(chosen):
        scores = [naive_scores(logits[token], score_function)[expert] for expert in experts]
        total = 1.0 if score_function == "softmax" else sum(scores)
        weights[token] = [score / total * scale for score in scores]
    return weights


def hold_routing(ops, operation, truth, *arguments):
    """The same experts, and weights as good as NumPy's."""
    for dtype in (np.float64, np.float32):
        found = getattr(ops, operation)(*in_dtype(arguments, dtype))
        exact(found.indices, truth.indices)
        assert found.weights.dtype == dtype
        baseline = getattr(Ops, operation)(*in_dtype(arguments, dtype)).weights
        close(baseline, truth.weights)
        if dtype == np.float64:
            close(found.weights, truth.weights)
        else:
            as_good(found.weights, truth.weights, baseline)


@every_score_function
@given(data=st.data(), tokens=sizes(), count=sizes(1, 9), scale=st.sampled_from([1.0, 1.5, 2.5]))
def test_route_takes_the_best_by_biased_score(ops, score_function, data, tokens, count, scale):
    logits, bias = data.draw(normal(tokens, count, scale=3)), data.draw(normal(count, scale=0.5))
    k = data.draw(sizes(1, count))
    biased = np.array([naive_scores(row, score_function) for row in logits.astype(float)]).reshape(tokens, count) + bias
    assume(np.diff(np.sort(biased), axis=-1).min(initial=1) > 1e-5)  # or float32 may well choose another
    arguments = logits, bias, k, score_function, scale
    hold_routing(ops, "route", naive_routing(*in_dtype(arguments, np.float64)), *arguments)


@every_score_function
@given(data=st.data(), tokens=sizes(), count=sizes(1, 6), k=sizes(1, 4))
def test_route_by_id_takes_the_experts_of_the_table(ops, score_function, data, tokens, count, k):
    logits = data.draw(normal(tokens, count, scale=3))
    table_rows = data.draw(laid_out(data.draw(generators).integers(0, count, (tokens, k))))
    weights = naive_routing_weights(logits.astype(np.float64), table_rows, score_function, 1.5)
    hold_routing(
        ops, "route_by_id", Routing(weights, table_rows.astype(np.int64)), logits, table_rows, score_function, 1.5
    )


@every_score_function
def test_the_bias_chooses_and_does_not_weigh(ops, score_function):
    logits, bias = np.array([[3.0, 2.0, 1.0, 0.0]]), np.array([0.0, 0.0, 0.0, 100.0])
    plain = ops.route(logits, np.zeros(4), 2, score_function, 1.0)
    biased = ops.route(logits, bias, 2, score_function, 1.0)
    exact(plain.indices, np.array([[0, 1]]))
    exact(biased.indices, np.array([[3, 0]]))
    close(biased.weights, naive_routing_weights(logits, biased.indices, score_function, 1.0))


@pytest.mark.parametrize("scale", [1.0, 2.5])
@pytest.mark.parametrize("k", [1, 6])
def test_weights_sum_to_the_routing_scale_except_under_softmax(ops, scale, k):
    logits = np.random.default_rng(k).standard_normal((20, 8))
    for score_function in ("sqrtsoftplus", "sigmoid"):
        weights = ops.route(logits, np.zeros(8), k, score_function, scale).weights
        close(weights.sum(axis=-1), np.full(20, scale))
    shares = ops.route(logits, np.zeros(8), k, "softmax", scale).weights
    assert (shares.sum(axis=-1) < 0.999 * scale).all()


def test_among_equal_scores_the_lowest_number_comes_first(ops):
    found = ops.route(np.array([[1.0, 2, 1, 2, 1]], np.float32), np.zeros(5, np.float32), 4, "sigmoid", 1.0)
    exact(found.indices, np.array([[1, 3, 0, 2]]))
    many = ops.route(np.zeros((3, 256), np.float32), np.zeros(256, np.float32), 6, "sqrtsoftplus", 1.5)
    exact(many.indices, np.tile(np.arange(6), (3, 1)))
    close(many.weights, np.full((3, 6), 0.25))


@pytest.mark.parametrize(
    ("score_function", "expected"),
    [
        ("sqrtsoftplus", [1 / (1 + math.sqrt(0.999)), 1 / (1 + math.sqrt(1 / 0.999))]),
        ("sigmoid", [0.5, 0.5]),
        ("softmax", [1 / (1 + math.exp(-1)), 1 / (1 + math.exp(1))]),
    ],
)
def test_large_logits_do_not_overflow(ops, score_function, expected):
    logits, chosen = np.array([[1000, 999, -1000]], np.float32), np.array([[0, 1]])
    for found in (
        ops.route(logits, np.array([2, 1, 0], np.float32), 2, score_function, 1.0),
        ops.route_by_id(logits, chosen, score_function, 1.0),
    ):
        exact(found.indices, chosen)
        close(found.weights, np.array([expected]))


def test_an_unknown_score_function_is_refused(ops):
    for route, second in ((ops.route, np.zeros(2)), (ops.route_by_id, np.zeros((1, 1), np.int64))):
        arguments = (second, 1) if second.ndim == 1 else (second,)
        with pytest.raises(ValueError, match=r'expected "sqrtsoftplus".*found "relu"'):
            route(np.zeros((1, 2)), *arguments, "relu", 1.0)


def naive_expert(x, weight, matrices, limit, round_input=lambda vector: vector):
    """One token's way through one expert."""
    w1, w2, w3 = (dequantise(matrix, np.float64) for matrix in matrices)
    seen = round_input(x)
    hidden = []
    for gate, up in zip(matrix_vector(w1, seen), matrix_vector(w3, seen), strict=True):
        gate, up = min(gate, limit), max(min(up, limit), -limit)
        hidden.append(gate * sigmoid(gate) * up * weight)
    return matrix_vector(w2, round_input(np.array(hidden)))


def naive_experts(x, routing, expert_list, limit, round_inputs):
    result = np.zeros(x.shape)
    for token, (weights, chosen) in enumerate(zip(*routing, strict=True)):
        for weight, number in zip(weights, chosen, strict=True):
            rounding = round_to_fp8 if round_inputs else lambda vector: vector
            result[token] += naive_expert(x[token], weight, expert_list[number], limit, rounding)
    return result


def round_to_fp8(vector):
    return fake_quant(vector[None], 128, FP8)[0]


@st.composite
def expert_inputs(draw, d, width, count, store=lambda matrix: matrix):
    """Tokens, their routing (an expert may come twice), and experts."""
    tokens, k = draw(sizes()), draw(sizes(1, 3))
    indices = draw(laid_out(draw(generators).integers(0, count, (tokens, k))))
    shapes = (width, d), (d, width), (width, d)
    experts = [Expert(*(store(draw(normal(*shape, scale=0.5))) for shape in shapes)) for _ in range(count)]
    return draw(normal(tokens, d, scale=3)), Routing(draw(normal(tokens, k)), indices), experts


@given(data=st.data(), d=sizes(1, 6), width=sizes(1, 6), limit=st.sampled_from([0.5, 2.0, 10.0, NO_CLAMP]))
def test_experts_are_the_weighted_sum_of_each_tokens_experts(ops, data, d, width, limit):
    x, routing, experts = data.draw(expert_inputs(d, width, 4))
    hold(ops, "experts", naive_experts, x, routing, experts, limit, False, magnitude=100)


@given(data=st.data(), tokens=sizes(), limit=st.sampled_from([0.5, 2.0, NO_CLAMP]))
def test_one_expert_serves_all_its_tokens(ops, data, tokens, limit):
    _, _, [matrices] = data.draw(expert_inputs(5, 7, 1))
    x, weights = data.draw(normal(tokens, 5, scale=3)), data.draw(normal(tokens))

    def naive(x, weights, matrices, limit, _):
        result = np.zeros(x.shape)
        for token in range(len(x)):
            result[token] = naive_expert(x[token], weights[token], matrices, limit)
        return result

    hold(ops, "expert", naive, x, weights, matrices, limit, False, magnitude=100)


@pytest.mark.parametrize("round_inputs", [False, True])
@pytest.mark.parametrize("store", [quantise_fp4, quantise_fp8])
@pytest.mark.parametrize("seed", range(4))
def test_stored_experts(ops, store, round_inputs, seed):
    """In float64, where no rounding of an input is close enough to a tie to fall the other way."""
    generator = np.random.default_rng(seed)
    shapes = (160, 32), (32, 160), (160, 32)
    experts = [Expert(*(store(generator.standard_normal(shape).astype(np.float32)) for shape in shapes))] * 2
    x, indices = generator.standard_normal((3, 32)), generator.integers(0, 2, (3, 2))
    arguments = x, Routing(generator.uniform(0.1, 1, (3, 2)), indices), experts, 10.0
    truth = naive_experts(*arguments, round_inputs)
    assert np.abs(truth - naive_experts(*arguments, not round_inputs)).max() > 0.01 * np.abs(truth).max()
    close(ops.experts(*arguments, round_inputs), truth)


def test_the_routing_weight_joins_before_the_rounding_of_w2s_input(ops):
    """The hidden numbers are 448 and 448 · 3/64 = 21; times 0.75 they are 336 and 15.75, which FP8 rounds to 16."""
    x, weight = np.array([[1.0]]), np.array([0.75])
    dense = np.array([[448.0], [448.0]]), np.eye(2)[1:], np.array([[1.0], [3 / 64]])
    matrices = Expert(*map(quantise_fp8, dense))  # exactly: FP8 has these numbers
    after = 0.75 * 20  # 21 is a tie and becomes 20
    before = 16.0  # at scale 1, neighbours of 15.75 are 15 and 16
    found = ops.expert(x, weight, matrices, NO_CLAMP, True)
    close(found, np.array([[before]]))
    assert abs(before - after) > 0.5
    close(ops.expert(x, weight, matrices, NO_CLAMP, False), np.array([[15.75]]))


def test_only_the_inputs_of_stored_matrices_are_rounded(ops):
    """Each matrix by itself: here w2 alone is in FP8, so the hidden 15.75 is rounded and x = 1.03 is not."""
    x, weight = np.array([[1.03]]), np.array([0.75])
    dense = Expert(np.array([[448.0], [448.0]]), np.eye(2)[1:], np.array([[1.0], [3 / 64]]) / 1.03**2)
    close(ops.expert(x, weight, dense, NO_CLAMP, True), np.array([[15.75]]))
    close(ops.expert(x, weight, dense._replace(w2=quantise_fp8(dense.w2)), NO_CLAMP, True), np.array([[16.0]]))


@pytest.mark.parametrize(
    ("gate", "up", "expected"),
    [
        (30, 2, 10 / (1 + math.exp(-10)) * 2),  # the gate is clipped above
        (-30, 2, -30 / (1 + math.exp(30)) * 2),  # and not below: a lower clamp would give −9e-4
        (-10.5, 2, -10.5 / (1 + math.exp(10.5)) * 2),
        (1, 30, 1 / (1 + math.exp(-1)) * 10),  # up is clipped above
        (1, -30, 1 / (1 + math.exp(-1)) * -10),  # and below
        (9.5, -9.5, 9.5 / (1 + math.exp(-9.5)) * -9.5),  # nothing within the limit is touched
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_each_clamp_by_hand(ops, gate, up, expected, dtype):
    """In `expert`, as the shared expert runs, and in `experts`, as the routed ones do."""
    matrices = Expert(*(np.array([[value]], dtype) for value in (gate, 1.0, up)))
    x, truth = np.ones((1, 1), dtype), np.array([[expected]])
    close(swiglu(gate * x, up * x, 10.0), truth)
    close(ops.expert(x, x[0], matrices, 10.0, False), truth)
    close(ops.experts(x, Routing(x, np.array([[0]])), [matrices], 10.0, False), truth)


def test_the_limit_is_the_callers(ops):
    matrices = Expert(*(np.array([[value]]) for value in (30.0, 1.0, 30.0)))
    for limit in (0.5, 7.0, 100.0):
        clipped = min(30.0, limit)
        found = ops.expert(np.ones((1, 1)), np.ones(1), matrices, limit, False)
        close(found, np.array([[clipped * clipped * sigmoid(clipped)]]))


class OnlyTheChosen(Sequence):
    """Experts of which some must not be looked at."""

    def __init__(self, experts, chosen):
        self.experts, self.chosen = experts, chosen

    def __len__(self):
        return len(self.experts)

    def __getitem__(self, number):
        assert number in self.chosen, f"expert {number} was touched and not chosen"
        return self.experts[number]


@pytest.mark.parametrize("round_inputs", [False, True])
def test_experts_that_nobody_chose_are_never_touched(ops, round_inputs):
    generator = np.random.default_rng(2)
    shapes = (4, 3), (3, 4), (4, 3)
    store = quantise_fp8 if round_inputs else np.asarray
    experts = [Expert(*(store(generator.standard_normal(shape)) for shape in shapes)) for _ in range(8)]
    routing = Routing(generator.uniform(size=(3, 2)), np.array([[6, 1], [1, 1], [3, 6]]))
    lazy, x = OnlyTheChosen(ops.place(experts), {1, 3, 6}), generator.standard_normal((3, 3))
    found = ops.experts(x, routing, lazy, 10.0, round_inputs)
    close(found, naive_experts(x, routing, experts, 10.0, round_inputs))
    nobody = Routing(np.zeros((0, 2)), np.zeros((0, 2), np.int64))
    exact(ops.experts(x[:0], nobody, OnlyTheChosen(experts, set()), 10.0, round_inputs), np.zeros((0, 3)))


@pytest.mark.parametrize(
    ("numbers", "weights", "message"),
    [
        ([[1]], [[0.5]], r"numbers must lie in 0 … 0, found 1 … 1"),
        ([[-1]], [[0.5]], r"numbers must lie in 0 … 0, found -1 … -1"),
        ([[0], [0]], [[0.5], [0.5]], "is not for 1 tokens"),
        ([[0]], [[0.5, 0.5]], "is not for 1 tokens"),
    ],
)
def test_a_routing_must_fit_the_tokens_and_the_experts(ops, numbers, weights, message):
    matrices = Expert(*(np.ones((1, 1)),) * 3)
    routing = Routing(np.array(weights), np.array(numbers, np.int64))
    with pytest.raises(ValueError, match=message):
        ops.experts(np.ones((1, 1)), routing, [matrices], 10.0, False)


@pytest.mark.parametrize(("k", "biases"), [(0, 4), (5, 4), (2, 1), (2, 5)])
def test_k_and_bias_must_fit_the_experts(ops, k, biases):
    with pytest.raises(ValueError, match="route: k ="):
        ops.route(np.zeros((1, 4)), np.zeros(biases), k, "sigmoid", 1.0)


def test_the_table_may_hold_small_integers(ops):
    routing = ops.route_by_id(np.zeros((1, 4)), np.array([[3, 1]], np.int32), "sigmoid", 1.0)
    exact(routing.indices, np.array([[3, 1]], np.int64))
