"""Where the rows of a cache stand: each follows from the positions that a call covers, known on the host.

A backend finds rows by index arrays, which are made and placed when first asked for, or by a kernel of its own from the
two numbers of each sequence that all of them follow from.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from dsv4.ops.types import Ints, Mask

Index = tuple[Ints, Ints]
"""Rows of an array [B, N, ...]: the sequence of each and its place there, in arrays of any one shape."""


@dataclass(frozen=True)
class Positions:
    """A run of consecutive positions for each sequence of a batch, padded on the right to one length."""

    starts: Ints
    """[B] the position of each row's first token. On the host."""
    counts: Ints
    """[B] how many tokens of each row are real. On the host."""
    length: int
    """S, the padded length."""
    placed_starts: Ints
    """[B] int64, the starts where the backend computes."""
    placed_counts: Ints
    """[B] int64, the counts where the backend computes."""
    placed: Ints
    """[B, S] the position of each token; padding goes on counting. Placed."""
    place: Callable[[npt.NDArray[Any]], Any]
    """Puts an array where the backend computes: its `asarray`."""

    def place_index(self, sequences: Ints, places: Ints) -> Index:
        """An index, placed."""
        return self.place(sequences), self.place(places)


@dataclass(frozen=True)
class Ring:
    """The rows of some positions in a ring that holds position p at slot p mod capacity."""

    positions: Positions
    keep: int
    """How many rows before the positions are wanted, at most capacity − 1."""
    capacity: int

    @cached_property
    def before(self) -> Index:
        """The slots, as an index [B, keep], of the positions before. Placed."""
        before = self.positions.starts[:, None] + np.arange(-self.keep, 0)
        every_row = np.arange(len(before))[:, None]
        return self.positions.place_index(every_row, before % self.capacity)

    @cached_property
    def slots(self) -> Index:
        """The slots, as an index [N], that the rows of the positions go to. Placed."""
        row, token = self._kept
        return self.positions.place_index(row, (self.positions.starts[row] + token) % self.capacity)

    @cached_property
    def rows(self) -> Index:
        """Those rows themselves, as an index [N] of [B, S]: the real ones that the ring has room for. Placed."""
        return self.positions.place_index(*self._kept)

    @cached_property
    def _kept(self) -> Index:
        token, counts = np.arange(self.positions.length), self.positions.counts[:, None]
        row, token = np.nonzero((token < counts) & (token >= counts - self.capacity))
        return row, token


@dataclass(frozen=True)
class Completed:
    """The entries of ρ tokens each that some positions complete: entry i of a sequence stands at slot i."""

    positions: Positions
    ratio: int
    """ρ"""

    @cached_property
    def firsts(self) -> Ints:
        """[B] the first entry that each sequence completes. On the host."""
        firsts: Ints = self.positions.starts // self.ratio
        return firsts

    @cached_property
    def counts(self) -> Ints:
        """[B] how many entries each sequence completes. On the host."""
        counts: Ints = (self.positions.starts + self.positions.counts) // self.ratio - self.firsts
        return counts

    @cached_property
    def rows(self) -> Index:
        """The entries, as an index [M] of [B, N], N being the most that a sequence completes. Placed."""
        return self.positions.place_index(*self._complete)

    @cached_property
    def slots(self) -> Index:
        """Where they go, as an index [M] of all entries. Placed."""
        row, number = self._complete
        return self.positions.place_index(row, self.firsts[row] + number)

    @cached_property
    def _complete(self) -> Index:
        row, number = np.nonzero(np.arange(self.counts.max()) < self.counts[:, None])
        return row, number


@dataclass(frozen=True)
class Blocks:
    """The tokens of the blocks of ρ that some positions complete, in rows as `Ops.extend_ring` gives them."""

    completed: Completed
    keep: int
    """How many rows stand before those of the positions: ρ − 1, or 2ρ − 1 with overlap."""

    @property
    def overlaps(self) -> bool:
        """Whether an entry sees the block before its own, too, as in CSA."""
        return self.keep >= self.completed.ratio

    @cached_property
    def tokens(self) -> Index:
        """The tokens, as an index [B, N, ρ] of those rows, N blocks at most in a sequence; with overlap [B, 1 + N, ρ].
        Placed."""
        positions, numbers = self.completed.positions, self._token_positions
        columns = numbers - positions.starts[:, None, None] + self.keep
        last = self.keep + positions.length - 1  # blocks that a shorter sequence does not complete: never stored
        return positions.place_index(np.arange(len(numbers))[:, None, None], np.minimum(columns, last))

    @cached_property
    def before_start(self) -> Mask:
        """[B, N, ρ, 1] (with overlap 1 + N) which of them would stand before the sequence, and are none. Placed."""
        before: Mask = self.completed.positions.place((self._token_positions < 0)[..., None])
        return before

    @property
    def _token_positions(self) -> Ints:
        ratio, most = self.completed.ratio, int(self.completed.counts.max())
        numbers = self.completed.firsts[:, None] + np.arange(-1 if self.overlaps else 0, most)
        positions: Ints = numbers[:, :, None] * ratio + np.arange(ratio)
        return positions
