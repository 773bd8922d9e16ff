"""The routed experts of all layers in a bounded memory: read when routing names them, given back least useful first.

A token needs few of the experts, and which ones is known only layer by layer. Each pass therefore says early whom it
will ask for, and several readers bring what is missing while the layer computes. Experts that were asked for often and
lately stay; when room is needed, the least useful of those that nobody waits for is dropped.
"""

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol, overload
from weakref import WeakSet

import numpy as np

from dsv4.errors import SettingError
from dsv4.model.cache import Cache
from dsv4.model.weights import MATRICES, Source
from dsv4.ops import Expert, Ops
from dsv4.ops.types import Ints

READERS = 4
"""How many experts are read at the same time."""

HALF_LIFE = 32
"""After so many passes without it, an expert is half as useful."""


class Readable(Source, Protocol):
    """A source that reads a weight into memory of its own. `dsv4.Checkpoint` is one."""

    @property
    def routed_nbytes(self) -> int:
        """The size of all routed experts in bytes, scales included."""

    def stored_bytes(self, name: str) -> int:
        """The size of a weight with its scales."""

    def read_weight(self, name: str) -> Any:
        """The weight as `weight` gives it, its values checked, but not mapped from a file."""


@dataclass
class Reading:
    """What a store has done so far."""

    reads: int = 0
    """Experts read."""
    nbytes: int = 0
    """Bytes of these."""
    hits: int = 0
    """Experts that were in memory, or on their way there, when a layer asked for them."""
    evictions: int = 0
    """Experts given back."""
    waited: float = 0.0
    """Seconds that layers have waited for readers."""
    began: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """The time since the store was made."""
        return time.perf_counter() - self.began


@dataclass
class Held:
    """An expert in memory, or on its way there."""

    future: Future[Expert]
    nbytes: int
    awaited: bool = True
    """Whether the present pass has asked for it and not yet taken it."""


class ExpertStore:
    """Holds experts of a model in what a budget leaves beside all other weights and the caches."""

    def __init__(self, source: Readable, ops: Ops, memory: int) -> None:
        """memory: bytes for weights and caches together. Weights outside the routed experts stay mapped, and count.

        Raises SettingError where these, and the experts of one token in one layer, do not fit.
        """
        self._source, self._ops = source, ops
        self._budget = memory - (source.nbytes - source.routed_nbytes)
        self._held: dict[str, Held] = {}
        self._uses: dict[str, tuple[float, int]] = {}
        self._caches: WeakSet[Cache] = WeakSet()
        self._passes = 0
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="dsv4-experts")
        self.reading = Reading()
        missing = source.config.num_experts_per_tok * self._size("layers.0.ffn.experts.0.") - self._budget
        if missing > 0:
            raise SettingError(
                f"memory: expected at least {memory + missing} bytes, for the weights that every token needs and the "
                f"experts of one layer, found {memory}"
            )

    @property
    def nbytes(self) -> int:
        """Bytes of the experts in memory and on their way there."""
        return sum(held.nbytes for held in self._held.values())

    @property
    def room(self) -> int:
        """Bytes that experts may take: the budget without all other weights and without the caches that are in use."""
        return self._budget - sum(cache.allocated for cache in self._caches)

    def count(self, cache: Cache) -> None:
        """From now on a cache counts, for as long as anyone has it."""
        self._caches.add(cache)

    def begin_pass(self, cache: Cache) -> None:
        """A pass over this cache begins. Nobody waits any more for what an earlier one has asked for and not taken."""
        self.count(cache)
        self._passes += 1
        for held in self._held.values():
            held.awaited = False
        self._make_room(0)

    def ahead(self, names: Sequence[str]) -> None:
        """Begin to read those of these experts that are not in memory, as far as there is room for all of them.

        names: what the names of an expert's weights begin with, such as `layers.3.ffn.experts.17.`.
        """
        present = [name for name in names if name in self._held]
        for name in present:
            self.reading.hits += not self._held[name].awaited
            self._held[name].awaited = True
        for name in names:
            if name not in self._held and self._make_room(self._size(name)):
                self._begin_reading(name)

    def take(self, name: str) -> Expert:
        """An expert, whose use counts. One for which there is no room is read and not kept.

        Raises CheckpointError where its file can no longer be read.
        """
        self._uses[name] = self._usefulness(name) + 1, self._passes
        held = self._held.get(name)
        if held is not None:
            self.reading.hits += not held.awaited
        elif self._make_room(self._size(name)):
            held = self._begin_reading(name)
        else:
            self._count(name)
            return self._read(name)
        held.awaited = False
        start = time.perf_counter()
        try:
            return held.future.result()
        except BaseException:
            del self._held[name]
            raise
        finally:
            self.reading.waited += time.perf_counter() - start

    def _begin_reading(self, name: str) -> Held:
        self._count(name)
        held = self._held[name] = Held(self._readers.submit(self._read, name), self._size(name))
        return held

    def _count(self, name: str) -> None:
        self.reading.reads += 1
        self.reading.nbytes += self._size(name)

    def _read(self, name: str) -> Expert:
        return Expert(*(self._ops.place(self._source.read_weight(weight)) for weight in _weights(name)))

    def _size(self, name: str) -> int:
        return sum(map(self._source.stored_bytes, _weights(name)))

    def _make_room(self, nbytes: int) -> bool:
        """Give back the least useful experts until so many bytes fit; false where those that are awaited do not let."""
        room = self.room
        while self.nbytes + nbytes > room:
            free = [name for name, held in self._held.items() if not held.awaited and held.future.done()]
            if not free:
                return False
            del self._held[min(free, key=self._usefulness)]
            self.reading.evictions += 1
        return True

    def _usefulness(self, name: str) -> float:
        """How often an expert was taken, each time counting half as much after HALF_LIFE further passes."""
        score, when = self._uses.get(name, (0.0, 0))
        return float(score * 0.5 ** ((self._passes - when) / HALF_LIFE))


class StoredExperts(Sequence[Expert]):
    """The routed experts of a layer, in a store: as `dsv4.model.weights.Experts`, which keeps all of them."""

    def __init__(self, store: ExpertStore, ops: Ops, prefix: str, count: int) -> None:
        """prefix: what their names begin with, such as `layers.3.ffn.experts.`; count: how many there are."""
        self._store, self._ops, self._prefix, self._count = store, ops, prefix, count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, number: int) -> Expert: ...
    @overload
    def __getitem__(self, number: slice) -> list[Expert]: ...
    def __getitem__(self, number: int | slice) -> Expert | list[Expert]:
        if isinstance(number, slice):
            return [self[one] for one in range(len(self))[number]]
        return self._store.take(f"{self._prefix}{range(self._count)[number]}.")

    def ahead(self, numbers: Ints) -> None:
        """These experts will be asked for: numbers of any shape."""
        self._store.ahead([f"{self._prefix}{number}." for number in np.unique(self._ops.to_numpy(numbers))])


def _weights(name: str) -> list[str]:
    return [f"{name}{matrix}.weight" for matrix in MATRICES]
