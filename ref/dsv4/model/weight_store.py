"""The weights of a model in a bounded memory: read shortly before they are needed, given back least useful first.

A token needs all of a layer but its routed experts, and of these a few, which are known when the layer has begun. So
weights come in groups: an expert, or the rest of a layer. Whoever computes says early which groups it will ask for, and
several readers bring what is missing meanwhile. A group that is computed with stays; of the others the least useful is
dropped when room is needed: first experts, those that were asked for seldom and long ago, then layers, the last first.
"""

import heapq
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from weakref import WeakSet

import numpy as np

from dsv4.errors import SettingError
from dsv4.model.cache import Cache
from dsv4.model.weight_groups import Group, HeldWeights, Readable, Reading
from dsv4.ops import Ops
from dsv4.ops.engram import table_rows
from dsv4.ops.types import Array, Ints

READERS = 4
"""How many weights are read at the same time."""

HALF_LIFE = 32
"""After so many passes without it, an expert is half as useful."""

T = TypeVar("T")

Usefulness = tuple[int, float]
"""Compares two groups, whenever that is done; the smaller one goes first."""


@dataclass
class Held:
    """A group in memory, or on its way there."""

    group: Group[Any]
    parts: dict[str, Future[Any]]
    nbytes: int
    made: Any = None
    """What `make` gave, once it was asked for."""
    awaited: bool = False
    """Whether the present pass will ask for it."""
    users: int = 0
    """How many compute with it now."""
    score: float = 0.0
    """How often it was asked for, each time counting half as much after HALF_LIFE further passes."""
    when: int = 0
    """The pass in which the score was counted."""

    @property
    def is_needed(self) -> bool:
        """Whether it must stay."""
        return self.awaited or self.users > 0

    @property
    def usefulness(self) -> Usefulness:
        """The logarithm of what the score has become does not depend on when two groups are compared."""
        if self.group.place is not None:
            return 1, -self.group.place
        return 0, math.log2(self.score) + self.when / HALF_LIFE if self.score else -math.inf


