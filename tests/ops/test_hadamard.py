"""The Walsh–Hadamard rotation against the recursion that defines Sylvester's order, and the official outputs."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4.ops.hadamard import sylvester
from ops.naive import golden
from strategies import normal, sizes
from verdicts import close, exact, hold

orders = st.integers(0, 7).map(lambda power: 2**power)


def recursive(order):
    """H(1) = [1]; H(2n) = [[H, H], [H, −H]]."""
    if order == 1:
        return np.ones((1, 1))
    half = recursive(order // 2)
    return np.block([[half, half], [half, -half]])


@pytest.mark.parametrize("order", [1, 2, 4, 8, 128])
def test_the_order_is_sylvesters(ops, order):
    exact(sylvester(order), recursive(order).astype(np.float32))
    close(ops.hadamard(np.eye(order)), recursive(order) / math.sqrt(order))


@given(data=st.data(), leading=st.lists(sizes(0, 3), max_size=3), order=orders)
def test_hadamard_is_the_product_with_the_matrix(ops, data, leading, order):
    x = data.draw(normal(*leading, order))
    largest = 4 * math.sqrt(order)
    hold(ops, "hadamard", lambda x: x @ recursive(order) / math.sqrt(order), x, magnitude=largest)


def test_hadamard_is_that_of_the_official_code(ops):
    x, expected = golden()["hadamard.in"], golden()["hadamard.out"]
    limit = 1e-6 * np.abs(expected).max(axis=-1, keepdims=True)
    assert (np.abs(ops.hadamard(x) - expected) <= limit).all()


@given(data=st.data(), order=orders)
def test_hadamard_is_its_own_inverse_and_keeps_products(ops, data, order):
    x = data.draw(normal(2, order)).astype(np.float64)
    rotated = ops.hadamard(x)
    close(ops.hadamard(rotated), x)
    close(rotated @ rotated.T, x @ x.T, magnitude=(x * x).sum())


def test_an_outlier_is_spread_over_all_channels(ops):
    x = np.zeros((1, 64))
    x[0, 5] = 8
    exact(np.abs(ops.hadamard(x)), np.ones((1, 64)))


@pytest.mark.parametrize("width", [0, 3, 6, 12, 96, 127])
def test_other_widths_are_refused(ops, width):
    with pytest.raises(ValueError, match=f"power of two, found {width}"):
        ops.hadamard(np.ones((2, width), np.float32))
