"""The lightning indexer of a CSA layer (report §2.3.1, eq. 13–17)."""

from collections.abc import Sequence

from dsv4.model.cache import CompressorCache
from dsv4.model.compressor import Compressor
from dsv4.model.observe import Observer, ignore
from dsv4.model.part import Part
from dsv4.model.span import Span
from dsv4.ops.types import Array, Ints


class Indexer:
    """Scores the compressed entries with small queries and keys of its own, and names the best ones.

    Source: report eq. 14–15: its queries and the weights of its heads; code: Indexer.
    """

    def __init__(self, part: Part, ratio: int, frequencies: Array) -> None:
        config, self.ops, self.rounding, self.name = part.config, part.ops, part.rounding, part.name
        self.frequencies = frequencies
        self.heads, self.head_dim, self.topk = config.index_n_heads, config.index_head_dim, config.index_topk
        self.compressor = Compressor(part.under("compressor."), ratio, frequencies, part.rounding.index_keys)
        self.projections = *self.compressor.projections, part["weights_proj.weight"]
        """What makes the compressor's kv and score, and the weights of the heads, which `__call__` takes."""
        self.wq_b = part["wq_b.weight"]
        """What makes the queries, which `__call__` takes, too."""

    def __call__(self, projected: Sequence[Array], span: Span, cache: CompressorCache, observe: Observer) -> Ints:
        """The entries that each query reads: [B, S, ≤ topk].

        projected: what the layer's input [B, S, d] gives with the `projections`, and the query latent with `wq_b`.
        """
        ops = self.ops
        kv, score, weights, queries = projected
        self.compressor(kv, score, span, cache, observe)
        queries = queries.reshape(*queries.shape[:2], self.heads, self.head_dim)
        queries = self.rounding.index_queries(queries, span.positions, self.frequencies)
        weights = weights * weights.dtype.type(self.head_dim**-0.5 * self.heads**-0.5)
        keys = cache.entries.first(span.entry_count(cache.ratio))
        if observe is not ignore:  # nothing else needs all scores at once
            observe(f"{self.name}scores", ops.index_scores(queries, keys, weights))
        chosen = ops.index_top_k(queries, keys, weights, span.visible(cache.ratio), self.topk)
        observe(f"{self.name}topk", chosen)
        return chosen
