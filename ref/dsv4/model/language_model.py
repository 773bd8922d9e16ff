"""What a caller has of a model, of V4 or of V4.1: logits and states, a cache, and what drafts."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from dsv4.arguments import flag, integer
from dsv4.errors import CheckpointError, PromptError, SettingError, quoted
from dsv4.model.cache import Cache, Track
from dsv4.model.dspark import BlockDrafter, DraftBlock
from dsv4.model.mtp import MTP
from dsv4.model.observe import Observer, ignore
from dsv4.model.padding import Padding, check_ids
from dsv4.model.span import Counting, Span
from dsv4.model.stored_layers import StoredLayers
from dsv4.model.weight_store import KeptWeights, WeightStore
from dsv4.model.weights import SourceWeights, StoredTensors, Weights
from dsv4.ops import Ops
from dsv4.ops.types import Array, Ints


class LanguageModel(ABC):
    """A model on one backend. `dsv4.load` makes it from the path of a checkpoint."""

    config: Any
    checkpoint: StoredTensors
    ops: Ops
    dtype: np.dtype
    """Of activations and caches."""
    rounds: bool
    """Whether activations are rounded as the released model does."""
    store: WeightStore | None
    """Where weights are held, for a bounded memory; None where they stay."""
    counting: Counting
    """The numbers from 0 on, placed once for all calls."""
    layers: Sequence[Any]
    embed: Array
    head: Any
    """From states to logits."""

    def __init__(
        self, checkpoint: StoredTensors, ops: Ops, fake_quant: bool, dtype: npt.DTypeLike, store: WeightStore | None
    ) -> None:
        """As of `Model`; the layers and the head are still to be made."""
        self.rounds = flag("fake_quant", fake_quant)
        if store is None:
            ops.require_room(checkpoint.nbytes)
        self.config, self.checkpoint, self.ops = checkpoint.config, checkpoint, ops
        self.dtype, self.store = np.dtype(dtype), store
        self.counting = Counting(ops.asarray)
        self._weights: Weights = SourceWeights(checkpoint, ops) if store is None else KeptWeights(store)

    def _make_layers(self, names: Iterable[str], make: Callable[[Weights, int], Any]) -> None:
        """Make the layers and the embedding; with a store, which reads them later, see that there is room.

        names: of all parameters; make: takes weights by their full names, and the number of a layer.
        """
        if self.store is None:
            self.layers = [make(self._weights, number) for number in range(self.config.num_hidden_layers)]
            self.embed = self._weights["embed.weight"]
        else:
            self.layers = StoredLayers(self.store, list(names), self.config.num_experts_per_tok, make)

    @cached_property
    def drafter(self) -> MTP | BlockDrafter | None:
        """What drafts tokens, if the checkpoint has anything for that.

        With a store its weights, outside its experts, are read when it is first asked for; SettingError if they do not
        fit.
        """
        if isinstance(self.layers, StoredLayers) and self.checkpoint.has_mtp:
            self.layers.require_room_to_draft()
        return self._new_drafter()

    @abstractmethod
    def _new_drafter(self) -> MTP | BlockDrafter | None:
        """What drafts tokens, made of the checkpoint's weights."""

    @abstractmethod
    def states(
        self,
        ids: npt.ArrayLike,
        cache: Cache | None = None,
        mask: npt.ArrayLike | None = None,
        observe: Observer = ignore,
    ) -> Array:
        """What `head` takes, [B, S, ...], at every position. Else as `__call__`."""

    def new_cache(self, batch: int = 1, max_rollback: int = 128, packed: bool = False, drafts: bool = True) -> Cache:
        """An empty cache for `batch` sequences; max_rollback: how many tokens `rollback` may take back at most.

        drafts: whether there is room for what the MTP layer or the DSpark drafter keeps; without it nothing can be
        drafted, and a DSpark drafter is not fed. packed: store what the released model stores packed as it does:
        of V4 entries in FP8 and bf16 and indexer keys in FP4, which is what a float cache holds but for the rotated
        channels, which bf16 rounds; of V4.1 window keys in FP8, entries and index keys in FP4, which is exact. Raises
        PromptError for a batch below 1 or a max_rollback below 0, SettingError for packed where the model does not
        round its activations.
        """
        batch = integer("batch", batch, least=1, error=PromptError)
        max_rollback = integer("max_rollback", max_rollback, error=PromptError)
        if flag("packed", packed) and not self.rounds:
            raise SettingError('packed cache: expected a model with fake_quant "on", found one that does not round')
        drafting = flag("drafts", drafts) and self.checkpoint.has_mtp
        spare = min(max_rollback, self.config.max_position_embeddings)  # a sequence has no more tokens
        return self._empty_cache(batch, spare, packed, drafting)

    @abstractmethod
    def _empty_cache(self, batch: int, spare: int, packed: bool, drafting: bool) -> Cache:
        """As `new_cache`, of checked arguments; spare: how many tokens a rollback may take back."""

    @property
    def mtp(self) -> MTP | None:
        """The MTP module, where the checkpoint has one."""
        return self.drafter if isinstance(self.drafter, MTP) else None

    @property
    def dspark(self) -> BlockDrafter | None:
        """The DSpark drafter, where the checkpoint has one."""
        return self.drafter if isinstance(self.drafter, BlockDrafter) else None

    def __call__(
        self,
        ids: npt.ArrayLike,
        cache: Cache | None = None,
        mask: npt.ArrayLike | None = None,
        observe: Observer = ignore,
    ) -> Array:
        """The logits of the next token at every position.

        ids [B, S] (or [S]) integer token ids; cache: what came before, and is added to; mask [B, S]: false where a
        token is padding, wherever that stands; observe: called with intermediate results. Returns [B, S, vocab] of
        the model's dtype, float32 unless loaded otherwise, zeros at padding. Raises PromptError for an empty prompt,
        an id outside the vocabulary, more tokens than max_position_embeddings, or a mask or cache that does not fit.
        """
        logits: Array = self.head(self.states(ids, cache, mask, observe))  # states of zero give logits of zero
        return logits

    def first_streams(self, ids: Ints) -> Array:
        """What the first block takes: the embedding of ids [B, S], repeated for each stream, [B, S, n, d]."""
        embedded = self.embedded(self.ops.asarray(ids)).astype(self.dtype)
        return np.repeat(embedded[:, :, None], self.config.hc_mult, axis=2)

    def embedded(self, ids: Ints) -> Array:
        """The rows of the embedding, [B, S, d]; with a store they are read from the file each time."""
        if self.store is None:
            return self.ops.embedding(ids, self.embed)
        rows, places = self.store.rows("embed.weight", ids)
        return self.ops.embedding(places, rows)

    def mtp_logits(
        self,
        states: Array,
        next_ids: npt.ArrayLike,
        cache: Cache | None = None,
        mask: npt.ArrayLike | None = None,
        observe: Observer = ignore,
    ) -> Array:
        """The MTP module's logits of the token two places on.

        states [B, S, n, d] from `states`; next_ids [B, S]: the token that follows each state's; cache: the one that
        the states were computed with, or None for states from position 0; mask [B, S]: false at padding. With a
        cache, each call goes on at the position where the last one ended: no state may be left out or given twice.
        Returns [B, S, vocab] of the model's dtype. Raises PromptError as `__call__` does, and for more states than
        the cache has seen tokens; CheckpointError without an MTP layer.
        """
        if self.mtp is None:
            raise CheckpointError(f"{self.checkpoint.directory}: expected an MTP layer (mtp.0.*), found none")
        padding = Padding.of(next_ids, mask)
        shape = (*padding.ids.shape, self.config.hc_mult, self.config.hidden_size)
        found = getattr(states, "shape", None)
        if found != shape:
            raise PromptError(f"states: expected n streams for each token, {shape}, found {quoted(found or states)}")
        given = cache is not None
        cache = self.new_cache(len(padding.ids), max_rollback=0) if cache is None else cache
        check_cache(cache, len(self.layers))
        if not cache.mtp.layers:
            raise PromptError("cache: expected one with an MTP layer, found one without")
        span = self._span(padding, cache.mtp)
        if given and (span.ends > cache.lengths).any():
            most, found = cache.lengths.tolist(), span.ends.tolist()
            raise PromptError(f"MTP: expected states that the cache has seen, up to positions {most}, found {found}")
        cache.mtp.begin(span.counts)
        logits = self.mtp(padding.arrange(states), span.tokens, span, cache.mtp.layers[0], observe)
        cache.mtp.finish(span.counts)
        return padding.restore(logits)

    def draft_block(self, given: npt.ArrayLike, cache: Cache, observe: Observer = ignore) -> DraftBlock:
        """The DSpark drafter's guess of the tokens behind a given one, which the main model has not read yet.

        given [B] integer: the token behind those that the cache has seen, at least one of each sequence; the cache
        stays as it is. `dspark.draft` chooses tokens from the result. Raises CheckpointError without such a drafter,
        PromptError for ids or a cache that do not fit.
        """
        if self.dspark is None:
            raise CheckpointError(f"{self.checkpoint.directory}: expected a DSpark drafter (mtp.*), found none")
        check_cache(cache, len(self.layers))
        if not cache.mtp.layers:
            raise PromptError("cache: expected one with room for drafts, found one of new_cache(drafts=False)")
        ids = Padding.of(np.asarray(given)[..., None], None).ids
        check_ids(ids, self.config.vocab_size)
        if len(ids) != len(cache.lengths) or (cache.lengths == 0).any():
            expected = f"one token for each of {len(cache.lengths)} sequences, which have tokens before it"
            raise PromptError(f"given: expected {expected}, found {quoted(given)} behind {cache.lengths.tolist()}")
        return self.dspark.block(ids[:, 0], cache.mtp.lengths, cache.mtp.layers, observe)

    def _targets(self, cache: Cache) -> tuple[int, ...]:
        """The layers whose streams the DSpark drafter reads; none where there is no drafter, or no room for drafts."""
        return self.config.dspark.target_layer_ids if self.config.dspark and cache.mtp.layers else ()

    @staticmethod
    def _fill_rings(dspark: BlockDrafter, tapped: Sequence[Array], span: Span, rings: Track, observe: Observer) -> None:
        """The DSpark drafter reads a span's tokens: tapped holds the streams of its target layers."""
        main_hidden = dspark.main_hidden(tapped)
        observe("main_hidden", main_hidden)
        rings.begin(span.counts)
        dspark.read(main_hidden, span, rings.layers, observe)
        rings.finish(span.counts)

    def _begin(
        self, ids: npt.ArrayLike, cache: Cache | None, mask: npt.ArrayLike | None
    ) -> tuple[Padding, Cache, Span]:
        """The checked arguments of a call, and the positions of its tokens, for which the cache is made ready."""
        padding = Padding.of(ids, mask)
        cache = self.new_cache(len(padding.ids), max_rollback=0, drafts=False) if cache is None else cache
        check_cache(cache, len(self.layers))
        span = self._span(padding, cache.main)
        if (span.ends == 0).any():
            raise PromptError(f"sequence {int(np.argmin(span.ends))}: expected at least one token, found none")
        cache.main.begin(span.counts)
        if self.store is not None:
            self.store.begin_pass(cache)
        return padding, cache, span

    def _span(self, padding: Padding, track: Track) -> Span:
        """The positions of a call's tokens, whose ids and number must fit the model and the cache."""
        ids, counts, starts = padding.ids, padding.counts, track.lengths
        config = self.config
        if len(starts) != len(ids):
            raise PromptError(f"cache: expected one for {len(ids)} sequences, found one for {len(starts)}")
        if (starts + counts).max() > config.max_position_embeddings:
            most, found = config.max_position_embeddings, (starts + counts).max()
            raise PromptError(f"prompt: expected at most max_position_embeddings = {most} tokens, found {found}")
        check_ids(ids, config.vocab_size)
        return Span(starts, counts, ids.shape[1], self.ops.asarray, self.counting, ids)


def check_cache(cache: Cache, layers: int) -> None:
    """Raise PromptError for what is no cache, or one of a model with another number of layers."""
    if not isinstance(cache, Cache):
        raise PromptError(f"cache: expected a cache from model.new_cache, found {quoted(cache)}")
    if len(cache.main.layers) != layers:
        raise PromptError(f"cache: expected one of {layers} layers, found one of {len(cache.main.layers)}")
