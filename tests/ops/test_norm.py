"""RMSNorm, compared with its formula written out for one vector, and with its invariances."""

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import normal, sizes
from verdicts import close, exact, hold


def naive_rms_norm(x, weight, eps):
    result = np.zeros(x.shape)
    for row in np.ndindex(x.shape[:-1]):
        mean_square = sum(float(value) ** 2 for value in x[row]) / x.shape[-1]
        for i, value in enumerate(x[row]):
            result[row][i] = float(value) / math.sqrt(mean_square + eps) * float(weight[i])
    return result


@given(
    data=st.data(),
    leading=st.lists(sizes(0, 3), max_size=3),
    width=sizes(1, 33),
    scale=st.sampled_from([1e-15, 1e-3, 1, 1e15]),
    eps=st.sampled_from([1e-6, 1e-2]),
)
def test_both_norms_are_their_formula(ops, data, leading, width, scale, eps):
    x, weight = data.draw(normal(*leading, width, scale=scale)), data.draw(normal(width))
    hold(ops, "rms_norm", naive_rms_norm, x, weight, eps)
    hold(ops, "rms_scale", lambda x, eps: naive_rms_norm(x, np.ones(width), eps), x, eps)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_hand_example(ops, dtype):
    x = np.array([[3.0, 4.0, 0.0, 0.0]], dtype)  # mean square 25/4
    close(ops.rms_scale(x, 0.0), np.array([[1.2, 1.6, 0, 0]]))
    close(ops.rms_scale(x, 9.75), np.array([[0.75, 1, 0, 0]]))  # 25/4 + 9.75 = 16
    close(ops.rms_norm(x, np.array([2, -1, 5, 5], np.float32), 0.0), np.array([[2.4, -1.6, 0, 0]]))


@given(data=st.data(), factor=st.floats(0.01, 100))
def test_the_scale_of_the_input_does_not_matter(ops, data, factor):
    x = data.draw(normal(3, 16)).astype(np.float64)
    close(ops.rms_scale(x * factor, 0.0), ops.rms_scale(x, 0.0), roundings=1024)
    close(np.mean(ops.rms_scale(x, 0.0) ** 2, axis=-1), np.ones(3))


def test_zeros_stay_zeros(ops):
    exact(ops.rms_scale(np.zeros((2, 4), np.float32), 1e-6), np.zeros((2, 4), np.float32))


def test_a_bfloat16_weight_serves_in_the_precision_of_the_input(ops):
    x = np.random.default_rng(0).standard_normal((2, 8)).astype(np.float32)
    weight = np.linspace(-2, 2, 8).astype(ml_dtypes.bfloat16)
    exact(ops.rms_norm(x, weight, 1e-6), ops.rms_norm(x, weight.astype(np.float32), 1e-6))
    close(ops.rms_norm(x.astype(np.float64), weight, 1e-6), naive_rms_norm(x, weight, 1e-6))


@pytest.mark.parametrize("shape", [(1,), (3,), (5,), (4, 1)])
def test_the_weight_must_fit(ops, shape):
    with pytest.raises(ValueError, match=r"the weight must have shape \(4,\), found"):
        ops.rms_norm(np.ones((2, 4), np.float32), np.ones(shape, np.float32), 1e-6)
