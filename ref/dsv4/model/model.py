"""The whole model: tokens → embed → n streams → blocks → head → logits (report §2)."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt

from dsv4.arguments import integer
from dsv4.config import Config
from dsv4.errors import PromptError
from dsv4.model.attention import new_layer_cache
from dsv4.model.block import Block, Head
from dsv4.model.cache import Cache, Track
from dsv4.model.dspark import DSpark
from dsv4.model.language_model import LanguageModel
from dsv4.model.mtp import MTP
from dsv4.model.observe import Observer, ignore
from dsv4.model.padding import Padding, check_ids
from dsv4.model.part import Part
from dsv4.model.rounding import Rounding
from dsv4.model.span import Span
from dsv4.model.weight_store import WeightStore
from dsv4.model.weights import Source, Weights
from dsv4.ops import Ops
from dsv4.ops.types import Array, Ints
from dsv4.parameters import parameters


class Model(LanguageModel):
    """A DeepSeek-V4 model on one backend. `dsv4.load` makes it from the path of a checkpoint."""

    config: Config
    checkpoint: Source
    layers: Sequence[Block]

    def __init__(
        self,
        checkpoint: Source,
        ops: Ops,
        fake_quant: bool,
        dtype: npt.DTypeLike = np.float32,
        store: WeightStore | None = None,
    ) -> None:
        """checkpoint: a `dsv4.Checkpoint`, or weights from elsewhere. fake_quant: whether activations are rounded as
        the released model does. dtype: of activations and caches. store: where weights are held, for a bounded memory;
        without one they stay.

        Raises CheckpointError where the files do not hold what the config describes, BackendError where the weights do
        not fit in the backend's memory, SettingError for a fake_quant like "off", which would pass for true, and for a
        store that is too small. Routed experts are read later, and with a store layers and what drafts, too.
        """
        super().__init__(checkpoint, ops, fake_quant, dtype, store)
        rounding = Rounding(ops, self.rounds, self.config.qk_rope_head_dim)
        whole = self._whole = Part(self.config, ops, rounding, self._weights, store)
        self._make_layers(parameters(self.config), partial(_block, whole))
        self.head = Head(whole, whole["head.weight"])
        if store is None:
            self.drafter = self._new_drafter()

    def states(
        self,
        ids: npt.ArrayLike,
        cache: Cache | None = None,
        mask: npt.ArrayLike | None = None,
        observe: Observer = ignore,
    ) -> Array:
        """The n streams after the last block, [B, S, n, d]: what `head` and `mtp_logits` take. Else as `__call__`."""
        padding, cache, span = self._begin(ids, cache, mask)
        streams, targets, tapped = self.first_streams(span.tokens), self._targets(cache), []
        for number, (block, layer_cache) in enumerate(zip(self.layers, cache.main.layers, strict=True)):
            streams = block(streams, span.tokens, span, layer_cache, observe)
            if number in targets:
                tapped.append(streams)
        if tapped and self.dspark:
            self._fill_rings(self.dspark, tapped, span, cache.mtp, observe)
        cache.main.finish(span.counts)
        return padding.restore(streams)

    def layer(self, number: int, streams: Array, ids: npt.ArrayLike, observe: Observer = ignore) -> Array:
        """One block by itself, on streams [B, S, n, d] of the tokens ids [B, S] from position 0.

        Returns the streams after it, [B, S, n, d]. So a layer can be compared with stored results by itself: its
        input is a stored one, and every difference in its output is its own. Raises PromptError for another layer than
        0 … L − 1 and for ids that do not fit.
        """
        block = self.layers[integer("layer", number, most=len(self.layers) - 1, error=PromptError)]
        padding = Padding.of(ids, None)
        check_ids(padding.ids, self.config.vocab_size)
        batch, length = padding.ids.shape
        span = Span(np.zeros(batch, np.int64), padding.counts, length, self.ops.asarray)
        given = self.ops.asarray(streams).astype(self.dtype, copy=False)
        return block(given, self.ops.asarray(padding.ids), span, block.new_cache(batch, 0, self.dtype), observe)

    def _empty_cache(self, batch: int, spare: int, packed: bool, drafting: bool) -> Cache:
        def track(ratios: Sequence[int], ahead: int) -> Track:
            back = spare + ahead
            layers = [
                new_layer_cache(self.ops, self.config, ratio, batch, back, self.dtype, packed) for ratio in ratios
            ]
            return Track(layers, np.zeros(batch, np.int64), back, ahead)

        config = self.config
        layers = config.num_hidden_layers
        main, draft = config.compress_ratios[:layers], config.compress_ratios[layers:] if drafting else ()
        # The MTP layer reads a token at the position before its own, so it goes back one further.
        has_mtp_layer = self.checkpoint.has_mtp and config.dspark is None
        return Cache(track(main, ahead=0), track(draft, ahead=1 if has_mtp_layer else 0))

    def _new_drafter(self) -> MTP | DSpark | None:
        if not self.checkpoint.has_mtp:
            return None
        if self.config.dspark:
            return DSpark(self._whole, self.first_streams, self.head.head)
        embedded = _look_up(self.ops, self.embed) if self.store is None else self.embedded
        return MTP(self._whole.under("mtp.0."), embedded, self.head.head)


def _block(whole: Part, weights: Weights, number: int) -> Block:
    """One layer, of weights by their full names."""
    part, config = replace(whole, weights=weights).under(f"layers.{number}."), whole.config
    return Block(part, config.compress_ratios[number], config.is_hash_layer(number))


def _look_up(ops: Ops, table: Array) -> Callable[[Ints], Array]:
    """From ids to rows of a table, without the model, which would stay in memory for as long as its own MTP module."""
    return lambda ids: ops.embedding(ids, table)
