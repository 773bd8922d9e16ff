"""A model in fragments of nearly equal size, each of which is sent and merged by itself."""

import heapq
from collections.abc import Mapping

from dsv4.arguments import integer
from dsv4.errors import SettingError


def packed(sizes: Mapping[str, int], fragments: int) -> tuple[tuple[str, ...], ...]:
    """The names of each fragment's tensors: greedily, the largest tensor first, into the fragment with least in it.

    sizes: how many numbers each tensor has, by its name; fragments: P. Every name is in exactly one fragment, none is
    empty, and the largest is at most a tensor larger than the smallest. The order of `sizes` does not matter: of equal
    tensors the first by name goes first, of equal fragments the first is filled. Names in a fragment are in order.
    Raises SettingError for more fragments than tensors.
    Source: Decoupled DiLoCo (2604.21428, second-hand): greedy bin packing of tensors; the rules for ties are ours.
    """
    integer("fragments", fragments, least=1)
    if fragments > len(sizes):
        raise SettingError(f"fragments: expected at most one for each of the {len(sizes)} tensors, found {fragments}")
    names: list[list[str]] = [[] for _ in range(fragments)]
    filled = [(0, place) for place in range(fragments)]
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        size, place = heapq.heappop(filled)
        names[place].append(name)
        heapq.heappush(filled, (size + sizes[name], place))
    if not all(names):
        raise SettingError("sizes: expected tensors that hold numbers, found empty ones")
    return tuple(tuple(sorted(fragment)) for fragment in names)
