"""Tables of weights, made once for as long as the weights live."""

import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol, TypeVar


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
