"""Muon, compared with the singular value decomposition and with arithmetic with single numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4.learn.muon import muon_step, newton_schulz
from strategies import normal, sizes


def on_a_number(value):
    """What the ten steps make of one singular value, in the report's own coefficients."""
    for step in range(10):
        a, b, c = (3.4445, -4.7750, 2.0315) if step < 8 else (2, -1.5, 0.5)
        value = a * value + b * value**3 + c * value**5
    return value


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-9), (np.float32, 2e-4)])
@given(data=st.data(), rows=sizes(1, 9), columns=sizes(1, 9))
def test_singular_values_go_through_the_polynomials_and_vectors_stay(dtype, tolerance, data, rows, columns):
    matrix = data.draw(normal(rows, columns)).astype(np.float64)
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    values /= np.sqrt(np.sum(values**2)) or 1
    found = newton_schulz(matrix.astype(dtype))
    assert found.dtype == dtype
    np.testing.assert_allclose(found, left * on_a_number(values) @ right, rtol=0, atol=tolerance)


def test_ordinary_singular_values_become_one():
    matrix = np.random.default_rng(0).standard_normal((40, 100))
    values = np.linalg.svd(newton_schulz(matrix), compute_uv=False)
    np.testing.assert_allclose(values, 1, rtol=0, atol=0.02)


def test_each_matrix_of_a_stack_is_by_itself():
    stack = np.random.default_rng(1).standard_normal((3, 5, 4)) * [[[1]], [[1e-3]], [[50]]]
    for one, together in zip(stack, newton_schulz(stack), strict=True):
        np.testing.assert_allclose(newton_schulz(one), together, rtol=1e-12)


@pytest.mark.parametrize("exponent", [-140, -75, -70, 64, 120])
def test_a_matrix_of_any_size_has_the_same_direction(exponent):
    """Squares of such numbers in float32 are 0, have lost their digits, or are infinite."""
    matrix = np.random.default_rng(2).integers(-4, 5, (6, 9)).astype(np.float32)
    found = newton_schulz(np.ldexp(matrix, exponent))
    np.testing.assert_array_equal(found, newton_schulz(matrix))


def test_zeros_stay_zeros():
    assert not newton_schulz(np.zeros((3, 4), np.float32)).any()


def step_by_hand(weight, gradients, rate):
    """Algorithm 1 for one matrix in float64, with the singular value decomposition in place of the iteration."""
    momentum = np.zeros_like(weight)
    for gradient in gradients:
        momentum = 0.95 * momentum + gradient
        left, values, right = np.linalg.svd(0.95 * momentum + gradient, full_matrices=False)
        direction = left * on_a_number(values / np.sqrt(np.sum(values**2))) @ right
        weight = weight * (1 - 0.1 * rate) - rate * 0.18 * np.sqrt(max(weight.shape)) * direction
    return weight, momentum


@given(data=st.data(), rows=sizes(1, 7), columns=sizes(1, 7), steps=sizes(1, 4))
def test_steps_are_algorithm_1(data, rows, columns, steps):
    weight = data.draw(normal(rows, columns)).astype(np.float64)
    gradients = [data.draw(normal(rows, columns)).astype(np.float64) for _ in range(steps)]
    found, momentum = weight, np.zeros_like(weight)
    for gradient in gradients:
        found, momentum = muon_step(found, gradient, momentum, 0.02)
    expected = step_by_hand(weight, gradients, 0.02)
    np.testing.assert_allclose(found, expected[0], rtol=0, atol=1e-9)
    np.testing.assert_allclose(momentum, expected[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(48, 48), (16, 96), (96, 16)])
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_an_update_of_full_rank_has_a_root_mean_square_of_018(shape, size):
    """Whatever the shape, and whatever the size of the gradients."""
    generator = np.random.default_rng(3)
    left, _, right = np.linalg.svd(generator.standard_normal(shape), full_matrices=False)
    gradient = size * left * generator.uniform(1, 2, min(shape)) @ right
    zeros = np.zeros(shape)
    moved = muon_step(zeros, gradient, zeros, 0.01).weight
    assert np.sqrt(np.mean(moved**2)) == pytest.approx(0.18 * 0.01, rel=2e-3)


def test_a_matrix_without_gradients_decays_and_does_not_move():
    weight = np.random.default_rng(4).standard_normal((4, 6)).astype(np.float32)
    zeros = np.zeros_like(weight)
    after = muon_step(weight, zeros, zeros, 0.02)
    np.testing.assert_array_equal(after.weight, weight * np.float32(1 - 0.02 * 0.1))
    np.testing.assert_array_equal(after.momentum, zeros)


def test_momentum_moves_on_without_a_gradient_and_at_full_speed():
    """The iteration does not see the size of the momentum: this is algorithm 1, and nothing to be mended here."""
    generator = np.random.default_rng(5)
    gradient, zeros = generator.standard_normal((5, 5)), np.zeros((5, 5))
    weight, momentum = muon_step(zeros, gradient, zeros, 0.01)
    first = weight
    for _ in range(20):
        before = weight
        weight, momentum = muon_step(weight, zeros, momentum, 0.01)
    np.testing.assert_allclose(weight - before * (1 - 0.01 * 0.1), first, rtol=1e-9)


def test_a_step_writes_to_nothing_and_keeps_the_dtype():
    arrays = [np.random.default_rng(seed).standard_normal((3, 4)).astype(np.float32) for seed in range(3)]
    copies = [array.copy() for array in arrays]
    assert {after.dtype for after in muon_step(*arrays, 0.1)} == {np.dtype(np.float32)}
    for array, copy in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(array, copy)
