"""Memory for time: a function whose graph is not kept, but made again when its gradient is asked for."""

from collections.abc import Callable, Sequence
from typing import Any

from dsv4.learn.tape.graph import Node
from dsv4.learn.tape.sweep import ancestors, pulled_back
from dsv4.learn.tape.tensor import Tensor


def checkpointed(function: Callable[[Any], Tensor], x: Tensor) -> Tensor:
    """function(x), of which only x and the result stay in memory; the sweep calls the function a second time.

    function: from one Tensor to one Tensor. It may use leaves besides, which get their gradients as ever, the very leaf
    x too. It must compute the same both times, so that no number which it reads may change before the sweep, and it
    must not hand Tensors to anybody else. Raises ValueError for a function that uses another result from outside.
    Not in the report; known as gradient checkpointing.
    """
    begin = Node()
    result = function(Tensor(x.data, begin))
    if result.node is None:
        return result
    outside = sorted((node for node in ancestors(result.node) if node.number < begin.number), key=_number)
    if any(node.parents for node in outside):
        raise ValueError("checkpointed: expected a function of its input and of leaves, found one of another result")
    inputs = [] if x.node is None else [x.node]

    def pull(gradient: Any, wanted: Sequence[bool]) -> list[Any]:
        again = Node()
        end = function(Tensor(x.data, again))
        return pulled_back(end, gradient, [*([again] if inputs else []), *outside])

    parents = (*inputs, *outside)  # by position: x itself may be among the leaves, too
    return Tensor(result.data, Node(parents, pull)) if parents else Tensor(result.data)


def _number(node: Node) -> int:
    return node.number
