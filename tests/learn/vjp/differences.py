"""Gradients by finite differences of the operation itself, in float64: what every pullback is compared with."""

import inspect

import numpy as np

from dsv4.learn.vjp import VJPS
from dsv4.ops import Ops
from learn.differences import difference

STEP = 1e-4
"""How far an element is moved, relative to the largest of its array."""

TOLERANCE = 1e-8
"""Of a gradient's error, relative to what is differentiated: rounding makes 1e-12 of it, four differences 1e-15."""

ELEMENTS = 30
"""How many elements of each array are moved at most."""


def hold(operation, arguments, generator, parts=None):
    """Hold a hand-derived function to the operation: its result to 1e-12, and its gradients to differences.

    arguments: for the operation, in float64, in arrays that may be written to. parts(arguments): the arrays to move,
    one for each that parts(gradients) gives; by default, the arguments whose names the gradients' fields have.
    """
    function, reference = VJPS[operation], getattr(Ops, operation)
    result, pull = function(*arguments)
    same(result, reference(*arguments))
    weights = [generator.standard_normal(part.shape) for part in _parts(result)]
    gradients = pull(type(result)(*weights) if isinstance(result, tuple) else weights[0])
    same_shapes = [part.shape for part in _parts(result)]
    assert same_shapes == [part.shape for part in _parts(reference(*arguments))]

    def loss():
        return sum(np.sum(weight * part) for weight, part in zip(weights, _parts(reference(*arguments)), strict=True))

    magnitude = sum(np.sum(np.abs(w * part)) for w, part in zip(weights, _parts(result), strict=True))
    moved = parts(*arguments) if parts else named(function, arguments, gradients)
    found = parts(*gradients) if parts else list(gradients)
    for array, gradient in zip(moved, found, strict=True):
        assert gradient.dtype == array.dtype
        hold_one(loss, array, gradient, magnitude, generator)


def hold_one(loss, array, gradient, magnitude, generator):
    """Hold some elements of one gradient to differences of the loss, of which magnitude is the size."""
    assert gradient.shape == array.shape
    scale = np.abs(array).max(initial=0, where=np.isfinite(array)) or 1.0
    places = [place for place in np.ndindex(array.shape) if np.isfinite(array[place])]
    generator.shuffle(places)
    for place in places[:ELEMENTS]:
        expected = difference(loss, array, place, STEP * scale)
        error = abs(gradient[place] - expected) * scale
        limit = TOLERANCE * (magnitude + abs(expected) * scale)
        assert error <= limit, f"at {place}: {gradient[place]:.12g}, by differences {expected:.12g}"


def named(function, arguments, gradients):
    """The arguments that the gradients' fields are named after, which must be in their order."""
    names = [field.removeprefix("d_") for field in gradients._fields]
    signature = inspect.signature(function).bind(*arguments).arguments
    assert names == [name for name in signature if name in names]
    return [signature[name] for name in names]


def same(found, expected):
    """Equal to a relative 1e-12 of the largest element, part by part."""
    for one, other in zip(_parts(found), _parts(expected), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12 * np.abs(other).max(initial=0), strict=True)


def _parts(result):
    return result if isinstance(result, tuple) else (result,)
