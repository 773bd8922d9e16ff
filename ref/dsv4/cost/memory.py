"""The bytes of a sequence's cache, by part and by the format of its numbers (report §2.3.4, §3.6.1)."""

from dataclasses import dataclass
from typing import Literal

from dsv4.config import CSA_RATIO, Config
from dsv4.model.rounding import KV_BLOCK
from dsv4.ops.quantise import FP4_BLOCK

CacheFormat = Literal["float32", "bf16", "packed"]
"""float32: as the reference computes. bf16: every number in two bytes. packed: as the released model stores it."""

NUMBER_BYTES = {"float32": 4, "bf16": 2}

PARTS = ("window", "compressed", "indexer keys", "pending")
"""What a layer's cache holds, by the names of `Cache.nbytes`."""


GQA_HEADS, GQA_WIDTH = 8, 128
"""The key-value heads of full attention, and their channels, that the report compares with (§2.3.4)."""


@dataclass(frozen=True)
class RowBytes:
    """What one row takes: a KV entry, an indexer key, and one number of a pending projection."""

    entry: int
    index_key: int
    pending_number: int

    @classmethod
    def of(cls, config: Config, cache_format: CacheFormat) -> "RowBytes":
        """packed: FP8 with a scale byte per 64 channels, rotated channels in bf16; FP4 with one per 32 channels.

        Pending projections stay in float32 there, as in the official code. No padding: kernels that align a row
        of 583 bytes to 584 take that much more.
        """
        c, rotated, width = config.head_dim, config.qk_rope_head_dim, config.index_head_dim
        if cache_format != "packed":
            number = NUMBER_BYTES[cache_format]
            return cls(number * c, number * width, number)
        content = c - rotated
        entry = content + -(-content // KV_BLOCK) + 2 * rotated
        return cls(entry, width // 2 + -(-width // FP4_BLOCK), 4)


def cache_bytes(config: Config, context: int, cache_format: CacheFormat, draft_context: int = 0) -> dict[str, int]:
    """The bytes of each part that `Cache.nbytes` names, for one sequence of `context` tokens.

    draft_context: how many positions the draft layers have read, an MTP layer or the rings of a DSpark drafter; 0
    where nothing is drafted.
    """
    parts = dict.fromkeys(PARTS, 0)
    for layer, ratio in enumerate(config.compress_ratios):
        length = context if layer < config.num_hidden_layers else draft_context
        for part, size in layer_cache_bytes(config, ratio, length, cache_format).items():
            parts[part] += size
    return parts


def layer_cache_bytes(config: Config, ratio: int, length: int, cache_format: CacheFormat) -> dict[str, int]:
    """The bytes of each part for one layer of this compression ratio, 0, 4 or 128, after `length` tokens."""
    row = RowBytes.of(config, cache_format)
    parts = dict.fromkeys(PARTS, 0)
    parts["window"] = min(length, config.sliding_window) * row.entry
    if not ratio:
        return parts
    parts["compressed"] = length // ratio * row.entry
    channels = config.head_dim
    pending = length % ratio
    if ratio == CSA_RATIO:  # overlapping blocks: twice the channels, and the block before the pending one
        parts["indexer keys"] = length // ratio * row.index_key
        channels = 2 * (config.head_dim + config.index_head_dim)
        pending = min(length, pending + ratio)
    parts["pending"] = 2 * pending * channels * row.pending_number  # values and scores
    return parts


def full_attention_bytes(layers: int, context: int) -> int:
    """The bytes of one sequence's cache where each layer attends to all tokens: the report's comparison (§2.3.4).

    Grouped-query attention keeps a key and a value of GQA_WIDTH channels in bf16 for each of GQA_HEADS heads and each
    token.
    """
    return layers * context * 2 * GQA_HEADS * GQA_WIDTH * NUMBER_BYTES["bf16"]
