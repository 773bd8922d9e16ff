"""The Engram of a layer: rows of a large table that the last few tokens name (V4.1's report §2.4.2)."""

from typing import Any

import numpy as np

from dsv4.model.observe import Observer
from dsv4.model.rows import RecentRows
from dsv4.model.span import Span, for_all_layers
from dsv4.model41.part import Part41
from dsv4.ops.engram import engram_moduli, engram_multipliers
from dsv4.ops.types import Array, Ints, Mask


class Engram41:
    """Adds to each stream what the table holds of the n-grams that end at a token.

    Source: V4.1's report §2.4.2; code: Engram.
    """

    def __init__(self, part: Part41, layer: int) -> None:
        """part: the layer's engram."""
        config, self.ops, self.rounding, self.name = part.config, part.ops, part.rounding, part.name
        settings = config.engram
        assert settings is not None and part.token_classes is not None
        self.eps, self.before = config.rms_norm_eps, settings.max_ngram_size - 1
        self.pad_class = int(part.token_classes[settings.pad_token_id])  # stands before the first token
        place = settings.layer_ids.index(layer)
        count, longest = settings.compressed_vocab_size, settings.max_ngram_size
        moduli = engram_moduli(len(settings.layer_ids), longest, settings.n_heads, settings.vocab_size)
        self.multipliers = part.ops.asarray(engram_multipliers(layer, count, longest))
        self.moduli = part.ops.asarray(moduli[place])
        self.table = part.table("embed.weight")
        self.wkv = part["wkv.weight"]
        self.q_weight = part["q_weight"]
        self.k_weight = part["k_weight"]

    def __call__(self, streams: Array, classes: Ints, span: Span, cache: RecentRows, observe: Observer) -> Array:
        """streams [B, S, n, d], classes of the tokens [B, S] -> [B, S, n, d]; the cache gains the classes."""
        ops = self.ops
        as_rows: Any = classes[..., None]
        known: Any = cache.extend(as_rows, span)[..., 0]  # [B, N − 1 + S]
        known = np.where(_exist(span, self.before), known, self.pad_class)
        rows = ops.engram_rows(known, self.multipliers, self.moduli)  # [B, S, columns]
        observe(f"{self.name}hash_ids", rows)
        found = ops.asarray(self.table(ops.to_numpy(rows)))  # [B, S, columns, width]
        found = found.astype(streams.dtype).reshape(*rows.shape[:2], -1)
        kv = self.rounding.linear(found, self.wkv)  # [B, S, (n + 1)·d]
        observe(f"{self.name}in", streams)
        observe(f"{self.name}kv", kv)
        streams = ops.engram_gate(streams, kv, self.q_weight, self.k_weight, self.eps)
        observe(f"{self.name}out", streams)
        return streams


@for_all_layers
def _exist(span: Span, before: int) -> Mask:
    """[B, before + S] whether there is a token at a position: not before the first one. Placed."""
    positions = span.starts[:, None] + np.arange(-before, span.length)
    exist: Mask = span.place(positions >= 0)
    return exist
