"""Memory for time: a function whose graph is not kept, but made again when its gradient is asked for."""

from collections.abc import Callable, Sequence
from typing import Any

from dsv4.learn.tape.graph import Node
from dsv4.learn.tape.sweep import ancestors, pulled_back
from dsv4.learn.tape.tape_ops import leaf
from dsv4.learn.tape.tensor import Tensor


def checkpointed(function: Callable[[Any], Tensor], x: Tensor) -> Tensor:
    """function(x), of which only x and the result stay in memory; the sweep calls the function a second time.

    function: from one Tensor to one Tensor. It may use leaves besides, which get their gradients as ever. It must
    compute the same both times, so that no number which it reads may change before the sweep, and it must not hand
    Tensors to anybody else. Not in the report; known as gradient checkpointing.
    """
    start = leaf(x.data)
    result = function(start)
    if result.node is None:
        return result
    leaves = [node for node in ancestors(result.node) if not node.parents and node is not start.node]
    ways = [node for node in (x.node, *leaves) if node is not None]

    def pull(gradient: Any, wanted: Sequence[bool]) -> list[Any]:
        again = leaf(x.data)
        inside = [again.node if node is x.node else node for node in ways]
        return pulled_back(function(again), gradient, [node for node in inside if node is not None])

    return Tensor(result.data, Node(tuple(ways), pull)) if ways else Tensor(result.data)