class WeightStore:
    """Holds groups of a model's weights in what a budget leaves beside the weights that stay, and the caches."""

    def __init__(self, source: Readable, ops: Ops, memory: int) -> None:
        """memory: bytes for weights and caches together."""
        self._source, self._ops, self.memory = source, ops, memory
        self._held: dict[str, Held] = {}
        self._free: list[tuple[Usefulness, str]] = []
        self._scores: dict[str, tuple[float, int]] = {}
        self._total = self._needed = self._kept = 0
        self._caches: WeakSet[Cache] = WeakSet()
        self._passes, self._room = 0, memory
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="dsv4-weights")
        self.reading = Reading()

    @property
    def nbytes(self) -> int:
        """Bytes of the groups in memory and on their way there."""
        return self._total

    @property
    def room(self) -> int:
        """Bytes that groups may take: the budget without the weights that stay, and the caches that are in use."""
        return self.memory - self._kept - sum(cache.allocated for cache in self._caches)

    def keep(self, name: str) -> Any:
        """A weight that stays in memory. Raises CheckpointError where its file can no longer be read."""
        self._kept += self._source.stored_bytes(name)
        self._room = self.room
        return self._ops.place(self._source.read_weight(name))

    def rows(self, name: str, ids: Ints) -> tuple[Array, Ints]:
        """The rows of a table that ids name, read now and not kept [N, d], and where each id stands among them."""
        rows, places = self._read_rows(name, self._ops.to_numpy(ids))
        return self._ops.asarray(rows), self._ops.asarray(places)

    def table_rows(self, name: str, rows: Ints) -> Array:
        """As `dsv4.ops.engram.table_rows` of the weight of this name: on the host, read now and not kept."""
        return table_rows(*self._read_rows(name, rows))

    def require_room(self, nbytes: int, what: str) -> None:
        """Raises SettingError where the budget is not enough for so many bytes beside the weights that stay."""
        if self._kept + nbytes > self.memory:
            raise SettingError(
                f"memory: expected at least {self._kept + nbytes} bytes, for {what}, found {self.memory}"
            )

    def size(self, group: Group[Any]) -> int:
        """The bytes of a group."""
        return self.bytes_of(group.weights)

    def bytes_of(self, names: Iterable[str]) -> int:
        """The bytes of some weights, with their scales."""
        return sum(map(self._source.stored_bytes, names))

    def holds(self, group: Group[Any]) -> bool:
        """Whether a group is in memory, or on its way there."""
        return group.name in self._held

    def room_for(self, groups: Sequence[Group[Any]]) -> int:
        """The bytes that these groups may take: the room without all others that must stay."""
        found = (self._held.get(group.name) for group in groups)
        return self._room - self._needed + sum(held.nbytes for held in found if held and held.is_needed)

    def count(self, cache: Cache) -> None:
        """From now on a cache counts, for as long as anyone has it."""
        self._caches.add(cache)

    def begin_pass(self, cache: Cache) -> None:
        """A pass over this cache begins. What an earlier one has asked for and not taken, as it failed, may go."""
        self.count(cache)
        self._passes, self._room = self._passes + 1, self.room
        for held in [held for held in self._held.values() if held.awaited]:
            if any(part.exception() for part in held.parts.values()):
                self._drop(held)
            else:
                self._change(held, awaited=False)
        self._make_room(0)

    def ahead(self, groups: Sequence[Group[Any]], leave: int = 0) -> None:
        """Begin to read those of these groups that are not in memory, as far as there is room for them.

        leave: bytes that must then be left for others.
        """
        present = [self._held[group.name] for group in groups if group.name in self._held]
        for held in present:
            self.reading.hits += not held.is_needed
            self._change(held, awaited=True)
        for group in groups:
            if group.name not in self._held and self._needed + self.size(group) + leave <= self._room:
                self._change(self._begin_reading(group), awaited=True)

    @contextmanager
    def use(self, groups: Sequence[Group[T]]) -> Iterator[list[T]]:
        """What is made of some groups, which stay in memory until the end of the context; their use counts.

        Those for which there is no room are read all the same. Raises CheckpointError where a file can no longer be
        read.
        """
        self._room = self.room  # caches grow meanwhile; to ask them for each group would take a while
        used: list[Held] = []
        try:
            for group in groups:
                used.append(self._begin_use(group))
            yield [self._made(held) for held in used]
        finally:
            for held in used:
                self._change(held, users=held.users - 1)
            self._make_room(0)

    def _begin_use(self, group: Group[Any]) -> Held:
        held = self._held.get(group.name)
        if held is None:
            held = self._begin_reading(group)
        else:
            self.reading.hits += not held.is_needed
        if not held.users:
            held.score = held.score * 0.5 ** ((self._passes - held.when) / HALF_LIFE) + 1
            held.when = self._passes
        self._change(held, awaited=False, users=held.users + 1)
        return held

    def _made(self, held: Held) -> Any:
        """What is made of a group, when all of it has come."""
        if held.made is None:
            start = time.perf_counter()
            try:
                weights = {name: part.result() for name, part in held.parts.items()}
            except BaseException:
                self._drop(held)
                raise
            finally:
                self.reading.waited += time.perf_counter() - start
            held.made = held.group.make(HeldWeights(weights))
            held.parts = {}
        return held.made

    def _begin_reading(self, group: Group[Any]) -> Held:
        self._make_room(self.size(group))
        self.reading.reads += 1
        self.reading.nbytes += self.size(group)
        parts = {name: self._readers.submit(self._read, name) for name in group.weights}
        score, when = self._scores.pop(group.name, (0.0, 0))
        held = self._held[group.name] = Held(group, parts, self.size(group), score=score, when=when)
        self._total += held.nbytes
        return held

    def _read_rows(self, name: str, ids: Ints) -> tuple[Any, Ints]:
        numbers, places = np.unique(ids, return_inverse=True)
        return self._source.read_rows(name, numbers), places.reshape(ids.shape)

    def _read(self, name: str) -> Any:
        return self._ops.place(self._source.read_weight(name))

    def _change(self, held: Held, awaited: bool | None = None, users: int | None = None) -> None:
        """Note who needs a group, in the sum of what must stay or in the order in which the rest may go."""
        before = held.is_needed
        held.awaited = held.awaited if awaited is None else awaited
        held.users = held.users if users is None else users
        if self._held.get(held.group.name) is not held or before == held.is_needed:
            return
        self._needed += held.nbytes if held.is_needed else -held.nbytes
        if not held.is_needed:
            self._may_go(held)

    def _may_go(self, held: Held) -> None:
        """Add a group to the heap of those that may go; entries of groups that have changed since stay until then."""
        heapq.heappush(self._free, (held.usefulness, held.group.name))
        if len(self._free) > 2 * len(self._held) + 64:
            rest = [held for held in self._held.values() if not held.is_needed]
            self._free = [(held.usefulness, held.group.name) for held in rest]
            heapq.heapify(self._free)

    def _drop(self, held: Held) -> None:
        """Forget a group, but not how useful it was."""
        if self._held.get(held.group.name) is not held:
            return
        del self._held[held.group.name]
        self._scores[held.group.name] = held.score, held.when
        self._total -= held.nbytes
        self._needed -= held.nbytes if held.is_needed else 0

    def _make_room(self, nbytes: int) -> None:
        """Give back the least useful groups until so many bytes fit, or nothing is left that may go."""
        while self._total + nbytes > self._room and self._free:
            usefulness, name = heapq.heappop(self._free)
            held = self._held.get(name)
            if held is not None and not held.is_needed and held.usefulness == usefulness:
                self._drop(held)
                self.reading.evictions += 1


@dataclass(frozen=True)
class KeptWeights:
    """Weights that stay in memory once they were asked for, beside what a store holds."""

    store: WeightStore
    prefix: str = ""

    def under(self, prefix: str) -> "KeptWeights":
        """As in `Weights`."""
        return replace(self, prefix=self.prefix + prefix)

    def __getitem__(self, name: str) -> Any:
        """As in `Weights`. Raises CheckpointError where its file can no longer be read."""
        return self.store.keep(self.prefix + name)
