"""Attention of V4.1: a window of its own in every layer, and entries that layers share (report §2.3)."""

import numpy as np

from dsv4.model.attention import layer_frequencies
from dsv4.model.observe import Observer
from dsv4.model.span import Span, for_all_layers
from dsv4.model41.cache import LayerState41
from dsv4.model41.indexer import Indexer41
from dsv4.model41.part import Part41
from dsv4.model41.source import KVSource, Published
from dsv4.ops.packed_rows import Rows
from dsv4.ops.types import Array, Ints


class Attention41:
    """One attention layer: a window only, or Full, Reindex or Reuse. Source: V4.1's report §2.3.1; code: Attention."""

    def __init__(self, part: Part41, layer: int) -> None:
        """layer: its number; stages of the drafter are numbered on from num_hidden_layers."""
        config = part.config
        self.config, self.ops, self.rounding, self.name = config, part.ops, part.rounding, part.name
        self.ratio = config.compress_ratios[layer]
        self.frequencies = part.ops.asarray(layer_frequencies(config, self.ratio))
        self.wq_a = part["wq_a.weight"]
        self.q_norm = part["q_norm.weight"]
        self.wq_b = part["wq_b.weight"]
        self.wkv = part["wkv.weight"]
        self.kv_norm = part["kv_norm.weight"]
        self.attn_sink = part["attn_sink"]
        self.wo_a = part["wo_a.weight"]
        self.wo_b = part["wo_b.weight"]
        self.source = KVSource(part, self.ratio, self.frequencies) if config.is_kv_source(layer) else None
        is_index_source = config.is_index_source(layer)
        self.indexer = Indexer41(part.under("indexer."), layer, self.frequencies) if is_index_source else None

    def __call__(self, x: Array, span: Span, cache: LayerState41, published: Published, observe: Observer) -> Array:
        """[B, S, d] -> [B, S, d]; the cache gains the span's keys, and what is published changes at sources."""
        ops, config, linear = self.ops, self.config, self.rounding.linear
        batch, length, _ = x.shape
        positions = span.positions
        qr = ops.rms_norm(linear(x, self.wq_a), self.q_norm, config.rms_norm_eps)
        q = linear(qr, self.wq_b).reshape(batch, length, config.num_attention_heads, config.head_dim)
        q = ops.rope(q, positions, self.frequencies)  # [B, S, H, c]
        kv = self.keys(x, positions)  # [B, S, c]
        observe(f"{self.name}q", q)
        observe(f"{self.name}kv", kv)
        window = cache.window.extend(kv, span)  # [B, w − 1 + S, c]
        window_index = span.window_columns(config.sliding_window)
        entries, entry_index = self._entries(x, qr, span, cache, published, observe)
        o = ops.sparse_attention(q, window, window_index, entries, entry_index, self.attn_sink)  # [B, S, H, c]
        o = ops.rope(o, -positions, self.frequencies)  # the values were rotated: turn them back
        observe(f"{self.name}o", o)
        output = linear(ops.grouped_linear(o.reshape(batch, length, -1), self.wo_a, config.o_groups), self.wo_b)
        observe(f"{self.name}out", output)
        return output

    def keys(self, x: Array, positions: Ints) -> Array:
        """[B, S, d] -> [B, S, c]: what a window keeps of each token, its key and value in one."""
        kv = self.ops.rms_norm(self.rounding.linear(x, self.wkv), self.kv_norm, self.config.rms_norm_eps)
        return self.rounding.window_key(self.ops.rope(kv, positions, self.frequencies))

    def _entries(
        self, x: Array, qr: Array, span: Span, cache: LayerState41, published: Published, observe: Observer
    ) -> tuple[Rows, Ints]:
        """The entries of the latest source, and which of them each query reads: [B, T, c], [B, S, K]."""
        if self.ratio == 0:
            return self.ops.zeros((len(x), 0, self.config.head_dim), x.dtype), _no_entries(span)
        if self.source and cache.source:
            self.source(x, span, cache.source, observe)
            published.source = cache.source
        if self.indexer:
            self.indexer(x, qr, span, published, observe)
        assert published.source is not None and published.chosen is not None
        return published.source.entries.first(span.entry_count(self.ratio)), published.chosen


@for_all_layers
def _no_entries(span: Span) -> Ints:
    """[B, S, 0] the entries that the queries of a layer with a window alone read, placed."""
    none: Ints = span.place(np.zeros((*span.host_positions.shape, 0), np.int64))
    return none
