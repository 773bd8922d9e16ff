"""From a loss back to what it was computed from: the reverse sweep over the graph."""

from collections.abc import Container, Sequence
from typing import Any

import numpy as np

from dsv4.learn.tape.graph import Node, Total
from dsv4.learn.tape.tensor import Tensor
from dsv4.ops.types import Array


def gradients(loss: Tensor, of: Sequence[Tensor]) -> list[Array]:
    """d loss / d x for each x in `of`, by the chain rule from the loss backwards.

    loss: a Tensor of one number; of: leaves, or results on the way to the loss. Returns an array of the shape and dtype
    of each; zeros where the loss does not depend on it. Only nodes that lead from `of` to the loss are visited: what is
    not asked for costs nothing, and gets nothing. The graph stays as it is and may be swept again, also by several
    threads at once. Raises ValueError for a loss of more numbers than one, and for a constant in `of`.
    """
    if loss.size != 1:
        raise ValueError(f"gradients: expected a loss of one number, found shape {loss.shape}")
    nodes = [_node(one, place) for place, one in enumerate(of)]
    found = pulled_back(loss, np.ones_like(loss.data), nodes)
    return [
        np.zeros(one.shape, one.dtype) if gradient is None else np.array(gradient)
        for one, gradient in zip(of, found, strict=True)
    ]


def _node(one: Any, place: int) -> Node:
    if not isinstance(one, Tensor) or one.node is None:
        raise ValueError(f"gradients: expected Tensors with a node, found a constant at place {place}")
    return one.node


def pulled_back(result: Tensor, gradient: Array, of: Sequence[Node]) -> list[Array | None]:
    """The gradients of these nodes, given that of a result; None where the result does not depend on one.

    They may be parts of other arrays, and are not to be written to.
    """
    wanted = {node: Total() for node in of}
    path = _between(result.node, wanted)
    totals = {node: wanted.get(node) or Total() for node in path}
    if result.node in totals:
        totals[result.node].add(gradient)
    for node in sorted(path, key=lambda node: -node.number):  # children before their parents
        total = totals[node] if node in wanted else totals.pop(node)
        is_wanted = [parent in path for parent in node.parents]
        if total.value is None or node.pull is None or not any(is_wanted):
            continue
        shares = node.pull(total.value, is_wanted)
        for parent, is_on_path, share in zip(node.parents, is_wanted, shares, strict=True):
            if is_on_path and share is not None:
                totals[parent].add(share)
    return [wanted[node].value for node in of]


def ancestors(end: Node | None) -> set[Node]:
    """A node and all that it was computed from; none for a constant."""
    found = {end} if end is not None else set()
    waiting = list(found)
    while waiting:
        for parent in waiting.pop().parents:
            if parent not in found:
                found.add(parent)
                waiting.append(parent)
    return found


def _between(end: Node | None, wanted: Container[Node]) -> set[Node]:
    """The nodes on a way from a wanted one to the end, both included."""
    path: set[Node] = set()
    for node in sorted(ancestors(end), key=lambda node: node.number):  # parents before their children
        if node in wanted or any(parent in path for parent in node.parents):
            path.add(node)
    return path
