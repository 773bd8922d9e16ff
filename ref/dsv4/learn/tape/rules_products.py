"""The rule of matrix products, with the axes along which an operand is repeated folded into one product."""

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from dsv4.learn.tape.graph import Like, Recorded
from dsv4.ops.types import Array


def _matmul(x: Array, y: Array) -> Recorded:
    """A B: g Bᵀ, Aᵀ g, each summed over the axes along which the operand was repeated.

    x [..., rows, inner], y [..., inner, columns] with leading axes that NumPy broadcasts.
    """
    if np.ndim(x) < 2 or np.ndim(y) < 2:
        raise TypeError(f"tape: numpy.matmul has a rule for matrices only, found shapes {np.shape(x)}, {np.shape(y)}")
    to_x, to_y = Like(x), Like(y)
    turned_shape = (*x.shape[:-2], x.shape[-1], x.shape[-2])

    def pull_x(g: Array) -> Array:  # of Bᵀ Aᵀ, whose second operand is Aᵀ
        return to_x(_left_product(y.swapaxes(-1, -2), g.swapaxes(-1, -2), turned_shape).swapaxes(-1, -2))

    return np.matmul(x, y), (pull_x, lambda g: to_y(_left_product(x, g, to_y.shape)))


def _left_product(x: Array, g: Array, shape: tuple[int, ...]) -> Array:
    """Aᵀ g for the second operand of a product A B, whose shape this is: x [..., rows, inner], g [..., rows, columns].

    Axes that the operand lacks, or has only once, become rows: Σ_i A_iᵀ g_i is one product of all A_i below each other.
    """
    lead = g.shape[:-2]
    own = (1,) * (len(lead) + 2 - len(shape)) + shape[:-2]
    summed = [axis for axis, size in enumerate(own) if size == 1 and lead[axis] != 1]
    if not summed:
        return _product(x, g)
    kept = [axis for axis in range(len(lead)) if axis not in summed]
    order = [*kept, *summed, len(lead), len(lead) + 1]

    def fold(array: Array) -> Array:
        """[..., rows, width] -> [kept axes, summed axes · rows, width]"""
        whole = np.broadcast_to(array, (*lead, *array.shape[-2:])).transpose(order)
        rows = prod(lead[axis] for axis in summed) * array.shape[-2]
        return whole.reshape(*(lead[axis] for axis in kept), rows, array.shape[-1])

    product = _product(fold(x), fold(g))
    return product.reshape(*own, *product.shape[-2:])


def _product(x: Array, g: Array) -> Array:
    """Aᵀ g"""
    product: Array = x.swapaxes(-1, -2) @ g
    return product


PRODUCTS: dict[Any, Callable[..., Recorded]] = {np.matmul: _matmul}
