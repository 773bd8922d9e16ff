"""Groups of weights that are read together, and what is counted of their reading."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol, TypeVar

from dsv4.model.weights import StoredTensors, Weights
from dsv4.ops.types import Ints

T = TypeVar("T")


class Readable(StoredTensors, Protocol):
    """A source that reads a weight into memory of its own. `dsv4.Checkpoint` is one."""

    def stored_bytes(self, name: str) -> int:
        """The size of a weight with its scales."""

    def read_weight(self, name: str) -> Any:
        """The weight as `weight` gives it, its values checked, but not mapped from a file."""

    def read_rows(self, name: str, numbers: Ints) -> Any:
        """Rows [N, d] of a weight that is dense or has scales for parts of single rows, as `read_weight` gives all."""


@dataclass(frozen=True)
class Group(Generic[T]):
    """Weights that are needed together, and what is made of them."""

    name: str
    weights: tuple[str, ...]
    make: Callable[[Weights], T]
    """Takes the weights by their full names."""
    place: int | None = None
    """The place among groups of which every token needs all, in their order; None for one that few tokens need."""


@dataclass(frozen=True)
class HeldWeights:
    """Weights that are in memory, by name."""

    held: Mapping[str, Any]
    prefix: str = ""

    def under(self, prefix: str) -> "HeldWeights":
        """As in `Weights`."""
        return replace(self, prefix=self.prefix + prefix)

    def __getitem__(self, name: str) -> Any:
        """As in `Weights`."""
        return self.held[self.prefix + name]


@dataclass
class Reading:
    """What a store has done so far."""

    reads: int = 0
    """Groups read: experts, and layers without their experts."""
    nbytes: int = 0
    """Bytes of these."""
    hits: int = 0
    """Groups that were in memory when they were asked for."""
    evictions: int = 0
    """Groups given back."""
    waited: float = 0.0
    """Seconds that layers have waited for readers."""
    began: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """The time since the store was made."""
        return time.perf_counter() - self.began
