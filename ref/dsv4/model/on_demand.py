"""Sequences of which an item is made, or fetched, when it is asked for."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import TypeVar, overload

T = TypeVar("T")


class OnDemand(Sequence[T]):
    """A sequence that says how long it is, and gives one item by its number; slices are lists of such items."""

    @abstractmethod
    def item(self, number: int) -> T:
        """The item of a number from 0 to the length less 1."""

    @overload
    def __getitem__(self, number: int) -> T: ...
    @overload
    def __getitem__(self, number: slice) -> list[T]: ...
    def __getitem__(self, number: int | slice) -> T | list[T]:
        if isinstance(number, slice):
            return [self.item(one) for one in range(len(self))[number]]
        return self.item(range(len(self))[number])
