"""A layer that makes entries, and their index keys, for itself and for the layers behind it (report §2.3.1)."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from dsv4.model.observe import Observer
from dsv4.model.span import Span, for_all_layers
from dsv4.model41.cache import SourceCache
from dsv4.model41.part import Part41
from dsv4.ops.places import Index
from dsv4.ops.types import Array, Ints


@dataclass
class Published:
    """What sources have made in one pass, for the layers behind them. Nothing of it outlives the pass."""

    source: SourceCache | None = None
    """The entries and keys of the latest layer that makes any."""
    chosen: Ints | None = None
    """[B, S, K] the entries that each query reads, as the latest layer that chooses has it; −1 for none."""
    pool: Ints | None = None
    """[B, S, P] the blocks of candidates of each query, behind the candidate source."""


class KVSource:
    """Turns each complete block of ρ tokens into one latent, and that into an entry and into an index key.

    Source: V4.1's report §2.3.1; code: Compressor, and the keys of Indexer.
    """

    def __init__(self, part: Part41, ratio: int, frequencies: Array) -> None:
        """part: the layer's attention."""
        self.ops, self.rounding, self.name, self.eps = part.ops, part.rounding, part.name, part.config.rms_norm_eps
        self.ratio, self.frequencies = ratio, frequencies
        compressor, indexer = part.under("compressor."), part.under("indexer.")
        self.wkv = compressor["wkv.weight"]
        self.wgate: Any = compressor["wgate.weight"] if ratio > 1 else None
        self.norm = compressor["norm.weight"]
        self.wk = indexer["wk.weight"]
        self.k_norm = indexer["k_norm.weight"]

    def __call__(self, x: Array, span: Span, cache: SourceCache, observe: Observer) -> None:
        """Add the entries and keys that the tokens x [B, S, d] complete to the cache."""
        ops = self.ops
        kv = cache.kv.extend(ops.linear(x, self.wkv), span)  # [B, ρ − 1 + S, c]
        score = cache.score.extend(ops.linear(x, self.wgate), span) if cache.score else None
        blocks = _blocks(span, self.ratio)
        if blocks is None:
            return
        slots = kv[blocks.tokens]  # [B, N, ρ, c]
        latent = slots[:, :, 0]
        if score is not None:
            observe(f"{self.name}compressor.score", score[blocks.tokens])
            latent = ops.compress(slots, score[blocks.tokens])
        latent = ops.rms_norm(latent, self.norm, self.eps)
        observe(f"{self.name}compressor.latent", latent)
        entries = self.rounding.entry(ops.rope(latent, blocks.positions, self.frequencies))
        observe(f"{self.name}compressor.out", entries)
        keys = ops.rms_norm(
            ops.linear(latent, self.wk), self.k_norm, self.eps
        )  # of the latent, neither turned nor rounded
        keys = self.rounding.index_vector(ops.rope(keys, blocks.positions, self.frequencies))
        observe(f"{self.name}indexer.keys", keys)
        cache.entries.write(entries, span.completed(self.ratio))
        cache.keys.write(keys, span.completed(self.ratio))


class Blocks(NamedTuple):
    """The blocks of ρ tokens that a span completes, N at most in a sequence. All arrays are placed."""

    positions: Ints
    """[B, N] the position of each block's first token; a sequence may complete only its first few."""
    tokens: Index
    """The blocks' tokens, as an index [B, N, ρ] of what `RecentRows.extend` gives for keep = ρ − 1."""


@for_all_layers
def _blocks(span: Span, ratio: int) -> Blocks | None:
    """The blocks that a span completes, or None for no block at all."""
    most = int(span.completed(ratio).counts.max())
    if most == 0:
        return None
    starts = span.placed_starts[:, None]
    positions = (starts // ratio + span.numbers(most)) * ratio  # [B, N]
    columns = (positions - starts + ratio - 1)[:, :, None] + span.numbers(ratio)  # [B, N, ρ]
    last = ratio + span.length - 2
    columns = np.where(columns < last, columns, last)  # blocks that a shorter row does not complete: never stored
    return Blocks(positions, tokens=(span.numbers(len(span.starts))[:, None, None], columns))
