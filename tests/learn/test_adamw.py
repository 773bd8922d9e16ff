"""AdamW by hand: what its first steps are, and its decay."""

import numpy as np
import pytest

from dsv4.learn.adamw import adamw_step


def steps(weight, gradients, rate=0.01):
    """The weight after a step for each gradient."""
    first = second = np.zeros_like(weight)
    for number, gradient in enumerate(gradients, start=1):
        weight, first, second = adamw_step(weight, gradient, first, second, number, rate)
    return weight


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e12])
def test_the_first_step_goes_by_the_learning_rate_whatever_the_size_of_the_gradient(size):
    """m/(1 − β₁) is the gradient, √(v/(1 − β₂)) its magnitude."""
    found = steps(np.array([2.0, 2.0]), [np.array([size, -size])])
    np.testing.assert_allclose(found, 2 * (1 - 0.01 * 0.1) - 0.01 * np.array([1, -1]), rtol=1e-12)


def test_two_steps_by_hand():
    """m = .1 · (.9 · 3 − 1), v = .05 · (.95 · 9 + 1), over 1 − .81 and 1 − .9025."""
    found = steps(np.array([0.0]), [np.array([3.0]), np.array([-1.0])])
    first = -0.01 * (1 - 0.01 * 0.1)
    second = 0.01 * (0.17 / 0.19) / np.sqrt(0.4775 / 0.0975)
    np.testing.assert_allclose(found, first - second, rtol=1e-12)


def test_without_a_gradient_a_weight_only_decays():
    weight = np.array([1.5, -2.0], np.float32)
    found = steps(weight, [np.zeros_like(weight)])
    np.testing.assert_array_equal(found, weight * np.float32(1 - 0.01 * 0.1))
    assert found.dtype == np.float32


def test_a_step_writes_to_nothing():
    arrays = [np.arange(1.0, 4.0) + offset for offset in range(4)]
    copies = [array.copy() for array in arrays]
    adamw_step(*arrays, 3, 0.1)
    for array, copy in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(array, copy)
