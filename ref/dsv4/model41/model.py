"""The whole text path of V4.1: tokens → embed → n streams → Engram and blocks → head → logits (report §2)."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dsv4.arguments import flag, integer
from dsv4.config41 import Config41
from dsv4.errors import PromptError, SettingError
from dsv4.model.cache import Cache, Track
from dsv4.model.language_model import LanguageModel
from dsv4.model.mtp import MTP
from dsv4.model.observe import Observer, ignore
from dsv4.model.padding import Padding, check_ids
from dsv4.model.span import Counting, Span
from dsv4.model.weights import SourceWeights
from dsv4.model41.block import Block41, first_pre
from dsv4.model41.cache import LayerCache41, new_layer_cache41
from dsv4.model41.dspark import DSpark41
from dsv4.model41.engram import Engram41
from dsv4.model41.part import Part41, Source41
from dsv4.model41.rounding import Rounding41
from dsv4.model41.source import Published
from dsv4.ops import Ops
from dsv4.ops.types import Array, Ints


class Model41(LanguageModel):
    """A DeepSeek-V4.1 model on one backend. `dsv4.load` makes it from the path of a checkpoint."""

    config: Config41
    checkpoint: Source41

    def __init__(
        self,
        checkpoint: Source41,
        ops: Ops,
        fake_quant: bool,
        dtype: npt.DTypeLike = np.float32,
        token_classes: Ints | None = None,
    ) -> None:
        """checkpoint: a `dsv4.checkpoint.Checkpoint41`, or weights from elsewhere. fake_quant: whether activations are
        rounded as the released model does. dtype: of activations and caches. token_classes [vocab]: the class of each
        token, which Engram layers need.

        Raises CheckpointError where the files do not hold what the config describes, BackendError where the weights do
        not fit in the backend's memory, SettingError for classes that do not fit the config. Routed experts are read
        later, rows of Engram tables each time.
        """
        self.rounds = flag("fake_quant", fake_quant)
        ops.require_room(checkpoint.nbytes)
        config = self.config = checkpoint.config
        self.checkpoint, self.ops, self.dtype, self.store = checkpoint, ops, np.dtype(dtype), None
        self.counting = Counting(ops.asarray)
        self.token_classes = _checked(token_classes, config)
        whole = Part41(config, ops, Rounding41(ops, self.rounds), SourceWeights(checkpoint, ops), checkpoint)
        parts = [whole.under(f"layers.{n}.") for n in range(config.num_hidden_layers)]
        experts = config.n_routed_experts, config.num_experts_per_tok
        self.engrams = {n: self._engram(part, n) for n, part in enumerate(parts) if config.is_engram_layer(n)}
        self.layers: Sequence[Block41] = [Block41(part, n, *experts) for n, part in enumerate(parts)]
        self.embed = whole["embed.weight"]
        self.head = Head41(whole)
        drafts = config.dspark is not None and checkpoint.has_mtp
        self._drafter = DSpark41(whole, self.first_streams, self.head.head) if drafts else None

    @property
    def drafter(self) -> MTP | DSpark41 | None:
        """The DSpark drafter, where the checkpoint has one."""
        return self._drafter

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
            streams = self._enter(number, streams, classes, span, layer_cache, observe)
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
        streams = self._enter(number, streams, self._classes(padding.ids), span, cache, observe)
        return self.layers[number](streams, pre, span, cache, published, observe)

    def new_cache(self, batch: int = 1, max_rollback: int = 128, packed: bool = False, drafts: bool = True) -> Cache:
        """An empty cache for `batch` sequences; max_rollback: how many tokens `rollback` may take back at most.

        drafts: whether there is room for the rings of the DSpark drafter; without it nothing can be drafted. packed:
        store window keys in FP8, entries and index keys in FP4, as the released model does. Raises PromptError for a
        batch below 1 or a max_rollback below 0, SettingError for packed where the model does not round its activations.
        """
        batch = integer("batch", batch, least=1, error=PromptError)
        max_rollback = integer("max_rollback", max_rollback, error=PromptError)
        if flag("packed", packed) and not self.rounds:
            raise SettingError('packed cache: expected a model with fake_quant "on", found one that does not round')
        config = self.config
        spare, layers = min(max_rollback, config.max_position_embeddings), config.num_hidden_layers
        stages = config.draft_layers if flag("drafts", drafts) and self.checkpoint.has_mtp else 0

        def track(first: int, count: int) -> Track:
            numbers = range(first, first + count)
            caches = [new_layer_cache41(self.ops, config, n, batch, spare, self.dtype, packed) for n in numbers]
            return Track(caches, np.zeros(batch, np.int64), spare)

        return Cache(track(0, layers), track(layers, stages))

    def _enter(
        self, number: int, streams: Array, classes: Ints | None, span: Span, cache: LayerCache41, observe: Observer
    ) -> Array:
        """The streams [B, S, n, d] as a layer takes them: behind its Engram, where it has one."""
        engram = self.engrams.get(number)
        if engram is None or classes is None or cache.classes is None:
            return streams
        return engram(streams, classes, span, cache.classes, observe)

    def _classes(self, ids: Ints) -> Ints | None:
        """The classes of tokens [B, S], placed; None for a model without an Engram."""
        return None if self.token_classes is None else self.ops.asarray(self.token_classes[ids])

    def _engram(self, part: Part41, layer: int) -> Engram41:
        assert self.config.engram is not None and self.token_classes is not None
        return Engram41(part.under("engram."), layer, int(self.token_classes[self.config.engram.pad_token_id]))


class Head41:
    """The end of the model: normalise and project to the vocabulary; the streams are collapsed already."""

    def __init__(self, whole: Part41) -> None:
        self.ops, self.eps, self.head = whole.ops, whole.config.rms_norm_eps, whole["head.weight"]
        self.norm = whole["norm.weight"]

    def __call__(self, states: Array) -> Array:
        """[B, S, d] -> logits [B, S, vocab]"""
        return self.ops.linear(self.ops.rms_norm(states, self.norm, self.eps), self.head)


def _checked(token_classes: Ints | None, config: Config41) -> Ints | None:
    """The classes of all tokens as int64. Raises SettingError where they do not fit the config."""
    engram = config.engram
    if engram is None:
        return None
    count = engram.compressed_vocab_size
    if token_classes is None or token_classes.shape != (config.vocab_size,):
        found = "none" if token_classes is None else f"{token_classes.shape}"
        raise SettingError(f"token classes: expected one for each of {config.vocab_size} tokens, found {found}")
    found_count = int(token_classes.max()) + 1
    if token_classes.min() < 0 or found_count != count:
        raise SettingError(
            f"token classes: expected {count}, as engram_compressed_vocab_size says, found {found_count}"
        )
    return token_classes.astype(np.int64)
