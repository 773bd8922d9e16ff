"""One layer: attention and experts, each inside its hyper-connection (report §2.2)."""

import numpy as np

from dsv4.config import Config
from dsv4.model.attention import Attention
from dsv4.model.cache import LayerCache
from dsv4.model.moe import MoE
from dsv4.model.observe import Observer
from dsv4.model.rounding import Rounding
from dsv4.model.span import Span
from dsv4.model.weights import Weights
from dsv4.ops import Ops
from dsv4.ops.mhc import MhcWeights
from dsv4.ops.types import Array, Ints


class Block:
    """A layer of the model, or the layer inside the MTP module."""

    def __init__(self, config: Config, ops: Ops, weights: Weights, ratio: int, by_id: bool, rounding: Rounding) -> None:
        """ratio: 0, 4 or 128, the compression of its attention; by_id: whether its experts are chosen by token id."""
        self.ops = ops
        self.eps = config.rms_norm_eps
        self.name = weights.prefix
        self.hc_attn = HyperConnection(config, ops, weights, "hc_attn")
        self.attn_norm = weights["attn_norm.weight"]
        self.attn = Attention(config, ops, weights.under("attn."), ratio, rounding)
        self.hc_ffn = HyperConnection(config, ops, weights, "hc_ffn")
        self.ffn_norm = weights["ffn_norm.weight"]
        self.ffn = MoE(config, ops, weights.under("ffn."), by_id, rounding)

    def __call__(self, streams: Array, ids: Ints, span: Span, cache: LayerCache, observe: Observer) -> Array:
        """streams [B, S, n, d], token ids [B, S] -> streams [B, S, n, d]; the cache gains the span's keys."""
        ops = self.ops
        mixing = self.hc_attn(streams, observe)
        x = ops.rms_norm(ops.mhc_collapse(streams, mixing.pre), self.attn_norm, self.eps)
        streams = ops.mhc_mix(streams, self.attn(x, span, cache, observe), mixing.post, mixing.comb)
        mixing = self.hc_ffn(streams, observe)
        x = ops.rms_norm(ops.mhc_collapse(streams, mixing.pre), self.ffn_norm, self.eps)
        streams = ops.mhc_mix(streams, self.ffn(x, ids, observe), mixing.post, mixing.comb)
        observe(f"{self.name}out", streams)
        return streams

    def new_cache(self, batch: int, max_rollback: int, dtype: np.dtype) -> LayerCache:
        """An empty state for this layer."""
        return self.attn.new_cache(batch, max_rollback, dtype)


class HyperConnection:
    """The mixing weights around one sub-layer (report §2.2)."""

    def __init__(self, config: Config, ops: Ops, weights: Weights, name: str) -> None:
        self.ops, self.config = ops, config
        self.name = f"{weights.prefix}{name}"
        self.fn, self.base, self.scale = (weights[f"{name}_{part}"] for part in ("fn", "base", "scale"))

    def __call__(self, streams: Array, observe: Observer) -> MhcWeights:
        """streams [B, S, n, d] -> pre [B, S, n], post [B, S, n], comb [B, S, n, n]"""
        config = self.config
        iterations, eps = config.hc_sinkhorn_iters, config.hc_eps
        mixing = self.ops.mhc_weights(streams, self.fn, self.base, self.scale, iterations, eps, config.rms_norm_eps)
        for part, weights in zip(mixing._fields, mixing, strict=True):
            observe(f"{self.name}.{part}", weights)
        return mixing


class Head:
    """The end of the model and of the MTP module: collapse the streams, normalise, project to the vocabulary."""

    def __init__(self, config: Config, ops: Ops, weights: Weights, head: Array) -> None:
        """weights: where norm and hc_head_* stand; head [vocab, d], which the MTP module shares with the model."""
        self.ops, self.config, self.head = ops, config, head
        self.fn, self.base, self.scale = (weights[f"hc_head_{part}"] for part in ("fn", "base", "scale"))
        self.norm = weights["norm.weight"]

    def __call__(self, streams: Array) -> Array:
        """[B, S, n, d] -> logits [B, S, vocab]"""
        ops, config = self.ops, self.config
        pre = ops.mhc_head_weights(streams, self.fn, self.base, self.scale, config.hc_eps, config.rms_norm_eps)
        x = ops.rms_norm(ops.mhc_collapse(streams, pre), self.norm, config.rms_norm_eps)
        return ops.linear(x, self.head)
