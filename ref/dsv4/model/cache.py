"""What is kept of a sequence for its next tokens (report §3.6).

Every part is addressed by position, so the lengths alone determine which rows are in use: a rollback only shortens
them, and what lies beyond is overwritten by the tokens that come next. Sequences of one batch may differ in length.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from dsv4.arguments import integer
from dsv4.config import CSA_RATIO
from dsv4.errors import PromptError, quoted
from dsv4.model.rows import AsComputed, Coding, Entries, RecentRows
from dsv4.model.span import Span
from dsv4.ops import Ops
from dsv4.ops.packed_rows import Rows
from dsv4.ops.types import Array, Ints

ChangeRing = Callable[[RecentRows], RecentRows]
"""From the last rows of a cache to others."""

ChangeEntries = Callable[[Entries, int], Entries]
"""From the entries of a cache, each for so many tokens, to others."""


@dataclass
class CompressorCache:
    """The state of one compressor: the projections of tokens whose block is not complete, and the entries so far."""

    ratio: int
    kv: RecentRows
    score: RecentRows
    entries: Entries

    @classmethod
    def create(cls, ops: Ops, batch: int, ratio: int, spare: int, coding: Coding, dtype: np.dtype) -> "CompressorCache":
        """coding: of its entries; dtype: of its projections, which stay as they are.

        CSA keeps both halves of its projections and the whole previous block.
        """
        overlap = 2 if ratio == CSA_RATIO else 1
        pending = AsComputed(overlap * coding.channels, np.dtype(dtype))
        kv, score = (RecentRows(ops, batch, overlap * ratio - 1, spare, pending) for _ in range(2))
        return cls(ratio, kv, score, Entries(ops, batch, coding))

    def extend(self, kv: Array, score: Array, ape: Array, span: Span) -> tuple[Array, Array]:
        """Add the projections of the span's tokens [B, S, c], the score with ape [ρ, c] by its place in the block.

        Gives back both behind the rows that they follow, as `RecentRows.extend`: [B, keep + S, c].
        """
        ring, stored = span.ring(self.kv.keep, self.kv.rows.shape[1]), (self.kv.rows, self.score.rows)
        (self.kv.rows, self.score.rows), joined = self.kv.ops.extend_pending(stored, (kv, score), ape, ring)
        return joined

    def changed(self, ring: ChangeRing, entries: ChangeEntries) -> "CompressorCache":
        """Another one, of changed rows."""
        return CompressorCache(self.ratio, ring(self.kv), ring(self.score), entries(self.entries, self.ratio))

    def pending_nbytes(self, lengths: Ints) -> int:
        """Bytes of the projections that later entries need: the pending tail and, for CSA, the block before it."""
        overlap = self.kv.keep // self.ratio  # 1 for CSA, 0 for HCA: whole blocks before the pending one
        needed = np.minimum(lengths, lengths % self.ratio + overlap * self.ratio)
        return int(needed.sum()) * int(self.kv.rows[0, 0].nbytes + self.score.rows[0, 0].nbytes)


class Window(Protocol):
    """Where attention finds the keys of its window."""

    def extend(self, rows: Array, span: Span) -> Rows:
        """The rows that the span's tokens may read, their own [B, S, c] among them: [B, N, c]."""


class LayerState(Protocol):
    """What an attention layer reads, and adds to: a `LayerCache`, or what a block of drafts sees in its place."""

    @property
    def window(self) -> Window:
        """The keys of the last tokens."""

    @property
    def compressor(self) -> CompressorCache | None:
        """The entries, and the tokens whose block is not full yet; None in a layer with a window alone."""

    @property
    def indexer(self) -> CompressorCache | None:
        """The same of the indexer's keys; None but in a CSA layer."""


