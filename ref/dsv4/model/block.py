"""One layer: attention and experts, each inside its hyper-connection (report §2.2)."""

from collections.abc import Callable

import numpy as np

from dsv4.model.attention import Attention
from dsv4.model.cache import LayerCache, LayerState
from dsv4.model.moe import MoE
from dsv4.model.observe import Observer
from dsv4.model.part import Part
from dsv4.model.span import Span
from dsv4.ops.types import Array, Ints


class Block:
    """A layer of the model, the layer inside the MTP module, or a stage of a DSpark drafter."""

    def __init__(self, part: Part, ratio: int, by_id: bool) -> None:
        """ratio: 0, 4 or 128, the compression of its attention; by_id: whether its experts are chosen by token id."""
        self.name = part.name
        self.hc_attn = HyperConnection(part, "attn")
        self.attn = Attention(part.under("attn."), ratio)
        self.hc_ffn = HyperConnection(part, "ffn")
        self.ffn = MoE(part.under("ffn."), by_id)

    def __call__(self, streams: Array, ids: Ints, span: Span, cache: LayerState, observe: Observer) -> Array:
        """streams [B, S, n, d], token ids [B, S] -> streams [B, S, n, d]; the cache gains the span's keys."""
        self.ffn.expect(ids)
        streams = self.hc_attn(streams, lambda x: self.attn(x, span, cache, observe), observe)
        observe(f"{self.name}hc_attn.out", streams)
        streams = self.hc_ffn(streams, lambda x: self.ffn(x, ids, observe), observe)
        observe(f"{self.name}out", streams)
        return streams

    def new_cache(self, batch: int, max_rollback: int, dtype: np.dtype, packed: bool = False) -> LayerCache:
        """An empty state for this layer: see `Attention`."""
        return self.attn.new_cache(batch, max_rollback, dtype, packed)


class HyperConnection:
    """What connects a sub-layer F with the streams X: X ← B·X + C·F(A·X), with weights A, B, C that depend on X.

    A, B and C are the report's; here they are `pre`, `comb` and `post`. F's input is normalised first.
    Source: report eq. 1.
    """

    def __init__(self, part: Part, sublayer: str) -> None:
        """sublayer: "attn" or "ffn"."""
        self.ops, self.config = part.ops, part.config
        self.name = f"{part.name}hc_{sublayer}"
        self.fn, self.base, self.scale = (part[f"hc_{sublayer}_{weight}"] for weight in ("fn", "base", "scale"))
        self.norm = part[f"{sublayer}_norm.weight"]

    def __call__(self, streams: Array, sublayer: Callable[[Array], Array], observe: Observer) -> Array:
        """streams [B, S, n, d]; sublayer: [B, S, d] -> [B, S, d]. Returns the streams after it."""
        ops, config = self.ops, self.config
        iterations, eps = config.hc_sinkhorn_iters, config.hc_eps
        mixing = ops.mhc_weights(streams, self.fn, self.base, self.scale, iterations, eps, config.rms_norm_eps)
        for name, share in zip(mixing._fields, mixing, strict=True):
            observe(f"{self.name}.{name}", share)
        x = ops.collapse_norm(streams, mixing.pre, self.norm, config.rms_norm_eps)
        return ops.mhc_mix(streams, sublayer(x), mixing.post, mixing.comb)


class Head:
    """The end of the model and of what drafts for it: collapse the streams, normalise, project to the vocabulary."""

    def __init__(self, part: Part, head: Array) -> None:
        """part: where norm and hc_head_* stand; head [vocab, d], which is the model's own everywhere."""
        self.ops, self.config, self.head = part.ops, part.config, head
        self.fn, self.base, self.scale = (part[f"hc_head_{weight}"] for weight in ("fn", "base", "scale"))
        self.norm = part["norm.weight"]

    def __call__(self, streams: Array) -> Array:
        """[B, S, n, d] -> logits [B, S, vocab]"""
        return self.ops.linear(self.last_hidden(streams), self.head)

    def last_hidden(self, streams: Array) -> Array:
        """[B, S, n, d] -> [B, S, d]: what the matrix of the head is multiplied with."""
        return self.ops.collapse_norm(streams, self.pre(streams), self.norm, self.config.rms_norm_eps)

    def collapse(self, streams: Array) -> Array:
        """[B, S, n, d] -> [B, S, d]: one state of each token, not normalised yet."""
        return self.ops.mhc_collapse(streams, self.pre(streams))

    def pre(self, streams: Array) -> Array:
        """The share of each stream in what is projected: [B, S, n, d] -> [B, S, n]"""
        config = self.config
        return self.ops.mhc_head_weights(streams, self.fn, self.base, self.scale, config.hc_eps, config.rms_norm_eps)
