"""One layer of V4.1: attention and experts, each inside a single-pass hyper-connection (report §2.4.1)."""

import numpy as np

from dsv4.model.observe import Observer
from dsv4.model.span import Span
from dsv4.model41.attention import Attention41
from dsv4.model41.cache import LayerState41
from dsv4.model41.engram import Engram41
from dsv4.model41.moe import MoE41
from dsv4.model41.part import Part41
from dsv4.model41.source import Published
from dsv4.ops import Ops
from dsv4.ops.mhc import MhcWeights
from dsv4.ops.types import Array


class Block41:
    """A layer of the model, or a stage of the drafter.

    The weights of a sub-layer depend on its own streams, but the share with which the streams are read was made one
    sub-layer before: X ← B·X + C·F(A·X), A of the sub-layer before. Source: V4.1's report §2.4.1,
    equation 6 there; code: Block.
    """

    def __init__(self, part: Part41, layer: int, experts: int, experts_per_token: int) -> None:
        """layer: its number; stages of the drafter are numbered on from num_hidden_layers."""
        self.ops, self.name = part.ops, part.name
        config = self.config = part.config
        self.hc_attn, self.hc_ffn = (
            tuple(part[f"hc_{sublayer}_{weight}"] for weight in ("fn", "base", "scale")) for sublayer in ("attn", "ffn")
        )
        self.attn_norm = part["attn_norm.weight"]
        self.attn = Attention41(part.under("attn."), layer)
        self.engram = Engram41(part.under("engram."), layer) if config.is_engram_layer(layer) else None
        self.ffn_norm = part["ffn_norm.weight"]
        self.ffn = MoE41(part.under("ffn."), experts, experts_per_token)

    def __call__(
        self, streams: Array, pre: Array, span: Span, cache: LayerState41, published: Published, observe: Observer
    ) -> tuple[Array, Array]:
        """streams [B, S, n, d], pre [B, S, n] of the sub-layer before -> the streams, and pre for the one behind."""
        ops, eps = self.ops, self.config.rms_norm_eps
        attn = self._mixing(streams, self.hc_attn, f"{self.name}hc_attn", observe)
        observe(f"{self.name}attn_pre_mix", attn.pre)
        x = ops.rms_norm(ops.mhc_collapse(streams, pre), self.attn_norm, eps)  # [B, S, d]
        streams = ops.mhc_mix(streams, self.attn(x, span, cache, published, observe), attn.post, attn.comb)
        observe(f"{self.name}hc_attn.out", streams)
        ffn = self._mixing(streams, self.hc_ffn, f"{self.name}hc_ffn", observe)
        observe(f"{self.name}pre_mix", ffn.pre)
        x = ops.rms_norm(ops.mhc_collapse(streams, attn.pre), self.ffn_norm, eps)
        streams = ops.mhc_mix(streams, self.ffn(x, observe), ffn.post, ffn.comb)
        observe(f"{self.name}out", streams)
        return streams, ffn.pre

    def _mixing(self, streams: Array, weights: tuple[Array, ...], name: str, observe: Observer) -> MhcWeights:
        """The weights of a sub-layer, from the streams before it."""
        (fn, base, scale), config = weights, self.config
        mixing = self.ops.mhc_weights(
            streams, fn, base, scale, config.hc_sinkhorn_iters, config.hc_eps, config.rms_norm_eps
        )
        observe(f"{name}.post", mixing.post)
        observe(f"{name}.comb", mixing.comb)
        return mixing


def first_pre(ops: Ops, streams: Array) -> Array:
    """What a first layer, or a first stage, reads of the streams [B, S, n, d]: the first one alone, [B, S, n]."""
    one_hot = np.zeros(streams.shape[:3], streams.dtype)
    one_hot[..., 0] = 1
    return ops.asarray(one_hot)
