"""When everything in a directed acyclic graph of work is done, where each resource does one thing at a time."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Node(NamedTuple):
    """A piece of work."""

    resource: str
    """Who does it: pieces of one resource are done in the order in which they are listed."""
    seconds: float
    after: Sequence[int] = ()
    """Which pieces must be done before, by their place in the list."""


def finish_times(nodes: Iterable[Node]) -> list[float]:
    """When each node is done, in seconds from the start, in the order of the nodes.

    A node starts as soon as its resource has done all before it and the nodes that it waits for are done, all of which
    must come before it in the list.
    """
    free: dict[str, float] = {}
    done: list[float] = []
    for resource, seconds, after in nodes:
        start = max([free.get(resource, 0.0), *(done[place] for place in after)])
        free[resource] = start + seconds
        done.append(start + seconds)
    return done
