"""The compressor of a CSA or HCA layer, and of the indexer (report §2.3.1 eq. 9–12, §2.3.2 eq. 20–23)."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from dsv4.config import CSA_RATIO
from dsv4.model.cache import CompressorCache
from dsv4.model.observe import Observer
from dsv4.model.part import Part
from dsv4.model.span import Span, for_all_layers
from dsv4.ops.places import Index
from dsv4.ops.types import Array, Ints, Mask


class Compressor:
    """Turns each complete block of ρ tokens into one entry; what is left over stays pending in the cache.

    Source: report eq. 9–10 (CSA), eq. 20–21 (HCA): the projections; code: Compressor.
    """

    def __init__(self, part: Part, ratio: int, frequencies: Array, round_entry: Callable[[Array], Array]) -> None:
        """round_entry: what happens to an entry after RoPE: FP8 rounding, or Hadamard and FP4 for indexer keys."""
        self.ops, self.name, self.eps = part.ops, part.name, part.config.rms_norm_eps
        self.ratio, self.frequencies, self.round_entry = ratio, frequencies, round_entry
        self.ape = part["ape"]
        self.projections = part["wkv.weight"], part["wgate.weight"]
        """What makes the kv and the score of each token, which `__call__` takes."""
        self.norm = part["norm.weight"]

    def __call__(self, kv: Array, score: Array, span: Span, cache: CompressorCache, observe: Observer) -> None:
        """Add the entries that the span's tokens complete to the cache: kv, score [B, S, c], or 2c for CSA."""
        score = score + self.ape[_places_in_blocks(span, self.ratio)].astype(score.dtype, copy=False)
        observe(f"{self.name}score", score)
        kv, score = cache.kv.extend(kv, span), cache.score.extend(score, span)
        blocks = _blocks(span, self.ratio, cache.kv.keep)
        if blocks is None:
            return
        entries = self.ops.compress(*self._slots(kv[blocks.tokens], score[blocks.tokens], blocks))
        entries = self.ops.rms_norm(entries, self.norm, self.eps)
        entries = self.ops.rope(entries, blocks.positions, self.frequencies)
        entries = self.round_entry(entries)
        observe(f"{self.name}out", entries)
        cache.entries.write(entries, span.completed(self.ratio))

    def _slots(self, kv: Array, score: Array, blocks: "Blocks") -> tuple[Array, Array]:
        """The slots of each entry: [B, N, ρ, c] as it is, or for CSA [B, 1 + N, ρ, 2c] -> [B, N, 2ρ, c], twice."""
        if self.ratio != CSA_RATIO:
            return kv, score
        before_start = blocks.before_start
        kv, score = np.where(before_start, 0, kv), np.where(before_start, -np.inf, score)
        return self.ops.overlap(kv), self.ops.overlap(score)


class Blocks(NamedTuple):
    """The blocks of ρ tokens that a span completes, N at most in a sequence. All arrays are placed."""

    positions: Ints
    """[B, N] the position of each block's first token; a sequence may complete only its first few."""
    tokens: Index
    """The blocks' tokens, as an index [B, N, ρ] of what `RecentRows.extend` gives; for CSA [B, 1 + N, ρ], with the
    block before them."""
    before_start: Mask
    """[B, N, ρ, 1] (for CSA 1 + N) which of these are none, since they would stand before the sequence."""


@for_all_layers
def _blocks(span: Span, ratio: int, keep: int) -> Blocks | None:
    """The blocks that a span completes, or None for no block at all; keep: how many rows before the span are kept."""
    most = int(span.completed(ratio).counts.max())
    if most == 0:
        return None
    starts = span.placed_starts[:, None]
    numbers = starts // ratio + span.numbers(most)  # [B, N] entry numbers
    blocks = np.concatenate([numbers[:, :1] - 1, numbers], axis=1) if ratio == CSA_RATIO else numbers
    positions = blocks[:, :, None] * ratio + span.numbers(ratio)  # [B, blocks, ρ]
    columns, last = positions - starts[:, :, None] + keep, keep + span.length - 1
    columns = np.where(columns < last, columns, last)  # blocks that a shorter row does not complete: never stored
    every_row = span.numbers(len(span.starts))[:, None, None]
    return Blocks(positions=numbers * ratio, tokens=(every_row, columns), before_start=(positions < 0)[..., None])


@for_all_layers
def _places_in_blocks(span: Span, ratio: int) -> Ints:
    """[B, S] the place of each token in its block, placed."""
    places: Ints = span.positions % ratio
    return places
