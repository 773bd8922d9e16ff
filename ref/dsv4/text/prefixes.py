"""Caches of what a model has read, kept for prompts that begin in the same way.

A cache can be taken up where it stands and nowhere else: of the windows and of the blocks that are being compressed
only the last tokens' rows are there. So caches are kept at chosen places: at the edges of blocks, before a prompt's
last token, and at the end of an answer.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from dsv4.arguments import integer
from dsv4.config import HCA_RATIO
from dsv4.model.cache import Cache
from dsv4.ops.types import Array, Ints

PREFIX_MEMORY = 2**28
"""Bytes for prefixes, unless said otherwise."""

MOST_EDGES = 16
"""At how many edges of blocks caches of one prompt are kept at most."""


@dataclass(frozen=True)
class Prefix:
    """What a model has made of the first tokens of a text."""

    cache: Cache
    """Of one sequence. It is kept as it is: who goes on from here takes a copy."""
    state: Array | None
    """[1, 1, n, d] the streams of its last token where there is a drafter, which reads them with the next token."""

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return self.cache.allocated + (0 if self.state is None else int(self.state.nbytes))


class Prefixes:
    """A bounded memory of prefixes of one model. Where there is no room, the one that was used longest ago goes.

    Prefixes are of a kind, which says what else must be the same for one to stand for another. Not for several
    threads at once.
    """

    def __init__(self, memory: int) -> None:
        """memory: bytes that all prefixes may take, token ids included; 0 for none. Raises SettingError."""
        self.memory = integer("memory", memory)
        self._kept: OrderedDict[tuple[Hashable, bytes], Prefix] = OrderedDict()
        self.nbytes = 0
        """Bytes that are taken."""

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, ids: Ints, kind: Hashable) -> Prefix | None:
        """The longest prefix of this kind that the ids [N] begin with and go on behind: at most N − 1 tokens."""
        text = _bytes(ids)
        token = len(text) // len(ids)
        lengths = {len(begin) for known, begin in self._kept if known == kind and len(begin) <= len(text) - token}
        for length in sorted(lengths, reverse=True):
            if found := self._kept.get((kind, text[:length])):
                self._kept.move_to_end((kind, text[:length]))
                return found
        return None

    def keep(self, ids: Ints, kind: Hashable, make: Callable[[], Prefix]) -> None:
        """Keep what a model has made of the ids [N]; make: called for it if it is not kept yet.

        One that is kept counts as used. One that is larger than the whole memory is not kept.
        """
        key = kind, _bytes(ids)
        if key in self._kept:
            self._kept.move_to_end(key)
            return
        prefix = make()
        needed = _nbytes(key, prefix)
        if needed > self.memory:
            return
        while self.nbytes + needed > self.memory:
            self.nbytes -= _nbytes(*self._kept.popitem(last=False))
        self._kept[key] = prefix
        self.nbytes += needed


def edges(length: int, block: int = HCA_RATIO) -> range:
    """The places in a prompt of so many tokens at which blocks end and a cache is kept.

    Multiples of a block, or of 2, 4, … blocks, so that there are at most MOST_EDGES; all before the last token.
    """
    while (length - 1) // block > MOST_EDGES:
        block *= 2
    return range(block, length, block)


def _bytes(ids: Ints) -> bytes:
    return ids.astype("<i8").tobytes()


def _nbytes(key: tuple[Hashable, bytes], prefix: Prefix) -> int:
    return len(key[1]) + prefix.nbytes
