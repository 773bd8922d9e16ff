"""Multi-token prediction: a module that guesses one token further (report §2.4, §4.2)."""

from collections.abc import Callable

import numpy as np

from dsv4.model.block import Block, Head
from dsv4.model.cache import LayerCache
from dsv4.model.observe import Observer
from dsv4.model.part import Part
from dsv4.model.span import Span
from dsv4.ops.types import Array, Ints


class MTP:
    """From the streams at position t and the token at t + 1, the logits of the token at t + 2."""

    def __init__(self, part: Part, embed: Callable[[Ints], Array], head: Array) -> None:
        """embed: from ids to rows of the embedding; head: the table of the head. Both are the model's own."""
        config, self.ops, self.rounding, self.embed = part.config, part.ops, part.rounding, embed
        self.eps = config.rms_norm_eps
        self.enorm = part["enorm.weight"]
        self.hnorm = part["hnorm.weight"]
        self.e_proj = part["e_proj.weight"]
        self.h_proj = part["h_proj.weight"]
        self.block = Block(part, config.compress_ratios[config.num_hidden_layers], by_id=False)
        self.head = Head(part, head)

    def __call__(self, streams: Array, next_ids: Ints, span: Span, cache: LayerCache, observe: Observer) -> Array:
        """streams [B, S, n, d] before the head collapses them, next_ids [B, S] -> logits [B, S, vocab]"""
        ops, eps, linear = self.ops, self.eps, self.rounding.linear
        embedded = ops.rms_norm(self.embed(next_ids).astype(streams.dtype), self.enorm, eps)
        token = linear(embedded, self.e_proj)[:, :, None]  # [B, S, 1, d]: the same for each stream
        state = linear(ops.rms_norm(streams, self.hnorm, eps), self.h_proj)  # [B, S, n, d]
        return self.head(self.block(token + state, next_ids, span, cache, observe))

    def new_cache(self, batch: int, max_rollback: int, dtype: np.dtype, packed: bool = False) -> LayerCache:
        """An empty state for the module's layer: see `Attention`."""
        return self.block.new_cache(batch, max_rollback, dtype, packed)
