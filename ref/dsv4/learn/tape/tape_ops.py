"""The backend whose arrays remember: with it, a model is the reference, line by line, and can be differentiated."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from dsv4.learn.tape.graph import Node, Recorded
from dsv4.learn.tape.rules_shapes import write
from dsv4.learn.tape.tensor import Tensor, constant, recorded, untaped
from dsv4.ops import Ops
from dsv4.ops.map_arrays import map_arrays
from dsv4.ops.quantise import FP8_WEIGHT_BLOCK, is_quantised
from dsv4.ops.types import Array

Operation = TypeVar("Operation", bound=Callable[..., Any])


def straight_through(function: Operation) -> Operation:
    """A function that rounds its first argument, with the gradient of one that does not: g, as if nothing had happened.

    Source: report §5.2.1, quantisation-aware training.
    """

    @wraps(function)
    def rounded(x: Any, *arguments: Any, **named: Any) -> Any:
        def rule(numbers: Array) -> Recorded:
            return function(numbers, *arguments, **named), (lambda g: g,)

        return recorded(rule, [x]) if isinstance(x, Tensor) else function(x, *arguments, **named)

    return cast(Operation, rounded)


def without_gradient(function: Operation) -> Operation:
    """A function that chooses, such as top-k: what it names are integers, and nothing of how it found them is kept."""

    @wraps(function)
    def chosen(*arguments: Any, **named: Any) -> Any:
        return function(*map(untaped, arguments), **{name: untaped(value) for name, value in named.items()})

    return cast(Operation, chosen)


class TapeOps(Ops):
    """NumPy's operations on Tensors. Integers and truth values stay plain arrays, since nothing learns through them.

    `asarray` and `zeros` give constants; what a gradient is wanted of comes as a Tensor with a node (`leaf`), as the
    weights of `dsv4.learn.trainable` do. Rounded activations have straight-through gradients; experts with packed
    weights cannot round theirs on a tape, and say so: what learns is not packed.
    """

    name = "tape"

    fake_quant_fp8 = staticmethod(straight_through(Ops.fake_quant_fp8))
    fake_quant_fp4 = staticmethod(straight_through(Ops.fake_quant_fp4))
    top_k = staticmethod(without_gradient(Ops.top_k))
    index_top_k = staticmethod(without_gradient(Ops.index_top_k))

    @staticmethod
    def linear(x: Any, weight: Any, round_inputs: bool = False) -> Any:
        """As the reference's, with the straight-through gradient of x where it is rounded for a packed weight."""
        if round_inputs and is_quantised(weight):
            x = TapeOps.fake_quant_fp8(x, FP8_WEIGHT_BLOCK)
        return Ops.linear(x, weight)

    def linears(self, x: Any, weights: Any, round_inputs: bool = False) -> Any:
        """As the reference's, each a `linear` of this tape."""
        return tuple(self.linear(x, weight, round_inputs) for weight in weights)

    @staticmethod
    def asarray(array: Any) -> Any:
        """A Tensor as it is; an array of floats as a constant; integers and truth values as a plain array."""
        return array if isinstance(array, Tensor) else constant(array)

    def place(self, weight: Any) -> Any:
        """As `asarray`; codes of packed weights stay plain arrays, so that such weights are constants."""
        return map_arrays(weight, self.asarray)

    @staticmethod
    def to_numpy(array: Any) -> Any:
        """The numbers alone; what is done with them is not remembered."""
        return np.asarray(untaped(array))

    @staticmethod
    def zeros(shape: tuple[int, ...], dtype: npt.DTypeLike = np.float32) -> Any:
        """A constant of zeros; bytes as a plain array."""
        return TapeOps.asarray(np.zeros(shape, dtype))

    @staticmethod
    def write(rows: Any, index: Any, values: Any) -> Any:
        """A copy of rows with the values at the places that the index names, each of them at most once."""
        return recorded(write, (rows, index, values), operands=(rows, values))


def leaf(array: npt.ArrayLike) -> Tensor:
    """A Tensor whose gradient can be asked for, on an array of floats."""
    return Tensor(array, Node())
