"""The compressor of a CSA or HCA layer, and of the indexer (report §2.3.1 eq. 9–12, §2.3.2 eq. 20–23)."""

from collections.abc import Callable

import numpy as np

from dsv4.config import Config
from dsv4.model.cache import CompressorCache, RecentRows
from dsv4.model.observe import Observer
from dsv4.model.span import Span
from dsv4.model.weights import Weights
from dsv4.ops import Ops
from dsv4.ops.types import Array, Ints


class Compressor:
    """Turns each complete block of ρ tokens into one entry; what is left over stays pending in the cache.

    Source: report eq. 9–10 (CSA), eq. 20–21 (HCA): the projections; code: Compressor.
    """

    def __init__(
        self,
        config: Config,
        ops: Ops,
        weights: Weights,
        ratio: int,
        frequencies: Array,
        round_entry: Callable[[Array], Array],
    ) -> None:
        """round_entry: what happens to an entry after RoPE: FP8 rounding, or Hadamard and FP4 for indexer keys."""
        self.ops, self.ratio, self.frequencies, self.round_entry = ops, ratio, frequencies, round_entry
        self.name = weights.prefix
        self.eps = config.rms_norm_eps
        self.ape = weights["ape"]
        self.wkv = weights["wkv.weight"]
        self.wgate = weights["wgate.weight"]
        self.norm = weights["norm.weight"]

    def __call__(self, x: Array, span: Span, cache: CompressorCache, observe: Observer) -> None:
        """Add the entries that the tokens x [B, S, d] complete to the cache."""
        kv = self.ops.linear(x, self.wkv)  # [B, S, d] -> [B, S, c], or 2c for CSA
        score = self.ops.linear(x, self.wgate) + self.ape[span.positions % self.ratio].astype(x.dtype)
        kv, score = cache.kv.extend(kv, span), cache.score.extend(score, span)
        firsts = span.starts // self.ratio
        counts = span.ends // self.ratio - firsts
        if counts.max() == 0:
            return
        numbers = firsts[:, None] + np.arange(counts.max())  # [B, N] entry numbers; a row may need only its first few
        entries = self.ops.compress(*self._slots(kv, score, numbers, span, cache.kv))
        entries = self.ops.rms_norm(entries, self.norm, self.eps)
        entries = self.ops.rope(entries, self.ops.asarray(numbers * self.ratio), self.frequencies)
        entries = self.round_entry(entries)
        observe(f"{self.name}out", entries)
        cache.entries.write(entries, firsts, counts)

    def _slots(self, kv: Array, score: Array, numbers: Ints, span: Span, recent: RecentRows) -> tuple[Array, Array]:
        """The slots of each entry: [B, keep + S, ·] -> [B, N, slots, c], twice."""
        overlaps = self.ratio == 4
        blocks = np.concatenate([numbers[:, :1] - 1, numbers], axis=1) if overlaps else numbers
        positions = blocks[:, :, None] * self.ratio + np.arange(self.ratio)  # [B, blocks, ρ]
        columns = positions - span.starts[:, None, None] + recent.keep
        columns = np.minimum(columns, kv.shape[1] - 1)  # blocks that a shorter row does not complete: never stored
        row = np.arange(len(kv))[:, None, None]
        kv, score = kv[row, columns], score[row, columns]  # [B, blocks, ρ, ·]
        if not overlaps:
            return kv, score
        before_start = self.ops.asarray(positions < 0)[..., None]
        kv, score = np.where(before_start, 0, kv), np.where(before_start, -np.inf, score)
        return self.ops.overlap(kv), self.ops.overlap(score)
