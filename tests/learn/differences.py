"""Gradients compared with differences in float64, number by number."""

import numpy as np

from dsv4.learn import tape
from dsv4.ops.map_arrays import map_arrays

STEP = 1e-5
"""Small, so that no corner of a clamp or of ReLU lies between a number and what it is moved to."""

TOLERANCE = 1e-7
"""Relative to the largest derivative, or to 1: rounding makes about 1e-10 of it."""


def difference(loss, array, place, step):
    """The slope of the loss as one element moves, from four points: their error is that of the step's fourth power."""
    before = array[place]
    values = {}
    for steps in (-2, -1, 1, 2):
        array[place] = before + steps * step
        values[steps] = loss()
    array[place] = before
    return (8 * (values[1] - values[-1]) - (values[2] - values[-2])) / (12 * step)


def hold(function, *arguments, seed=0, operands=None):
    """The gradients of a function by its arrays of floats are what differences say.

    function: of arrays and of Tensors alike; it gives one array of floats, or a named tuple with some. arguments:
    arrays, named tuples and lists of them, and anything else; arrays of floats become float64. operands: the
    numbers of the arguments that gradients are asked of; all unless said.
    """
    arguments = [map_arrays(one, _wide) for one in arguments]
    places = range(len(arguments)) if operands is None else operands
    taped = [map_arrays(one, _leaf) if place in places else one for place, one in enumerate(arguments)]
    weights, leaves = [], []
    for place in places:
        map_arrays(taped[place], lambda one: leaves.append(one) if isinstance(one, tape.Tensor) else None)
    generator = np.random.default_rng(seed)

    def loss(given):
        parts = []
        map_arrays([function(*given)], lambda one: parts.append(one) if one.dtype.kind == "f" else None)
        if not weights:
            weights.extend(generator.uniform(0.5, 1.5, part.shape) for part in parts)
        return sum((part * weight).sum() for part, weight in zip(parts, weights, strict=True))

    found = loss(taped)
    assert isinstance(found, tape.Tensor)
    np.testing.assert_allclose(found.data, tape.untaped(loss(arguments)), rtol=1e-12, atol=1e-12)
    for leaf, gradient in zip(leaves, tape.gradients(found, leaves), strict=True):
        assert (gradient.shape, gradient.dtype) == (leaf.shape, leaf.dtype)
        expected = _differences(lambda: loss(arguments), leaf.data)
        scale = max(1, np.abs(expected).max(initial=0))
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=TOLERANCE * scale)


def _differences(loss, array):
    """The derivative of the loss by each number of an array that it reads."""
    result = np.zeros(array.shape)
    for place in np.ndindex(array.shape):
        result[place] = difference(lambda: float(tape.untaped(loss())), array, place, STEP)
    return result


def _wide(array):
    """An array of its own, float64 instead of float32."""
    array = np.array(array)
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def _leaf(array):
    """A leaf on the very array, so that what is changed there is read by the plain function, too."""
    return tape.leaf(array) if array.dtype.kind == "f" else array
