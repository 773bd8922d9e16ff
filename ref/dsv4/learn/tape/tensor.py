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
from dsv4.learn.tape.rules_elementwise import AGAINST_A_CONSTANT, ELEMENTWISE
from dsv4.learn.tape.rules_products import PRODUCTS
from dsv4.learn.tape.rules_reductions import REDUCTIONS
from dsv4.learn.tape.rules_shapes import JOINED, SHAPES, cast, getitem, write
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
        """data: floats. Raises TypeError for others."""
        self._data = np.asarray(data)
        if not is_differentiable(self._data):
            raise TypeError(f"tape: expected floats, found {self._data.dtype}")
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
        operands = tuple(np.asarray(untaped(one)) if isinstance(one, list | tuple) else one for one in operands)
        have_nodes = [_has_node(one) for one in operands]
        if function in AGAINST_A_CONSTANT and not all(have_nodes):
            return recorded(AGAINST_A_CONSTANT[function], operands)
        if function in RULES:
            return recorded(RULES[function], operands)
        result = function(*map(untaped, operands))
        if function.nout == 1 and not is_differentiable(result):
            return result
        if function.nout > 1 or any(have_nodes):
            raise TypeError(f"tape: {name} has no rule")
        return Tensor(result)

    def __array_function__(
        self, function: Callable[..., Any], types: Any, operands: Sequence[Any], named: dict[str, Any]
    ) -> Any:
        if function in JOINED:
            return _joined(function, *operands, **named)
        if function in RULES:
            return recorded(RULES[function], operands, **named)
        if function in CHOICES:
            return function(*map(untaped, operands), **named)
        if function in CONSTANTS:
            return constant(function(*map(untaped, operands), **named))
        raise TypeError(f"tape: {function.__module__}.{function.__name__} has no rule")

    def __getitem__(self, index: Any) -> Any:
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
            return Tensor(self.data, self.node) if copy else self
        if not is_differentiable(np.empty(0, dtype)):
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

    def max(self, axis: Any = None, keepdims: bool = False, initial: Any = None) -> Any:
        """As np.ndarray.max."""
        return np.max(self, axis=axis, keepdims=keepdims, initial=initial)

    def min(self, axis: Any = None, keepdims: bool = False, initial: Any = None) -> Any:
        """As np.ndarray.min."""
        return np.min(self, axis=axis, keepdims=keepdims, initial=initial)


def recorded(rule: Callable[..., Recorded], arguments: Sequence[Any], operands: Any = None, **named: Any) -> Any:
    """What a rule makes of the arguments, with its place in the graph; a plain array where it has no gradient.

    operands: those that the rule's pulls belong to, in order; the arguments unless said. Raises TypeError where a
    gradient would be lost: for a list of Tensors, for an operand that the rule has no pull for, and for integers.
    """
    result, pulls = rule(*map(untaped, arguments), **{name: untaped(value) for name, value in named.items()})
    operands = arguments if operands is None else operands
    beyond = {str(place): one for place, one in enumerate(operands[len(pulls) :], start=len(pulls) + 1)} | named
    if lost := [name for name, value in beyond.items() if isinstance(value, Tensor)]:
        raise TypeError(f"tape: {rule.__name__.strip('_')} has no gradient by its argument {', '.join(lost)}")
    ways = [
        (operand.node, pull)
        for operand, pull in zip(operands[: len(pulls)], pulls, strict=True)
        if _has_node(operand) and pull is not None
    ]
    if not ways:
        return constant(result)
    if not is_differentiable(result):
        raise TypeError(f"tape: a result of {result.dtype} has no gradient, and one of its operands has")
    return Tensor(result, Node(tuple(node for node, _ in ways), _each([pull for _, pull in ways])))


def constant(array: npt.ArrayLike) -> Any:
    """A Tensor of which nothing is remembered; integers and truth values as a plain array."""
    plain = np.asarray(array)
    return Tensor(plain) if is_differentiable(plain) else plain


def is_differentiable(numbers: Any) -> bool:
    """Whether a gradient can be of these numbers: they are no choices, neither integers nor truth values."""
    return np.asarray(numbers).dtype.kind not in "biu"


def untaped(value: Any) -> Any:
    """The numbers of a Tensor; anything else as it is. Raises TypeError for a list or tuple with a Tensor in it."""
    if isinstance(value, Tensor):
        return value.data
    if _holds_tensors(value):
        raise TypeError("tape: expected arrays, found a list with a Tensor in it: np.stack makes one array of it")
    return value


def _joined(function: Callable[..., Any], parts: Any, *arguments: Any, **named: Any) -> Any:
    """Of a function whose operands are the parts of its first argument."""

    def rule(*arrays: Array) -> Recorded:
        return RULES[function](arrays, *arguments, **named)

    return recorded(rule, parts)


def _holds_tensors(value: Any) -> bool:
    """Whether there is a Tensor in a list or tuple, at any depth."""
    return isinstance(value, list | tuple) and any(isinstance(one, Tensor) or _holds_tensors(one) for one in value)


def _has_node(operand: Any) -> bool:
    return isinstance(operand, Tensor) and operand.node is not None


def _each(pulls: Sequence[Pull]) -> Any:
    return lambda g, wanted: [pull(g) if wants else None for pull, wants in zip(pulls, wanted, strict=True)]
