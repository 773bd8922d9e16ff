"""The pullbacks of RMSNorm, RoPE and the Hadamard rotation, compared with finite differences."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4.learn import vjp
from learn.vjp.differences import hold, same
from strategies import generators, normal, sizes

SCALES = st.sampled_from([1e-3, 1, 30])


@given(data=st.data(), length=sizes(0, 3), width=sizes(1, 6), scale=SCALES, generator=generators)
def test_rms_norm(data, length, width, scale, generator):
    x, weight = data.draw(normal(2, length, width, scale=scale)), data.draw(normal(width))
    eps = data.draw(st.sampled_from([1e-6, 1e-2]))
    hold("rms_norm", (x.astype(np.float64), weight.astype(np.float64), eps), generator)
    hold("rms_scale", (x.astype(np.float64), eps), generator)


def test_rms_scale_of_zeros_is_divided_by_the_root_of_eps():
    _, pull = vjp.rms_scale(np.zeros((1, 3)), 1e-4)
    np.testing.assert_allclose(pull(np.ones((1, 3))).d_x, np.full((1, 3), 100.0))


@given(data=st.data(), heads=st.sampled_from([(), (1,), (3,)]), rotated=sizes(1, 3), more=sizes(), generator=generators)
def test_rope(data, heads, rotated, more, generator):
    batch, length = data.draw(sizes(0, 2)), data.draw(sizes(0, 3))
    x = data.draw(normal(batch, length, *heads, 2 * rotated + more)).astype(np.float64)
    positions, frequencies = generator.integers(-60, 60, (batch, length)), generator.standard_normal(rotated)
    hold("rope", (x, positions, frequencies), generator)


def test_rope_turns_gradients_back():
    """A quarter turn brings (1, 0) to (0, 1), so what arrives at the second channel came from the first."""
    frequencies = np.array([np.pi / 2])
    _, pull = vjp.rope(np.zeros((1, 1, 3)), np.ones((1, 1), np.int64), frequencies)
    np.testing.assert_allclose(pull(np.array([[[7.0, 0.0, 1.0]]])).d_x, [[[7.0, 1.0, 0.0]]], atol=1e-15)


@pytest.mark.parametrize("width", [1, 2, 8])
def test_hadamard(width):
    generator = np.random.default_rng(width)
    x = generator.standard_normal((2, 3, width))
    hold("hadamard", (x,), generator)
    _, pull = vjp.hadamard(x)
    same(pull(vjp.hadamard(x)[0]).d_x, x)
