"""Rules of sums, means and largest numbers along axes. In all of them g is the gradient of the result."""

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from dsv4.learn.tape.graph import Pull, Recorded
from dsv4.ops.types import Array

Axis = int | tuple[int, ...] | None


def _sum(x: Array, axis: Axis = None, *, keepdims: bool = False) -> Recorded:
    """Σ a: g for each of the numbers"""
    return np.sum(x, axis=axis, keepdims=keepdims), (_spread(x, axis),)


def _mean(x: Array, axis: Axis = None, *, keepdims: bool = False) -> Recorded:
    """Σ a / n: g / n for each of the numbers"""
    result = np.mean(x, axis=axis, keepdims=keepdims)
    spread = _spread(x, axis)
    count = prod(size for size, left in zip(x.shape, _with_ones(x.shape, axis), strict=True) if left == 1)
    return result, (lambda g: spread(g / g.dtype.type(count)),)


def _extreme(function: Callable[..., Array]) -> Callable[..., Recorded]:
    """max a or min a: g to the number that was found, in equal parts to those that are equal; none to `initial`."""

    def rule(x: Array, axis: Axis = None, *, keepdims: bool = False, initial: float | None = None) -> Recorded:
        kept = function(x, axis=axis, keepdims=True, **({} if initial is None else {"initial": initial}))
        spread = _spread(x, axis)

        def pull(g: Array) -> Array:
            found = x == kept
            equals = np.maximum(found.sum(axis=axis, keepdims=True), 1).astype(g.dtype)
            return np.where(found, spread(g) / equals, 0)

        return (kept if keepdims else np.squeeze(kept, axis)), (pull,)

    rule.__name__ = function.__name__
    return rule


def _spread(x: Array, axis: Axis) -> Pull:
    """Repeats a gradient along the axes that a reduction took away, with keepdims or without."""
    shape, kept = x.shape, _with_ones(x.shape, axis)
    return lambda g: np.broadcast_to(g.reshape(kept), shape)


def _with_ones(shape: tuple[int, ...], axis: Axis) -> tuple[int, ...]:
    """The shape that a reduction with keepdims leaves."""
    axes = range(len(shape)) if axis is None else (axis,) if isinstance(axis, int) else axis
    reduced = {one % len(shape) for one in axes}
    return tuple(1 if axis in reduced else size for axis, size in enumerate(shape))


REDUCTIONS: dict[Any, Callable[..., Recorded]] = {
    np.sum: _sum,
    np.mean: _mean,
    np.max: _extreme(np.max),
    np.min: _extreme(np.min),
}
