"""The outer step, by hand and against the loop that DiLoCo describes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dsv4.learn.diloco.merge import merged, pseudo_gradient
from dsv4.learn.diloco.outer import outer_step


def test_two_steps_by_hand():
    """m: 1, then .5 + 2 = 2.5; Θ: 10 − .1(1 + .5) = 9.85, then 9.85 − .1(2 + 1.25) = 9.525."""
    first = outer_step(np.array([10.0]), np.array([1.0]), np.array([0.0]), 0.1, 0.5)
    np.testing.assert_allclose(first, [[9.85], [1.0]])
    np.testing.assert_allclose(outer_step(first.weight, np.array([2.0]), first.momentum, 0.1, 0.5), [[9.525], [2.5]])


@given(st.integers(0, 1000))
def test_of_one_learner_with_η_1_and_no_momentum_the_result_is_what_it_has(seed):
    before, after = np.random.default_rng(seed).standard_normal((2, 3, 4))
    difference = merged("norm.weight", [pseudo_gradient(before, after)], [7.0])
    np.testing.assert_allclose(outer_step(before, difference, np.zeros((3, 4)), 1.0, 0.0).weight, after, atol=1e-12)


@given(st.integers(0, 1000), st.floats(0.1, 1), st.floats(0, 0.95))
def test_one_learner_is_plain_nesterov(seed, rate, kept):
    """Against Sutskever's form: a look ahead along the velocity; its weights are those of ours, looked ahead."""
    g = np.random.default_rng(seed)
    ours, momentum = g.standard_normal(5), np.zeros(5)
    theirs, velocity = ours.copy(), np.zeros(5)
    for _ in range(4):
        step = g.standard_normal(5)
        difference = merged("x", [pseudo_gradient(ours, ours - step)], [3.0])
        ours, momentum = outer_step(ours, difference, momentum, rate, kept)
        velocity = kept * velocity - rate * step
        theirs = theirs + velocity
        np.testing.assert_allclose(ours, theirs + kept * velocity, atol=1e-9)


def test_nothing_is_written_to():
    arrays = [np.ones(3), np.ones(3), np.ones(3)]
    outer_step(*arrays, 0.7, 0.9)
    np.testing.assert_array_equal(arrays, np.ones((3, 3)))
