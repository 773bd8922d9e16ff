"""What is forgotten and computed again has the gradients of what is kept."""

import tracemalloc

import numpy as np
import pytest

from dsv4.learn import tape


def test_the_gradients_are_those_of_what_is_kept():
    """By the input, by other leaves, also one that is used inside and outside, and for a loss that is swept twice."""
    numbers = np.random.default_rng(0).standard_normal((3, 4, 4))
    x, y, z = (tape.leaf(one) for one in numbers)

    def function(x):
        return np.exp(x @ y) * y

    found = [((call(x * 2) * z) + y).sum() for call in (function, lambda x: tape.checkpointed(function, x))]
    assert found[0].data == found[1].data
    for _ in range(2):
        for one, other in zip(*(tape.gradients(loss, [x, y, z]) for loss in found), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-14)
    assert [one.any() for one in tape.gradients(found[1], [y])] == [True]


def test_a_function_that_also_uses_its_input_from_outside():
    """s·e^x at s = x = 2: e² for s and 2e² for x."""
    x = tape.leaf(np.array(2.0))
    [found] = tape.gradients(tape.checkpointed(lambda s: s * np.exp(x), x), [x])
    np.testing.assert_allclose(found, 3 * np.exp(2), rtol=1e-15)


@pytest.mark.parametrize("function", [lambda s, middle: s * middle, lambda s, middle: middle])
def test_a_function_that_uses_a_result_from_outside_is_an_error(function):
    """Its gradient would be that of the leaves beneath, and what asks for the result's own would get zeros."""
    x = tape.leaf(np.ones(2))
    middle = 3 * x
    with pytest.raises(ValueError, match="checkpointed: expected a function of its input and of leaves"):
        tape.checkpointed(lambda s: function(s, middle), x)


def test_a_constant_goes_in_or_comes_out():
    y = tape.leaf(np.ones(2))
    constant = tape.TapeOps.asarray(np.arange(2.0))
    [found] = tape.gradients(tape.checkpointed(lambda x: x * y, constant).sum(), [y])
    np.testing.assert_array_equal(found, [0, 1])
    assert tape.checkpointed(lambda x: constant, y).node is None
    assert tape.checkpointed(lambda x: x * 2, constant).node is None


def test_layers_within_layers():
    y = tape.leaf(np.full(3, 1.1))

    def inner(x):
        return np.square(x) * y

    def outer(x):
        return tape.checkpointed(inner, x) + tape.checkpointed(inner, x * y)

    x = tape.leaf(np.arange(3.0))
    kept = (inner(x) + inner(x * y)).sum()
    again = tape.checkpointed(outer, x).sum()
    for one, other in zip(*(tape.gradients(loss, [x, y]) for loss in (kept, again)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-15)


def peak(call):
    """The most bytes of arrays at a time in 20 steps of six exponentials forwards and back, each of 80 kB."""

    def step(x):
        for _ in range(6):
            x = np.exp(x * 0.1)
        return x

    x = start = tape.leaf(np.ones(10_000))
    tracemalloc.start()
    for _ in range(20):
        x = call(step, x)
    tape.gradients(x.sum(), [start])
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found


def test_what_is_forgotten_takes_no_memory():
    kept, forgotten = peak(lambda step, x: step(x)), peak(tape.checkpointed)
    assert kept > 20 * 6 * 80_000
    assert forgotten < kept / 3
