"""Where a cache keeps its rows: the last ones of each sequence in a ring, or all entries, as computed or as bytes."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from dsv4.model.span import Span
from dsv4.ops import Ops
from dsv4.ops.packed_rows import Rows
from dsv4.ops.places import Completed
from dsv4.ops.types import Array, Ints


class Coding(Protocol):
    """A way to store rows [B, N, channels] as rows [B, N, width] of another dtype, and to read them back."""

    @property
    def channels(self) -> int:
        """The numbers of a row."""

    @property
    def width(self) -> int:
        """What is stored for them."""

    @property
    def stored(self) -> np.dtype[Any]:
        """The dtype of what is stored."""

    def pack(self, rows: Array) -> Any:
        """[B, N, channels] -> [B, N, width], both where the backend computes."""

    def rows(self, packed: Any) -> Rows:
        """[B, N, width] as what operations take: rows [B, N, channels]."""

    def unpack(self, packed: Any) -> Array:
        """[B, N, width] -> [B, N, channels] of floats, both where the backend computes."""


@dataclass(frozen=True)
class AsComputed:
    """Rows of floats as they are."""

    channels: int
    stored: np.dtype[Any]

    @property
    def width(self) -> int:
        """As many as there are channels."""
        return self.channels

    def pack(self, rows: Array) -> Array:
        """As in `Coding`."""
        return rows

    def rows(self, packed: Array) -> Array:
        """As in `Coding`."""
        return packed

    def unpack(self, packed: Array) -> Array:
        """As in `Coding`."""
        return packed


class RecentRows:
    """The last rows of each sequence, one row per token, in a ring: position p stands at slot p mod capacity."""

    def __init__(self, ops: Ops, batch: int, keep: int, spare: int, coding: Coding) -> None:
        """keep: how many rows before a new token are needed; spare: how many tokens a rollback may take back."""
        self.ops, self.keep, self.coding = ops, keep, coding
        capacity = keep + 1 + spare  # one more for the new token itself
        self.rows = ops.zeros((batch, capacity, coding.width), coding.stored)

    def extend(self, rows: Array, span: Span) -> Any:
        """Add the span's rows [B, S, channels], and give back what they follow: `Rows` [B, keep + S, channels].

        Column j of row b is position starts[b] − keep + j; columns of negative positions hold anything. The span's own
        rows come back as they are stored, so that they do not depend on how a prompt is cut.
        """
        ring = span.ring(self.keep, self.rows.shape[1])
        self.rows, joined = self.ops.extend_ring(self.rows, self.coding.pack(rows), ring)
        return self.coding.rows(joined)

    def newest(self, span: Span) -> Array:
        """The keep + 1 rows before the span, which need not follow them in this ring: floats [B, keep + 1, channels].

        Column j of row b is position starts[b] − keep − 1 + j; columns of negative positions hold anything.
        """
        before = span.ring(self.keep + 1, self.rows.shape[1]).before
        return self.coding.unpack(self.rows[before])

    def nbytes(self, lengths: Ints) -> int:
        """Bytes of the newest rows, keep + 1 of each sequence at most, for sequences of these lengths."""
        return int(np.minimum(lengths, self.keep + 1).sum()) * int(self.rows[0, 0].nbytes)


class Entries:
    """All compressed entries of each sequence: entry i stands at slot i, and the array doubles when it is full."""

    def __init__(self, ops: Ops, batch: int, coding: Coding) -> None:
        self.ops, self.coding = ops, coding
        self.rows = ops.zeros((batch, 16, coding.width), coding.stored)

    def write(self, rows: Array, completed: Completed) -> None:
        """Store the entries that a span completes, the first rows of each sequence of [B, N, channels]."""
        count = (completed.firsts + completed.counts).max()
        while self.rows.shape[1] < count:
            self.rows = np.concatenate([self.rows, np.zeros_like(self.rows)], axis=1)
        self.rows = self.ops.write_entries(self.rows, self.coding.pack(rows), completed)

    def first(self, count: int) -> Rows:
        """The first entries, [B, count, channels]. Rows with fewer entries hold anything behind theirs."""
        return self.coding.rows(self.rows[:, :count])

    def nbytes(self, counts: Ints) -> int:
        """Bytes of the first counts[b] entries of each row."""
        return int(counts.sum()) * int(self.rows[0, 0].nbytes)
