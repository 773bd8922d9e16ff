"""The choice of the entries that a query reads, and the pool of candidates (V4.1's report §2.3.1, §2.3.2)."""

from dsv4.model.observe import Observer, ignore
from dsv4.model.span import Span
from dsv4.model41.part import Part41
from dsv4.model41.source import Published
from dsv4.ops.types import Array


class Indexer41:
    """Scores entries with queries of its own, and the keys of the latest source.

    Source: V4.1's report §2.3.1, §2.3.2; code: Indexer.
    """

    def __init__(self, part: Part41, layer: int, frequencies: Array) -> None:
        """part: the layer's attention.indexer."""
        config, self.ops, self.rounding, self.name = part.config, part.ops, part.rounding, part.name
        self.frequencies, self.config = frequencies, config
        self.ratio = config.compress_ratios[layer]
        self.makes_pool, self.has_pool = config.is_candidate_source(layer), config.has_candidates(layer)
        self.wq_b = part["wq_b.weight"]
        self.weights_proj = part["weights_proj.weight"]

    def __call__(self, x: Array, qr: Array, span: Span, published: Published, observe: Observer) -> None:
        """Publish what each query reads: x [B, S, d], query latent qr [B, S, q_lora_rank]."""
        ops, config = self.ops, self.config
        assert published.source is not None
        heads, width = config.index_n_heads, config.index_head_dim
        queries = self.rounding.linear(qr, self.wq_b).reshape(*x.shape[:2], heads, width)
        queries = self.rounding.index_vector(ops.rope(queries, span.positions, self.frequencies))
        weights = ops.linear(x, self.weights_proj) * x.dtype.type(width**-0.5 * heads**-0.5)
        keys = published.source.keys.first(span.entry_count(self.ratio))
        if observe is not ignore:  # nothing else needs all scores at once
            observe(f"{self.name}scores", ops.index_scores(queries, keys, weights))
        visible, size, k = span.visible(self.ratio), config.candidate_block_size, config.index_topk
        if self.has_pool:
            assert published.pool is not None
            published.chosen = ops.index_top_k_among(queries, keys, weights, visible, published.pool, size, k)
        else:
            published.chosen = ops.index_top_k(queries, keys, weights, visible, k)
        observe(f"{self.name}topk", published.chosen)
        if self.makes_pool:
            count = config.candidate_topk_blocks
            published.pool = ops.index_candidates(queries, keys, weights, visible, size, count)
            observe(f"{self.name}candidates", published.pool)
