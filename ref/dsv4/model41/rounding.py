"""Where the released V4.1 rounds its activations, and the one switch that turns it off (report §2.4.4)."""

from dataclasses import dataclass

from dsv4.ops import Ops, Weight
from dsv4.ops.moe41 import MX_BLOCK
from dsv4.ops.quantise import is_quantised
from dsv4.ops.types import Array


@dataclass(frozen=True)
class Rounding41:
    """The fake quantisation of a model; `on` is what `fake_quant` says, "auto" being settled by the checkpoint."""

    ops: Ops
    on: bool

    def window_key(self, kv: Array) -> Array:
        """A key of a window or of a drafter's ring [B, N, c]: FP8 in blocks of 32 over all channels."""
        return self.ops.fake_quant_fp8(kv, MX_BLOCK) if self.on else kv

    def entry(self, entry: Array) -> Array:
        """A compressed entry [B, N, c]: FP4 in groups of 16 over all channels, scales in E4M3."""
        return self.ops.fake_quant_nvfp4(entry) if self.on else entry

    def index_vector(self, x: Array) -> Array:
        """An indexer query [B, S, h, D] or key [B, N, D]: FP4 in blocks of 32, without the Hadamard rotation of V4."""
        return self.ops.fake_quant_fp4(x) if self.on else x

    def linear(self, x: Array, weight: Weight) -> Array:
        """A product whose input is rounded to FP8 in blocks of 32 where the weight is stored in FP8 or FP4."""
        rounds = self.on and is_quantised(weight)
        return self.ops.linear(self.ops.fake_quant_fp8(x, MX_BLOCK) if rounds else x, weight)
