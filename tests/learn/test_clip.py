"""The gradient norm is that of all gradients together, and clipping changes their length and nothing else."""

import numpy as np
import pytest

from dsv4.learn.clip import clip_gradients


def test_one_norm_over_all_gradients():
    gradients = {"a": np.array([[2.0, 0], [0, 3]]), "b": np.array([6.0])}
    clipped, norm = clip_gradients(gradients, 1.0)
    assert norm == 7
    np.testing.assert_allclose(clipped["a"], gradients["a"] / 7, rtol=1e-15)
    np.testing.assert_allclose(clipped["b"], gradients["b"] / 7, rtol=1e-15)
    assert clip_gradients(clipped, 1.0).norm == pytest.approx(1)


@pytest.mark.parametrize("limit", [7.0, 8.0])
def test_a_norm_within_the_limit_changes_nothing(limit):
    gradients = {"a": np.array([2.0, 3.0]), "b": np.array([6.0])}
    clipped, norm = clip_gradients(gradients, limit)
    assert norm == 7 and all(clipped[name] is gradients[name] for name in gradients)


def test_float32_gradients_whose_squares_are_not_floats_are_clipped():
    """1e30² is beyond float32."""
    gradient = np.array([3e30, 4e30], np.float32)
    clipped, norm = clip_gradients({"a": gradient}, 1.0)
    assert norm == pytest.approx(5e30) and clipped["a"].dtype == np.float32
    np.testing.assert_allclose(clipped["a"], [0.6, 0.8], rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_norm_that_is_not_finite_is_said_and_nothing_is_hidden(bad):
    gradients = {"a": np.array([1.0, bad]), "b": np.array([2.0])}
    clipped, norm = clip_gradients(gradients, 1.0)
    assert not np.isfinite(norm)
    np.testing.assert_array_equal(clipped["b"], gradients["b"])
