"""Attention over a window and compressed entries, with one shared key-value head (report §2.3)."""

from collections.abc import Sequence

import numpy as np

from dsv4.config import CSA_RATIO, Config
from dsv4.config41 import Config41
from dsv4.model.cache import CompressorCache, LayerCache, LayerState
from dsv4.model.compressor import Compressor
from dsv4.model.indexer import Indexer
from dsv4.model.observe import Observer
from dsv4.model.packed_cache import EntryCoding, KeyCoding
from dsv4.model.part import Part
from dsv4.model.rows import AsComputed, Coding, RecentRows
from dsv4.model.span import Span, for_all_layers
from dsv4.ops import Ops, Weight
from dsv4.ops.packed_rows import Rows
from dsv4.ops.rope import rope_frequencies, yarn_frequencies
from dsv4.ops.types import Array, Ints


class Attention:
    """One attention layer: sliding window only (ratio 0), with CSA entries (4) or with HCA entries (128).

    Source: report eq. 13, 18 (CSA), eq. 24–25 (HCA): the query latent and the queries; code: Attention.
    """

    def __init__(self, part: Part, ratio: int) -> None:
        self.config, self.ops, self.rounding, self.name = part.config, part.ops, part.rounding, part.name
        self.ratio = ratio
        self.frequencies = part.ops.asarray(layer_frequencies(part.config, ratio))
        self.wq_a = part["wq_a.weight"]
        self.q_norm = part["q_norm.weight"]
        self.from_latent: tuple[Weight, ...] = (part["wq_b.weight"],)
        """What makes queries: attention's, and the indexer's if there is one."""
        self.wkv = part["wkv.weight"]
        self.kv_norm = part["kv_norm.weight"]
        self.attn_sink = part["attn_sink"]
        self.wo_a = part["wo_a.weight"]
        self.wo_b = part["wo_b.weight"]
        if ratio:
            self.compressor = Compressor(part.under("compressor."), ratio, self.frequencies, part.rounding.entry)
            self.projections: tuple[Weight, ...] = self.compressor.projections
        if ratio == CSA_RATIO:
            self.indexer = Indexer(part.under("indexer."), ratio, self.frequencies)
            self.projections += self.indexer.projections
            self.from_latent += (self.indexer.wq_b,)

    def __call__(self, x: Array, span: Span, cache: LayerState, observe: Observer) -> Array:
        """[B, S, d] -> [B, S, d]; the cache gains the span's keys."""
        ops, config, linear = self.ops, self.config, self.rounding.linear
        batch, length, _ = x.shape
        positions = span.positions
        qr, kv = self.rounding.linears(x, (self.wq_a, self.wkv))
        qr = ops.rms_norm(qr, self.q_norm, config.rms_norm_eps)
        q, *index_queries = self.rounding.linears(qr, self.from_latent)
        q = q.reshape(batch, length, config.num_attention_heads, config.head_dim)
        q = ops.norm_rope(q, None, config.rms_norm_eps, positions, self.frequencies)  # [B, S, H, c]
        kv = self._keys(kv, positions)  # [B, S, c]
        observe(f"{self.name}q", q)
        observe(f"{self.name}kv", kv)
        window = cache.window.extend(kv, span)  # [B, w − 1 + S, c]
        window_index = span.window_columns(config.sliding_window)
        entries, entry_index = self._entries(x, index_queries, span, cache, observe)
        keys = window, window_index, entries, entry_index, self.attn_sink
        o = ops.turned_attention(q, *keys, span.back, self.frequencies)  # the values were rotated: turn them back
        observe(f"{self.name}o", o)
        o = ops.grouped_linear(o.reshape(batch, length, -1), self.wo_a, config.o_groups)
        output = linear(o, self.wo_b)
        observe(f"{self.name}out", output)
        return output

    def keys(self, x: Array, positions: Ints) -> Array:
        """[B, S, d] -> [B, S, c]: what a window keeps of each token, its key and value in one."""
        return self._keys(self.rounding.linear(x, self.wkv), positions)

    def _keys(self, kv: Array, positions: Ints) -> Array:
        """As `keys`, of the product with wkv, [B, S, c]."""
        kv = self.ops.norm_rope(kv, self.kv_norm, self.config.rms_norm_eps, positions, self.frequencies)
        return self.rounding.entry(kv)

    def new_cache(self, batch: int, max_rollback: int, dtype: np.dtype, packed: bool = False) -> LayerCache:
        """An empty state for this layer: see `new_layer_cache`."""
        return new_layer_cache(self.ops, self.config, self.ratio, batch, max_rollback, dtype, packed)

    def _entries(
        self, x: Array, index_queries: Sequence[Array], span: Span, cache: LayerState, observe: Observer
    ) -> tuple[Rows, Ints]:
        """The compressed entries of this layer, and which of them each query reads: [B, T, c], [B, S, K]."""
        if cache.compressor is None:
            return self.ops.zeros((len(x), 0, self.config.head_dim), x.dtype), _no_entries(span)
        kv, score, *for_indexer = self.ops.linears(x, self.projections)
        self.compressor(kv, score, span, cache.compressor, observe)
        entries = cache.compressor.entries.first(span.entry_count(self.ratio))
        if cache.indexer is not None:
            return entries, self.indexer((*for_indexer, *index_queries), span, cache.indexer, observe)
        return entries, _all_visible_entries(span, self.ratio)


def new_layer_cache(
    ops: Ops, config: Config, ratio: int, batch: int, max_rollback: int, dtype: np.dtype, packed: bool
) -> LayerCache:
    """An empty state for a layer of this ratio; packed: with its entries and indexer keys as bytes."""
    entry: Coding = AsComputed(config.head_dim, dtype)
    key: Coding = AsComputed(config.index_head_dim, dtype)
    if packed:
        entry = EntryCoding(ops, config.head_dim, dtype, config.qk_rope_head_dim)
        key = KeyCoding(ops, config.index_head_dim, dtype)
    cache = LayerCache(RecentRows(ops, batch, config.sliding_window - 1, max_rollback, entry))
    if ratio:
        cache.compressor = CompressorCache.create(ops, batch, ratio, max_rollback, entry, dtype)
    if ratio == CSA_RATIO:
        cache.indexer = CompressorCache.create(ops, batch, ratio, max_rollback, key, dtype)
    return cache


@for_all_layers
def _no_entries(span: Span) -> Ints:
    """[B, S, 0] the entries that the queries of a layer without compression read, placed."""
    none: Ints = span.positions[:, :, None][:, :, :0]
    return none


@for_all_layers
def _all_visible_entries(span: Span, ratio: int) -> Ints:
    """[B, S, T] the entries that each query reads where none is chosen: all that it sees; else −1. Placed."""
    all_entries = span.numbers(span.entry_count(ratio))
    visible = span.visible(ratio)[:, :, None]
    return np.where(all_entries < visible, all_entries, -1)


def layer_frequencies(config: Config | Config41, ratio: int) -> Array:
    """The RoPE frequencies of a layer, [r/2]: plain without compression, else another base with YaRN.

    The window keys and queries of a compressing layer turn with the same frequencies as its entries.
    Source: report §2.3.3; code: the layer's freqs_cis.
    """
    rotated, yarn = config.qk_rope_head_dim, config.rope_scaling
    if ratio == 0:
        return rope_frequencies(rotated, config.rope_theta)
    base = config.compress_rope_theta
    if yarn is None:
        return rope_frequencies(rotated, base)
    context = yarn.original_max_position_embeddings
    return yarn_frequencies(rotated, base, yarn.factor, context, yarn.beta_fast, yarn.beta_slow)
