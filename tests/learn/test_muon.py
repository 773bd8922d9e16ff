"""The Newton–Schulz iteration, held to the singular value decomposition and to arithmetic with single numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4.learn.muon import newton_schulz
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


def test_zeros_stay_zeros():
    assert not newton_schulz(np.zeros((3, 4), np.float32)).any()
