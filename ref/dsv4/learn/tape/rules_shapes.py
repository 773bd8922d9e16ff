"""Rules of the functions that only move numbers about. In all of them g is the gradient of the result."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from dsv4.learn.tape.graph import Like, Piece, Pull, Recorded
from dsv4.ops.types import Array, Ints


def _reshape(x: Array, shape: tuple[int, ...]) -> Recorded:
    before = x.shape
    return np.reshape(x, shape), (lambda g: g.reshape(before),)


def _swapaxes(x: Array, axis1: int, axis2: int) -> Recorded:
    return np.swapaxes(x, axis1, axis2), (lambda g: g.swapaxes(axis1, axis2),)


def _moveaxis(x: Array, source: Any, destination: Any) -> Recorded:
    return np.moveaxis(x, source, destination), (lambda g: np.moveaxis(g, destination, source),)


def _copy(x: Array, order: Any = "K") -> Recorded:
    return np.copy(x, order=order), (lambda g: g,)


def _transpose(x: Array, axes: Sequence[int] | None = None) -> Recorded:
    order = range(x.ndim)[::-1] if axes is None else [axis % x.ndim for axis in axes]
    back = np.argsort(order)
    return np.transpose(x, axes), (lambda g: g.transpose(back),)


def _broadcast_to(x: Array, shape: tuple[int, ...]) -> Recorded:
    return np.broadcast_to(x, shape), (Like(x),)


def _repeat(x: Array, repeats: int, axis: int) -> Recorded:
    """Each number n times in a row: the sum of its n gradients."""
    place = axis % x.ndim
    shape = *x.shape[: place + 1], repeats, *x.shape[place + 1 :]

    def pull(g: Array) -> Array:
        summed: Array = g.reshape(shape).sum(axis=place + 1)
        return summed

    return np.repeat(x, repeats, axis), (pull,)


def _concatenate(arrays: Sequence[Array], axis: int = 0) -> Recorded:
    """Arrays one behind the other: each gets its part of g."""
    result = np.concatenate(arrays, axis)
    place = axis % result.ndim
    ends = np.cumsum([np.shape(array)[place] for array in arrays]).tolist()

    def cut(start: int, end: int, like: Like) -> Pull:
        return lambda g: like(g[(slice(None),) * place + (slice(start, end),)])

    parts = zip([0, *ends[:-1]], ends, arrays, strict=True)
    return result, tuple(cut(start, end, Like(array)) for start, end, array in parts)


def _stack(arrays: Sequence[Array], axis: int = 0) -> Recorded:
    """Arrays along a new axis: each gets its part of g."""
    result = np.stack(arrays, axis)
    place = axis % result.ndim

    def cut(number: int, like: Like) -> Pull:
        return lambda g: like(g[(slice(None),) * place + (number,)])

    return result, tuple(cut(number, Like(one)) for number, one in enumerate(arrays))


def _take_along_axis(x: Array, indices: Ints, axis: int) -> Recorded:
    """One number per index along an axis; a number that was taken several times gets the sum of its gradients.

    Along the other axes numbers and indices are broadcast against each other.
    """
    if x.ndim != indices.ndim:
        found = f"shapes {x.shape}, {indices.shape}"
        raise ValueError(f"take_along_axis: expected arrays with the same number of dimensions, found {found}")
    every: list[Ints] = list(np.ix_(*(np.arange(size) for size in x.shape)))
    every[axis] = indices
    return getitem(x, tuple(every))


def cast(x: Array, dtype: npt.DTypeLike) -> Recorded:
    """The same numbers in another dtype; their gradient in the dtype that they had."""
    before = x.dtype
    return x.astype(dtype), (lambda g: g.astype(before),)


def getitem(x: Array, index: Any) -> Recorded:
    """x[index]: g at the places that the index names, 0 elsewhere."""
    result, shape, dtype = x[index], x.shape, x.dtype
    items = index if isinstance(index, tuple) else (index,)
    if not all(_is_basic(item) for item in items):
        return result, (lambda g: _scattered(g, items, shape),)
    slices = [item for item in items if isinstance(item, slice)]
    if result.size == x.size and all(one == slice(None) for one in slices):  # axes of length 1 came or went
        return result, (lambda g: g.reshape(shape),)
    return result, (lambda g: Piece(shape, dtype, shape, index, g),)


def write(rows: Array, index: Any, values: Any) -> Recorded:
    """A copy of rows with values at the places that the index names, each of them once: g elsewhere, g there."""
    result = rows.copy()
    result[index] = values
    to_values = Like(values)

    def pull_rows(g: Array) -> Array:
        left = g.copy()
        left[index] = 0
        return left

    return result, (pull_rows, lambda g: to_values(g[index]))


def _is_basic(item: Any) -> bool:
    """Whether an index takes part of each axis by steps, and so names nothing twice."""
    return item is None or item is Ellipsis or isinstance(item, int | np.integer | slice)


def _scattered(g: Array, items: tuple[Any, ...], shape: tuple[int, ...]) -> Piece:
    """The gradients of the same number or row added up: sorted by place, so that equal places are runs.

    items: an index with arrays in it; shape: of the array that it was taken from. Where there are arrays alone, whole
    rows behind the axes that they count are taken, and added as such.
    """
    only_arrays = all(isinstance(item, np.ndarray | int | np.integer) for item in items)
    counted = sum(getattr(item, "ndim", 0) if _is_mask(item) else 1 for item in items) if only_arrays else len(shape)
    rows, width = prod(shape[:counted]), prod(shape[counted:])
    place = np.arange(rows).reshape(shape[:counted])[items].reshape(-1)
    order = np.argsort(place, kind="stable")
    place, values = place[order], g.reshape(len(place), width)[order]
    first = np.flatnonzero(np.diff(place, prepend=-1))  # where another place begins
    if len(first) < len(place):
        place, values = place[first], np.add.reduceat(values, first, axis=0)
    return Piece(shape, g.dtype, (rows, width), place, values)


def _is_mask(item: Any) -> bool:
    return isinstance(item, np.ndarray) and item.dtype == bool


SHAPES: dict[Any, Callable[..., Recorded]] = {
    np.reshape: _reshape,
    np.swapaxes: _swapaxes,
    np.moveaxis: _moveaxis,
    np.copy: _copy,
    np.transpose: _transpose,
    np.broadcast_to: _broadcast_to,
    np.repeat: _repeat,
    np.concatenate: _concatenate,
    np.stack: _stack,
    np.take_along_axis: _take_along_axis,
}

JOINED = {np.concatenate, np.stack}
"""Functions whose operands are the parts of their first argument."""
