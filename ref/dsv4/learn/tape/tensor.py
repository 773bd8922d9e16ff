"""An array that remembers what was done to it, by answering NumPy's own protocols (NEP 13, NEP 18).

The reference calls NumPy's functions; given a Tensor, NumPy hands the call over to it, and the rule of that function
computes the result as ever and says how a gradient goes back. A function without a rule is an error that names it.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
from numpy.lib.mixins import NDArrayOperatorsMixin

from dsv4.learn.tape.graph import Node, Pull, Recorded
from dsv4.learn.tape.rules_elementwise import ELEMENTWISE
from dsv4.learn.tape.rules_products import PRODUCTS
from dsv4.learn.tape.rules_reductions import REDUCTIONS
from dsv4.learn.tape.rules_shapes import SHAPES, cast, getitem, write
from dsv4.ops.types import Array

RULES: dict[Any, Callable[..., Recorded]] = {**ELEMENTWISE, **PRODUCTS, **REDUCTIONS, **SHAPES}
"""One rule for each function of NumPy that the reference calls, and few more."""

CHOICES = {np.argsort, np.argmax, np.argmin, np.nonzero, np.shape, np.ndim, np.size}
"""Functions whose results are numbers of places: they have no gradient, and come back as plain arrays."""

CONSTANTS = {np.zeros_like, np.ones_like}
"""Functions that take no more from a Tensor than what it looks like."""


class Tensor(NDArrayOperatorsMixin):
    """A NumPy array with its place in a graph. It is no ndarray, so that NumPy cannot take its numbers unasked.

    data: the numbers; node: the place, None for a constant, of which nothing is remembered. Results of integers or
    truth values (comparisons, argsort, …) are plain arrays without a gradient. A Tensor does not change, but for
    `x[index] = values`, after which the name x stands for another array: what was made of x before does not see it.
    """

    __slots__ = ("_data", "node")

    def __init__(self, data: npt.ArrayLike, node: Node | None = None) -> None:
        self._data = np.asarray(data)
        self.node = node

    @property
    def data(self) -> Array:
        """The numbers as a plain array, which is not to be written to."""
        return self._data

    shape = property(lambda self: self.data.shape)
    dtype = property(lambda self: self.data.dtype)
    ndim = property(lambda self: self.data.ndim)
    size = property(lambda self: self.data.size)
    nbytes = property(lambda self: self.data.nbytes)

    @property
    def T(self) -> Any:  # noqa: N802
        """With its axes in reverse order."""
        return np.transpose(self)

    def __array_ufunc__(self, function: np.ufunc, method: str, *operands: Any, **named: Any) -> Any:
        name = f"numpy.{function.__name__}" + (f".{method}" if method != "__call__" else "")
        if method != "__call__" or named:
            raise TypeError(f"tape: {name} has no rule{' with ' + ', '.join(named) if named else ''}")
        if function in RULES:
            return recorded(RULES[function], operands)
        result = function(*map(untaped, operands))
        if function.nout == 1 and not _has_gradient(result):
            return result
        if function.nout > 1 or any(isinstance(one, Tensor) and one.node is not None for one in operands):
            raise TypeError(f"tape: {name} has no rule")
        return Tensor(result)

    def __array_function__(
        self, function: Callable[..., Any], types: Any, operands: Sequence[Any], named: dict[str, Any]
    ) -> Any:
        if function in RULES:
            return recorded(RULES[function], operands, **named)
        if function in CHOICES:
            return function(*map(untaped, operands), **named)
        if function in CONSTANTS:
            return Tensor(function(*map(untaped, operands), **named))
        raise TypeError(f"tape: {function.__module__}.{function.__name__} has no rule")

    def __getitem__(self, index: Any) -> "Tensor":
        return recorded(getitem, (self, index))

    def __setitem__(self, index: Any, values: Any) -> None:
        written = recorded(write, (self, index, values), operands=(self, values))
        self._data, self.node = written.data, written.node

    def __len__(self) -> int:
        return len(self.data)

    def __repr__(self) -> str:
        return f"Tensor({self.data!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> "Tensor":
        return Tensor(self.data, self.node)

    def __array__(self, *arguments: Any, **named: Any) -> NoReturn:
        raise TypeError("tape: a plain array was asked for, and the gradient would be lost: take .data for it")

    def __bool__(self) -> NoReturn:
        raise TypeError("tape: a truth value was asked for: compare .data")

    def __float__(self) -> NoReturn:
        raise TypeError("tape: a float was asked for, and the gradient would be lost: take float(x.data)")

    def __iter__(self) -> Iterator[Any]:
        raise TypeError("tape: a Tensor cannot be gone through number by number; index it")

    def astype(self, dtype: npt.DTypeLike, copy: bool = True) -> Any:
        """The numbers in another dtype, as np.ndarray.astype; integers and truth values have no gradient."""
        if self.dtype == dtype:
            return self
        if not _has_gradient(np.empty(0, dtype)):
            return self.data.astype(dtype)
        return recorded(cast, (self, dtype))

    def reshape(self, *shape: Any) -> Any:
        """As np.ndarray.reshape, with sizes or a tuple of them."""
        return np.reshape(self, shape[0] if len(shape) == 1 else shape)

    def swapaxes(self, axis1: int, axis2: int) -> Any:
        """As np.ndarray.swapaxes."""
        return np.swapaxes(self, axis1, axis2)

    def transpose(self, *axes: int) -> Any:
        """As np.ndarray.transpose with single numbers."""
        return np.transpose(self, axes or None)

    def sum(self, axis: Any = None, keepdims: bool = False) -> Any:
        """As np.ndarray.sum."""
        return np.sum(self, axis=axis, keepdims=keepdims)

    def mean(self, axis: Any = None, keepdims: bool = False) -> Any:
        """As np.ndarray.mean."""
        return np.mean(self, axis=axis, keepdims=keepdims)

    def max(self, axis: Any = None, keepdims: bool = False, **initial: Any) -> Any:
        """As np.ndarray.max."""
        return np.max(self, axis=axis, keepdims=keepdims, **initial)

    def min(self, axis: Any = None, keepdims: bool = False, **initial: Any) -> Any:
        """As np.ndarray.min."""
        return np.min(self, axis=axis, keepdims=keepdims, **initial)


def recorded(rule: Callable[..., Recorded], arguments: Sequence[Any], operands: Any = None, **named: Any) -> Tensor:
    """What a rule makes of the arguments, which may be Tensors or lists of them, with its place in the graph.

    operands: those that the rule's pulls belong to, in order; the arguments unless said, a list's parts one by one.
    """
    result, pulls = rule(*map(untaped, arguments), **named)
    if operands is None:
        operands = [part for one in arguments for part in (one if isinstance(one, list | tuple) else [one])]
    ways = [
        (operand.node, pull)
        for operand, pull in zip(operands, pulls, strict=False)
        if isinstance(operand, Tensor) and operand.node is not None and pull is not None
    ]
    if not ways:
        return Tensor(result)
    nodes, pulls = zip(*ways, strict=True)
    return Tensor(result, Node(nodes, _each(pulls)))


def untaped(value: Any) -> Any:
    """The numbers of a Tensor, or of the Tensors in a list or tuple; anything else as it is."""
    if isinstance(value, Tensor):
        return value.data
    if isinstance(value, list | tuple) and any(isinstance(one, Tensor) for one in value):
        return [untaped(one) for one in value]
    return value


def _each(pulls: Sequence[Pull]) -> Any:
    return lambda g, wanted: [pull(g) if wants else None for pull, wants in zip(pulls, wanted, strict=True)]


def _has_gradient(result: Any) -> bool:
    """Whether these are numbers that a gradient can be of: not integers, nor truth values."""
    return np.asarray(result).dtype.kind not in "biu"
