"""What a tape remembers: nodes that lead a gradient back to their parents, kept apart from the numbers themselves.

A node holds no data. What the rules need of the numbers is in their pulls, so that memory is what the rules capture.
"""

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, NamedTuple

import numpy as np

from dsv4.ops.types import Array

_NUMBERS = count()


class Node:
    """The place of one result in the graph. A node without parents is a leaf: gradients end there."""

    __slots__ = ("number", "parents", "pull")

    def __init__(self, parents: "tuple[Node, ...]" = (), pull: "JointPull | None" = None) -> None:
        """pull: from the gradient of the result to those of the parents; None only without parents."""
        self.number = next(_NUMBERS)
        """Later results have larger numbers."""
        self.parents, self.pull = parents, pull


class Piece(NamedTuple):
    """A gradient that is zero but for a part: `gradient.reshape(view)[index]` is `values`.

    `index` names each place at most once.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    view: tuple[int, ...]
    index: Any
    values: Array


class Part(NamedTuple):
    """The gradient of one of several results that were computed together."""

    number: int
    values: Array


Gradient = Array | Piece | Part
"""What a pull gives back."""

Pull = Callable[[Array], Gradient]
"""From the gradient of a result to that of one operand: gradient of the operand's shape and dtype."""

Recorded = tuple[Any, tuple[Pull | None, ...]]
"""What a rule gives: the result of its function, and for each operand in order how a gradient goes back to it, None for
no way."""

JointPull = Callable[[Any, Sequence[bool]], Sequence[Gradient | None]]
"""From the gradient of a result to those of all parents; the second argument says which of them are wanted."""


class Like:
    """Brings a gradient to the shape and dtype of an operand that NumPy had broadcast; holds neither's numbers."""

    def __init__(self, operand: Any) -> None:
        self.shape = np.shape(operand)
        self.dtype = getattr(operand, "dtype", None)

    def __call__(self, gradient: Array) -> Array:
        """The sum over the axes along which the operand was repeated."""
        added = tuple(range(gradient.ndim - len(self.shape)))
        repeated = tuple(
            axis for axis, size in enumerate(self.shape, len(added)) if size == 1 and gradient.shape[axis] != 1
        )
        if added or repeated:
            gradient = gradient.sum(axis=added + repeated, keepdims=True).reshape(self.shape)
        return gradient.astype(self.dtype, copy=False)


class Total:
    """The gradient of one node while it is added up from what its children give back."""

    def __init__(self) -> None:
        self.value: Any = None
        """An array; for results that were computed together, their gradients by number."""
        self._is_own = False

    def add(self, gradient: Gradient) -> None:
        """Add one child's share. An array that was given is never written to."""
        match gradient:
            case Part(number, values):
                self.value = {} if self.value is None else self.value
                self.value[number] = self.value[number] + values if number in self.value else values
            case Piece(shape, dtype, view, index, values):
                self._own(shape, dtype).reshape(view)[index] += values
            case _ if self.value is None:
                self.value = gradient
            case _ if self._is_own:
                self.value += gradient
            case _:
                self.value, self._is_own = np.asarray(self.value + gradient), True

    def _own(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """The sum so far in an array of its own, so that a part can be added in place."""
        if self.value is None:
            self.value = np.zeros(shape, dtype)
        elif not self._is_own:
            self.value = np.array(self.value, order="C")
        self._is_own = True
        own: Array = self.value
        return own
