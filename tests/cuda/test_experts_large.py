"""Routing and experts where there are many of them: what the examples of tests/ops are too small to reach."""

import numpy as np
import pytest

from backends import CUDA_ON_HOST, Caller, create_backend
from cuda.host_build import compiler
from dsv4.ops import Ops
from verdicts import as_good, exact

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler")


@pytest.fixture(scope="module")
def ops():
    return Caller(create_backend(CUDA_ON_HOST))


def numbers(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("score_function", ["sqrtsoftplus", "sigmoid", "softmax"])
@pytest.mark.parametrize(("tokens", "count", "k"), [(1, 256, 6), (5, 384, 8), (3, 33, 33), (2, 700, 40)])
def test_routes_among_many_experts(ops, score_function, tokens, count, k):
    """384 and 33 fill no warp, 40 are more than it has lanes, 700 are more than fit where the ranks mostly lie."""
    logits, bias = numbers(1, tokens, count) * 3, numbers(2, count) * np.float32(0.1)
    found, expected = (one.route(logits, bias, k, score_function, 1.5) for one in (ops, Ops))
    exact(found.indices, expected.indices)
    truth = Ops.route_by_id(logits.astype(np.float64), expected.indices, score_function, 1.5).weights
    as_good(found.weights, truth, expected.weights)
    exact(ops.route_by_id(logits, found.indices, score_function, 1.5).weights, found.weights)
    for token in range(tokens):
        alone = ops.route(logits[token : token + 1], bias, k, score_function, 1.5)
        exact(alone.weights[0], found.weights[token])


@pytest.mark.parametrize("count", [300, 600])
def test_ties_and_numbers_that_are_none(ops, count):
    """Infinity is the best, NaN comes last, and zeros are above all that is negative: the order of NumPy's sort."""
    bias = np.where(np.arange(count) % 3, np.float32(-0.5), np.float32(-0.7))
    logits = np.zeros((3, count), np.float32)  # sigmoid(0) − 0.5 is 0
    bias[[7, 8, 200]] = -np.inf, np.nan, np.inf
    logits[1, [100, 5]], logits[2] = (np.nan, np.inf), np.nan
    found, expected = (one.route(logits, bias, count, "sigmoid", 1.0) for one in (ops, Ops))
    exact(found.indices, expected.indices)
    exact(np.isnan(found.weights), np.isnan(expected.weights))


def test_a_table_that_names_no_expert_is_noted(ops):
    with pytest.raises(ValueError, match=r"experts: numbers must lie in 0 … 3, found 4"):
        ops.route_by_id(np.zeros((2, 4), np.float32), np.array([[0, 1], [4, 2]]), "sigmoid", 1.0)
