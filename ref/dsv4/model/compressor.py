"""The compressor of a CSA or HCA layer, and of the indexer (report §2.3.1 eq. 9–12, §2.3.2 eq. 20–23)."""

from collections.abc import Callable

from dsv4.model.cache import CompressorCache
from dsv4.model.observe import Observer
from dsv4.model.part import Part
from dsv4.model.span import Span, for_all_layers
from dsv4.ops.types import Array, Ints


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
        kv, score = cache.extend(kv, score, self.ape, span)
        observe(f"{self.name}score", score[:, cache.score.keep :])
        if not span.completed(self.ratio).counts.any():
            return
        entries = self.ops.compress_blocks(kv, score, span.blocks(self.ratio, cache.kv.keep))  # [B, N, c]
        entries = self.ops.norm_rope(entries, self.norm, self.eps, _first_positions(span, self.ratio), self.frequencies)
        entries = self.round_entry(entries)
        observe(f"{self.name}out", entries)
        cache.entries.write(entries, span.completed(self.ratio))


@for_all_layers
def _first_positions(span: Span, ratio: int) -> Ints:
    """[B, N] the position of each completed block's first token; a sequence may complete only its first few. Placed."""
    numbers = span.placed_starts[:, None] // ratio + span.numbers(int(span.completed(ratio).counts.max()))
    positions: Ints = numbers * ratio
    return positions
