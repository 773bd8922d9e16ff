"""A tape on which whole operations are remembered in one piece, by vector-Jacobian products derived by hand."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from inspect import signature
from typing import Any

import numpy as np

from dsv4.learn.tape.graph import JointPull, Node, Part
from dsv4.learn.tape.tape_ops import TapeOps
from dsv4.learn.tape.tensor import Tensor, is_differentiable
from dsv4.ops.map_arrays import map_arrays
from dsv4.ops.packed_rows import PackedRows
from dsv4.ops.quantise import is_quantised

Vjp = Callable[..., tuple[Any, Callable[[Any], Any]]]
"""Called as its operation, with plain arrays. Gives back the result and its pullback: from the gradient of the result,
shaped as the result is, to a named tuple whose fields are `d_` and the name of an argument, or of a field of an
argument that is a named tuple; None there stands for zero."""


class DerivedOps(TapeOps):
    """TapeOps with hand-derived functions behind the operations that a table has them for.

    An operation with a packed weight or packed rows is the reference's; without a node among its arguments its result
    is a constant.
    """

    def __init__(self, vjps: Mapping[str, Vjp]) -> None:
        """vjps: by the names of the operations. Raises ValueError for a name that is no operation's."""
        for name, vjp in vjps.items():
            if not hasattr(TapeOps, name):
                raise ValueError(f"DerivedOps: expected names of operations, found {name!r}")
            setattr(self, name, _recording(vjp, getattr(TapeOps, name)))


def _recording(vjp: Vjp, reference: Callable[..., Any]) -> Callable[..., Any]:
    """The operation as one node of the graph."""
    parameters = signature(vjp)

    def operation(*arguments: Any, **named: Any) -> Any:
        operands = parameters.bind(*arguments, **named).arguments
        if any(is_quantised(part) or isinstance(part, PackedRows) for part in _parts(operands)):
            return reference(*arguments, **named)
        result, pull = vjp(**{name: _plain(value) for name, value in operands.items()})
        nodes = tuple(dict.fromkeys(part.node for part in _tensors(operands)))
        if not nodes:
            return map_arrays(result, TapeOps.asarray)
        pull_all = _joint(pull, operands, nodes)
        return _several(result, nodes, pull_all) if isinstance(result, tuple) else Tensor(result, Node(nodes, pull_all))

    return operation


def _joint(pull: Callable[[Any], Any], operands: dict[str, Any], nodes: tuple[Node, ...]) -> JointPull:
    """The pullback, its named tuple sorted out to the nodes that each of its arrays is the gradient of."""
    names = _by_name(operands)

    def pull_all(gradient: Any, wanted: Sequence[bool]) -> list[Any]:
        found: dict[Node, Any] = {}
        pulled = pull(gradient)
        fields = [field.removeprefix("d_") for field in pulled._fields]
        forgotten = {part.node for part in _tensors(operands)} - {
            part.node for field in fields for part in _tensors(names[field])
        }
        if forgotten:
            raise TypeError(f"DerivedOps: expected a gradient for each of {', '.join(operands)}, found {fields}")
        for field, d_operand in zip(fields, pulled, strict=True):
            for part, d_part in _pairs(names[field], d_operand):
                found[part.node] = found[part.node] + d_part if part.node in found else d_part
        return [found.get(node) for node in nodes]

    return pull_all


def _several(result: Any, nodes: tuple[Node, ...], pull_all: JointPull) -> Any:
    """A named tuple of results that were computed together: a node for each, above one for all of them."""

    def pull_together(parts: dict[int, Any], wanted: Sequence[bool]) -> Any:
        d_result = (
            parts.get(number, np.zeros_like(one) if is_differentiable(one) else None)
            for number, one in enumerate(result)
        )
        return pull_all(type(result)(*d_result), wanted)

    together = Node(nodes, pull_together)

    def one_of(number: int, numbers: Any) -> Any:
        return Tensor(numbers, Node((together,), lambda g, wanted: [Part(number, g)]))

    return type(result)(*(one_of(number, one) if is_differentiable(one) else one for number, one in enumerate(result)))


def _by_name(operands: dict[str, Any]) -> dict[str, Any]:
    """The arguments by name, and the fields of those that are named tuples."""
    fields = [one._asdict() for one in operands.values() if hasattr(one, "_asdict")]
    return {name: value for group in (*fields, operands) for name, value in group.items()}


def _parts(value: Any) -> Iterator[Any]:
    """What a dictionary, a named tuple, a list or another sequence of experts holds, down to its last part."""
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, Sequence) and not isinstance(value, str):
        for one in value:
            yield from _parts(one)
    else:
        yield value


def _tensors(value: Any) -> list[Any]:
    """The Tensors in a value that have a node."""
    return [part for part in _parts(value) if isinstance(part, Tensor) and part.node is not None]


def _plain(value: Any) -> Any:
    """A value with the numbers of each Tensor in it; a sequence of experts becomes a list."""
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(_plain, value))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(one) for one in value]
    return value.data if isinstance(value, Tensor) else value


def _pairs(value: Any, gradient: Any) -> Iterator[tuple[Any, Any]]:
    """Each Tensor with a node in a value, with its gradient; none of a part whose gradient is None."""
    if gradient is None:
        return
    if isinstance(value, Sequence):
        for one, d_one in zip(value, gradient, strict=True):
            yield from _pairs(one, d_one)
    elif isinstance(value, Tensor) and value.node is not None:
        yield value, gradient
