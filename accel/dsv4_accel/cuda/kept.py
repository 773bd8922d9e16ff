"""What was made of arrays, for as long as they live: tables of weights, and what the next launches want of an input."""

import weakref
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, Protocol, TypeVar


class Made(Protocol):
    """What is made of some weights."""

    @property
    def lasts(self) -> bool:
        """Whether all of the weights were placed, and so do not change."""


M = TypeVar("M", bound=Made)

Known = dict[tuple[int, ...], tuple[list[weakref.ref[Any]], M]]
"""What was made for owners that are still alive, by their identities."""


def kept(known: Known[M], owners: tuple[Any, ...], make: Callable[[], M | None]) -> M | None:
    """What `make` gives, once for the same owners if it lasts, and each time for owners that cannot be watched."""
    key = tuple(map(id, owners))
    found = known.get(key)
    if found is not None and all(one() is owner for one, owner in zip(found[0], owners, strict=True)):
        return found[1]
    made, forget = make(), known.pop  # at the end of a process the module's names are gone before the owners
    if made is not None and made.lasts:
        with suppress(TypeError):
            known[key] = [weakref.ref(owner, lambda _: forget(key, None)) for owner in owners], made
    return made


K = TypeVar("K")
V = TypeVar("V")


class Recent(OrderedDict[K, tuple[weakref.ref[Any], V]], Generic[K, V]):
    """What was made of the last few arrays, with a reference to each, while they live; by where they lie."""

    def __init__(self, most: int) -> None:
        """most: how many are kept."""
        super().__init__()
        self._most = most

    def keep(self, key: K, owner: Any, made: V) -> None:
        """Remember what was made of `owner`, which does not change."""
        forget = self.pop  # at the end of a process the module's names are gone before the owner
        self[key] = weakref.ref(owner, lambda _: forget(key, None)), made
        while len(self) > self._most:
            self.popitem(last=False)
