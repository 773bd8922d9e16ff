"""What is kept of a sequence by the layers of V4.1: windows everywhere, entries and index keys where they are made.

`dsv4.model.cache.Cache` holds it, as it holds V4's. All is addressed by position, so that a rollback only shortens.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dsv4.config41 import Config41
from dsv4.model.cache import ChangeEntries, ChangeRing, Window
from dsv4.model.packed_cache import KeyCoding
from dsv4.model.rows import AsComputed, Coding, Entries, RecentRows
from dsv4.model41.packed_cache import EntryCoding41, WindowCoding41
from dsv4.ops import Ops
from dsv4.ops.types import Ints


@dataclass
class SourceCache:
    """The state of a source: the projections of tokens whose block is not complete, and its entries and keys so far.

    Completed blocks stay for as long as a rollback may open them again. score is None where each token is a block.
    """

    ratio: int
    kv: RecentRows
    score: RecentRows | None
    entries: Entries
    keys: Entries

    def stores(self) -> list[RecentRows | Entries]:
        """Everything that holds rows."""
        return [self.kv, *([self.score] if self.score else []), self.entries, self.keys]

    def changed(self, ring: ChangeRing, entries: ChangeEntries) -> "SourceCache":
        """Another one, of changed rows."""
        score = ring(self.score) if self.score else None
        both = (entries(part, self.ratio) for part in (self.entries, self.keys))
        return SourceCache(self.ratio, ring(self.kv), score, *both)

    def nbytes(self, lengths: Ints) -> dict[str, int]:
        """Bytes in use in each part, for sequences of these lengths."""
        pending = [self.kv, *([self.score] if self.score else [])]
        return {
            "compressed": self.entries.nbytes(lengths // self.ratio),
            "indexer keys": self.keys.nbytes(lengths // self.ratio),
            "pending": sum(int((lengths % self.ratio).sum()) * int(rows.rows[0, 0].nbytes) for rows in pending),
        }


class LayerState41(Protocol):
    """What an attention layer reads, and adds to: a `LayerCache41`, or what a block of drafts sees in its place."""

    @property
    def window(self) -> Window:
        """The keys of the last tokens."""

    @property
    def source(self) -> SourceCache | None:
        """The layer's own entries and keys; None where it makes none."""


@dataclass
class LayerCache41:
    """The state of one layer; classes: the classes of the last tokens, [B, N, 1] int64, where it has an Engram."""

    window: RecentRows
    source: SourceCache | None = None
    classes: RecentRows | None = None

    def stores(self) -> list[RecentRows | Entries]:
        """Everything that holds rows."""
        of_source = self.source.stores() if self.source else []
        return [self.window, *of_source, *([self.classes] if self.classes else [])]

    def changed(self, ring: ChangeRing, entries: ChangeEntries) -> "LayerCache41":
        """Another one, of changed rows."""
        source = self.source.changed(ring, entries) if self.source else None
        return LayerCache41(ring(self.window), source, ring(self.classes) if self.classes else None)

    def nbytes(self, lengths: Ints) -> dict[str, int]:
        """Bytes in use in each part, for sequences of these lengths."""
        none = {"compressed": 0, "indexer keys": 0, "pending": 0}
        return {
            "window": self.window.nbytes(lengths),
            **(self.source.nbytes(lengths) if self.source else none),
            "token classes": _nbytes_before(self.classes, lengths) if self.classes else 0,
        }


def _nbytes_before(rows: RecentRows, lengths: Ints) -> int:
    """Bytes of the rows that the next token reads, which its own is not among."""
    return int(np.minimum(lengths, rows.keep).sum()) * int(rows.rows[0, 0].nbytes)


def new_layer_cache41(
    ops: Ops, config: Config41, layer: int, batch: int, spare: int, dtype: np.dtype, packed: bool = False
) -> LayerCache41:
    """An empty state for a layer; spare: how many tokens a rollback may take back; packed: with its rows as bytes."""
    pending = AsComputed(config.head_dim, dtype)
    window: Coding = WindowCoding41(ops, config.head_dim, dtype) if packed else pending
    entry: Coding = EntryCoding41(ops, config.head_dim, dtype) if packed else pending
    key: Coding = KeyCoding(ops, config.index_head_dim, dtype) if packed else AsComputed(config.index_head_dim, dtype)
    cache = LayerCache41(RecentRows(ops, batch, config.sliding_window - 1, spare, window))
    if config.is_kv_source(layer):
        ratio = config.compress_ratios[layer]
        kv, score = (RecentRows(ops, batch, ratio - 1, spare, pending) for _ in range(2))
        scores = score if ratio > 1 else None
        cache.source = SourceCache(ratio, kv, scores, Entries(ops, batch, entry), Entries(ops, batch, key))
    if config.engram and config.is_engram_layer(layer):
        one = AsComputed(1, np.dtype(np.int64))
        cache.classes = RecentRows(ops, batch, config.engram.max_ngram_size - 1, spare, one)
    return cache
