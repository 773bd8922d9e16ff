"""The arrays of a check: random numbers, memory layouts, dtypes, and the way to other libraries' arrays and back."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dsv4.ops.map_arrays import map_arrays
from dsv4.ops.types import Array

AnyArray = npt.NDArray[Any]


def numbers(generator: np.random.Generator, *shape: int) -> Array:
    """Normally distributed numbers in float32, as everything is in the model."""
    return generator.standard_normal(shape).astype(np.float32)


def in_dtype(value: Any, dtype: npt.DTypeLike) -> Any:
    """The value with its floating arrays cast; named tuples, tuples and lists are gone through, weights are not."""
    if isinstance(value, np.ndarray):
        return value.astype(dtype) if value.dtype.kind == "f" else value
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(in_dtype(part, dtype) for part in value))
    if isinstance(value, tuple | list):
        return type(value)(in_dtype(part, dtype) for part in value)
    return value


def laid_out(
    array: AnyArray,
    order: Sequence[int],
    steps: Sequence[int],
    backwards: Sequence[bool] = (),
    asarray: Callable[[AnyArray], Any] = np.asarray,
) -> Any:
    """An equal array whose memory is laid out in another way.

    order: the axes as they follow each other in memory; steps: for each of these, how many places apart its numbers
    are; backwards: which of them run backwards, none by default. asarray: makes another library's array of NumPy's.
    The gaps hold NaN, or a number that is no valid index, so that reading them shows.
    """
    turned = array.transpose(order)
    gap = np.iinfo(array.dtype).max if array.dtype.kind in "iu" else np.nan
    memory = np.full([size * step for size, step in zip(turned.shape, steps, strict=True)], gap, array.dtype)
    places: tuple[Any, ...] = (..., *(slice(None, None, step) for step in steps))
    signs = [-1 if back else 1 for back in backwards or [False] * array.ndim]
    directions: tuple[Any, ...] = (..., *(slice(None, None, sign) for sign in signs))
    memory[places][directions] = turned
    view = asarray(memory)[places]
    if any(backwards):  # torch knows no such slices
        view = view[directions]
    back_again = tuple(int(axis) for axis in np.argsort(order))
    return view.permute(back_again) if hasattr(view, "permute") else view.transpose(back_again)


def to_numpy(array: Any) -> AnyArray:
    """An array of NumPy, CuPy, torch, JAX or any library whose arrays NumPy can read, as a NumPy array."""
    if isinstance(array, np.ndarray):
        return array
    for method in ("detach", "cpu"):  # torch: without its gradient, in the host's memory
        if hasattr(array, method):
            array = getattr(array, method)()
    for method in ("get", "numpy"):  # CuPy; torch
        if hasattr(array, method):
            return np.asarray(getattr(array, method)())
    return np.asarray(array)


def fetched(value: Any) -> Any:
    """The value with NumPy arrays in the place of any library's."""
    return map_arrays(value, to_numpy)
