"""The whole text path of V4.1: tokens → embed → n streams → Engram and blocks → head → logits (report §2)."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt

from dsv4.arguments import integer
from dsv4.config41 import Config41
from dsv4.errors import PromptError, SettingError
from dsv4.model.cache import Cache, Track
from dsv4.model.language_model import LanguageModel
from dsv4.model.observe import Observer, ignore
from dsv4.model.padding import Padding, check_ids
from dsv4.model.span import Span
from dsv4.model.weight_store import WeightStore
from dsv4.model.weights import Weights
from dsv4.model41.block import Block41, first_pre
from dsv4.model41.cache import LayerCache41, new_layer_cache41
from dsv4.model41.dspark import DSpark41
from dsv4.model41.part import Part41, Source41
from dsv4.model41.rounding import Rounding41
from dsv4.model41.source import Published
from dsv4.ops import Ops
from dsv4.ops.types import Array, Ints
from dsv4.parameters41 import parameters41


class Model41(LanguageModel):
    """A DeepSeek-V4.1 model on one backend. `dsv4.load` makes it from the path of a checkpoint."""

    config: Config41
    checkpoint: Source41
    layers: Sequence[Block41]

    def __init__(
        self,
        checkpoint: Source41,
        ops: Ops,
        fake_quant: bool,
        dtype: npt.DTypeLike = np.float32,
        token_classes: Ints | None = None,
        store: WeightStore | None = None,
    ) -> None:
        """checkpoint: a `dsv4.checkpoint.Checkpoint41`, or weights from elsewhere. fake_quant: whether activations are
        rounded as the released model does. dtype: of activations and caches. token_classes [vocab]: the class of each
        token, which Engram layers need. store: as `dsv4.Model` takes it.

        Raises as `dsv4.Model` does, and SettingError for classes that do not fit the config. Routed experts are read
        later, with a store layers and what drafts, too, and rows of Engram tables each time.
        """
        super().__init__(checkpoint, ops, fake_quant, dtype, store)
        self.token_classes = _checked(token_classes, self.config)
        rounding = Rounding41(ops, self.rounds)
        whole = self._whole = Part41(self.config, ops, rounding, self._weights, checkpoint, self.token_classes, store)
        self._make_layers(parameters41(self.config), partial(_block, whole))
        self.head = Head41(whole)
        if store is None:
            self.drafter = self._new_drafter()

    def states(
        self,
        ids: npt.ArrayLike,
        cache: Cache | None = None,
        mask: npt.ArrayLike | None = None,
        observe: Observer = ignore,
    ) -> Array:
        """The collapsed streams after the last block, [B, S, d]: what `head` takes. Else as `__call__`."""
        padding, cache, span = self._begin(ids, cache, mask)
        classes = self._classes(padding.ids)
        streams, published = self.first_streams(span.tokens), Published()
        pre, targets, tapped = first_pre(self.ops, streams), self._targets(cache), list[Array]()
        for number, (block, layer_cache) in enumerate(zip(self.layers, cache.main.layers, strict=True)):
            streams = self._enter(block, streams, classes, span, layer_cache, observe)
            if number in targets:
                tapped.append(streams)
            streams, pre = block(streams, pre, span, layer_cache, published, observe)
        if tapped and self.dspark:
            self._fill_rings(self.dspark, tapped, span, cache.mtp, observe)
        cache.main.finish(span.counts)
        return padding.restore(self.ops.mhc_collapse(streams, pre))

    def layer(
        self,
        number: int,
        streams: Array,
        pre: Array,
        ids: npt.ArrayLike,
        published: Published,
        observe: Observer = ignore,
    ) -> tuple[Array, Array]:
        """One layer by itself, on streams [B, S, n, d] and pre [B, S, n] of the tokens ids [B, S] from position 0.

        published: what such calls for the layers before it have left there. Returns the streams and pre after it. So a
        layer can be compared with stored results by itself. Raises PromptError for another layer than 0 … L − 1 and for
        ids that do not fit.
        """
        number = integer("layer", number, most=len(self.layers) - 1, error=PromptError)
        padding = Padding.of(ids, None)
        check_ids(padding.ids, self.config.vocab_size)
        batch, length = padding.ids.shape
        span = Span(np.zeros(batch, np.int64), padding.counts, length, self.ops.asarray)
        cache = new_layer_cache41(self.ops, self.config, number, batch, 0, self.dtype)
        streams, pre = (self.ops.asarray(given).astype(self.dtype, copy=False) for given in (streams, pre))
        block = self.layers[number]
        streams = self._enter(block, streams, self._classes(padding.ids), span, cache, observe)
        return block(streams, pre, span, cache, published, observe)

    def _empty_cache(self, batch: int, spare: int, packed: bool, drafting: bool) -> Cache:
        config, layers = self.config, self.config.num_hidden_layers

        def track(first: int, count: int) -> Track:
            numbers = range(first, first + count)
            caches = [new_layer_cache41(self.ops, config, n, batch, spare, self.dtype, packed) for n in numbers]
            return Track(caches, np.zeros(batch, np.int64), spare)

        return Cache(track(0, layers), track(layers, config.draft_layers if drafting else 0))

    @staticmethod
    def _enter(
        block: Block41, streams: Array, classes: Ints | None, span: Span, cache: LayerCache41, observe: Observer
    ) -> Array:
        """The streams [B, S, n, d] as a layer takes them: behind its Engram, where it has one."""
        if block.engram is None or classes is None or cache.classes is None:
            return streams
        return block.engram(streams, classes, span, cache.classes, observe)

    def _classes(self, ids: Ints) -> Ints | None:
        """The classes of tokens [B, S], placed; None for a model without an Engram."""
        return None if self.token_classes is None else self.ops.asarray(self.token_classes[ids])

    def _new_drafter(self) -> DSpark41 | None:
        return DSpark41(self._whole, self.first_streams, self.head.head) if self.checkpoint.has_mtp else None


class Head41:
    """The end of the model: normalise and project to the vocabulary; the streams are collapsed already."""

    def __init__(self, whole: Part41) -> None:
        self.ops, self.eps, self.head = whole.ops, whole.config.rms_norm_eps, whole["head.weight"]
        self.norm = whole["norm.weight"]

    def __call__(self, states: Array) -> Array:
        """[B, S, d] -> logits [B, S, vocab]"""
        return self.ops.linear(self.ops.rms_norm(states, self.norm, self.eps), self.head)


def _block(whole: Part41, weights: Weights, number: int) -> Block41:
    """One layer, of weights by their full names."""
    part, config = replace(whole, weights=weights).under(f"layers.{number}."), whole.config
    return Block41(part, number, config.n_routed_experts, config.num_experts_per_tok)


def _checked(token_classes: Ints | None, config: Config41) -> Ints | None:
    """The classes of all tokens as int64. Raises SettingError where they do not fit the config."""
    engram = config.engram
    if engram is None:
        return None
    count = engram.compressed_vocab_size
    if token_classes is None or token_classes.shape != (config.vocab_size,):
        found = "none" if token_classes is None else f"{token_classes.shape}"
        raise SettingError(f"token classes: expected one for each of {config.vocab_size} tokens, found {found}")
    if token_classes.dtype.kind not in "iu":
        raise SettingError(f"token classes: expected integers, found {token_classes.dtype}")
    found_count = int(token_classes.max()) + 1
    if token_classes.min() < 0 or found_count != count:
        raise SettingError(
            f"token classes: expected {count}, as engram_compressed_vocab_size says, found {found_count}"
        )
    return token_classes.astype(np.int64)