@dataclass
class LayerCache:
    """The state of one attention layer."""

    window: RecentRows
    compressor: CompressorCache | None = None
    indexer: CompressorCache | None = None

    def stores(self) -> list[RecentRows | Entries]:
        """Everything that holds rows."""
        compressors = [part for part in (self.compressor, self.indexer) if part]
        return [self.window, *(store for part in compressors for store in (part.kv, part.score, part.entries))]

    def changed(self, ring: ChangeRing, entries: ChangeEntries) -> "LayerCache":
        """Another one, of changed rows."""
        compressors = (part and part.changed(ring, entries) for part in (self.compressor, self.indexer))
        return LayerCache(ring(self.window), *compressors)

    def nbytes(self, lengths: Ints) -> dict[str, int]:
        """Bytes in use in each part, for sequences of these lengths."""
        compressors = [part for part in (self.compressor, self.indexer) if part]
        return {
            "window": self.window.nbytes(lengths),
            "compressed": self.compressor.entries.nbytes(lengths // self.compressor.ratio) if self.compressor else 0,
            "indexer keys": self.indexer.entries.nbytes(lengths // self.indexer.ratio) if self.indexer else 0,
            "pending": sum(part.pending_nbytes(lengths) for part in compressors),
        }


@dataclass
class Track:
    """Layers that advance together, with the number of tokens that each sequence has put through them."""

    layers: list[Any]
    """A `LayerCache` of V4 or of V4.1 for each: what has stores, changed and nbytes."""
    lengths: Ints
    max_rollback: int
    ahead: int = 0
    """How many tokens behind its position a layer has read, and forgets with them: 1 for the MTP layer."""
    furthest: Ints = field(init=False)
    """[B] the highest length ever written. A rollback goes at most max_rollback below it: older rows are gone."""

    def __post_init__(self) -> None:
        self.furthest = self.lengths

    def begin(self, counts: Ints) -> None:
        """Make ready for new tokens, [B]; they count once `finish` is called.

        Raises PromptError if a call that failed halfway has overwritten rows that are still needed.
        """
        if (self.furthest - self.lengths > self.max_rollback).any():
            raise PromptError("cache: expected one whose last call succeeded, found rows that a failed call overwrote")
        self.furthest = np.maximum(self.furthest, self.lengths + counts)

    def finish(self, counts: Ints) -> None:
        """Count the new tokens, [B]."""
        self.lengths = self.lengths + counts

    def follow(self, left: Ints, counts: Ints) -> None:
        """Forget what was read of tokens that are forgotten: counts [B] of them, left [B] remain."""
        remain = np.where(counts > 0, np.maximum(left - self.ahead, 0), left)
        self.lengths = np.minimum(self.lengths, remain)


class Cache:
    """The state of a batch of sequences: `model(ids, cache)` reads it and adds to it.

    Made by `Model.new_cache`. The layers and what drafts for them, `mtp`, advance on their own tracks: the MTP layer
    sees a token only together with the next one, the rings of a DSpark drafter see each token as the layers do.
    """

    def __init__(self, main: Track, mtp: Track) -> None:
        self.main = main
        self.mtp = mtp

    @property
    def lengths(self) -> Ints:
        """[B] how many tokens of each sequence the cache holds."""
        return self.main.lengths

    def fork(self) -> "Cache":
        """An independent copy: whatever happens to one leaves the other as it is."""
        return copy.deepcopy(self)

    def select(self, sequences: Sequence[int] | Ints) -> "Cache":
        """An independent cache of some of the sequences, in this order; one may stand there several times.

        sequences: their numbers in this batch, at least one. Raises PromptError for a number that there is not.
        """
        batch = len(self.lengths)
        chosen = np.array([integer("sequence", one, most=batch - 1, error=PromptError) for one in sequences], np.int64)
        if not len(chosen):
            raise PromptError("sequences: expected at least one, found none")
        selected = self.fork()
        for store in selected._stores():
            store.rows = store.rows[chosen]
        for track in (selected.main, selected.mtp):
            track.lengths, track.furthest = track.lengths[chosen], track.furthest[chosen]
        return selected

    @staticmethod
    def join(caches: "Sequence[Cache]") -> "Cache":
        """An independent cache of all sequences of several caches, those of the first one first.

        Raises PromptError for no cache, and for caches that were not made alike: by one model, with one max_rollback,
        all of them packed or none.
        """
        if not caches:
            raise PromptError("caches: expected at least one, found none")
        joined = caches[0].fork()
        stores = [cache._stores() for cache in caches]
        kinds = [[(type(store), store.rows.dtype, store.rows.shape[2:]) for store in each] for each in stores]
        backs = [(cache.main.max_rollback, cache.mtp.max_rollback) for cache in caches]
        if any(kind != kinds[0] for kind in kinds) or any(back != backs[0] for back in backs):
            raise PromptError(
                "caches: expected caches of the same model with the same max_rollback, found different ones"
            )
        for store, alike in zip(joined._stores(), zip(*stores, strict=True), strict=True):
            store.rows = _stack_batches([one.rows for one in alike])
        for track, tracks in ((joined.main, [one.main for one in caches]), (joined.mtp, [one.mtp for one in caches])):
            track.lengths = np.concatenate([one.lengths for one in tracks])
            track.furthest = np.concatenate([one.furthest for one in tracks])
        return joined

    def rollback(self, count: int | Ints) -> None:
        """Forget the last tokens: `count` of every sequence, or count[b] of sequence b.

        The MTP layer goes back one position further, since it has read position t together with token t + 1.
        Raises PromptError if a sequence has fewer tokens, or if the rows before them are overwritten: at most
        max_rollback tokens behind the furthest position.
        """
        try:
            counts = np.asarray(count)
        except ValueError as error:  # lists within lists
            raise PromptError(f"rollback: expected an integer or a list of them, found {quoted(count)}") from error
        if counts.shape not in ((), self.lengths.shape) or not np.issubdtype(counts.dtype, np.integer):
            expected = f"an integer, or one for each of {len(self.lengths)}"
            raise PromptError(f"rollback: expected {expected}, found {quoted(count)}")
        if (counts < 0).any() or (counts > self.lengths).any():
            raise PromptError(f"rollback: expected 0 … {self.lengths.min()} tokens, found {quoted(count)}")
        left = self.lengths - counts.astype(np.int64)
        most, found = self.main.max_rollback, (self.main.furthest - left).max()
        if found > most:
            raise PromptError(
                f"rollback: expected at most max_rollback = {most} tokens behind the furthest position, "
                f"found {found}; make the cache with new_cache(max_rollback=…)"
            )
        self.main.lengths = left
        self.mtp.follow(left, counts)

    @property
    def allocated(self) -> int:
        """Bytes of all arrays, with rows that are only kept for a rollback and room to grow."""
        return sum(int(store.rows.nbytes) for store in self._stores())

    def nbytes(self) -> dict[str, int]:
        """Bytes in use in each part: "window", "compressed", "indexer keys", "pending", draft layers included.

        Rows that are only kept for a rollback, and room to grow, do not count.
        """
        parts = [layer.nbytes(track.lengths) for track in (self.main, self.mtp) for layer in track.layers]
        return {name: sum(part[name] for part in parts) for name in parts[0]}

    def _stores(self) -> list[RecentRows | Entries]:
        """Everything that holds rows, always in the same order."""
        return [store for track in (self.main, self.mtp) for layer in track.layers for store in layer.stores()]


def _stack_batches(several: list[Array]) -> Array:
    """Rows [B, N, width] of several batches, each with room for as many as the one that has most of it."""
    most = max(rows.shape[1] for rows in several)
    filled = []
    for rows in several:
        while rows.shape[1] < most:  # the room of entries has doubled, once or several times
            rows = np.concatenate([rows, np.zeros_like(rows)], axis=1)
        filled.append(rows)
    return np.concatenate(filled, axis=0)
