"""Where the released model rounds its activations, and the one switch that turns it off (report §3.4, §5.2.1)."""

from collections.abc import Sequence
from dataclasses import dataclass

from dsv4.ops import Ops, Weight
from dsv4.ops.types import Array, Ints

KV_BLOCK = 64
"""Channels of a key-value entry that share one FP8 scale."""


@dataclass(frozen=True)
class Rounding:
    """The fake quantisation of a model; `on` is what `fake_quant` says, "auto" being settled by the checkpoint."""

    ops: Ops
    on: bool
    rotated: int
    """r, the number of RoPE channels at the end of a key-value entry, which stay as they are."""

    def entry(self, kv: Array) -> Array:
        """A window or compressed entry [B, N, c]: FP8 in blocks of 64 on all channels but the rotated ones."""
        if not self.on:
            return kv
        return self.ops.fake_quant_content(kv, KV_BLOCK, self.rotated)

    def index_queries(self, x: Array, positions: Ints, frequencies: Array) -> Array:
        """Indexer queries [B, S, h, D]: turned by positions [B, S], rotated by Hadamard, then FP4 in blocks of 32."""
        return self.ops.index_queries(x, positions, frequencies, self.on)

    def index_keys(self, x: Array) -> Array:
        """Indexer keys [B, N, D], turned before: rotated by Hadamard, then FP4 in blocks of 32."""
        rotated = self.ops.hadamard(x)
        return self.ops.fake_quant_fp4(rotated) if self.on else rotated

    def linear(self, x: Array, weight: Weight) -> Array:
        """A product whose input is rounded to FP8 where the weight is stored in FP8 or FP4."""
        return self.ops.linear(x, weight, self.on)

    def linears(self, x: Array, weights: Sequence[Weight]) -> tuple[Array, ...]:
        """Several such products of one input."""
        return self.ops.linears(x, weights, self.on)
