"""What a checkpoint has to draft with: an MTP layer, or the stages of DSpark."""

import numpy as np

from dsv4.errors import CheckpointError
from dsv4.model.cache import Cache
from dsv4.model.dspark import DraftBlock
from dsv4.model.language_model import LanguageModel
from dsv4.ops.types import Array, Ints, Mask
from dsv4.text.drafts import Drafter, Drafts
from dsv4.text.sampling import Sampler


def drafter_of(model: LanguageModel) -> Drafter:
    """What the model's checkpoint drafts with. Raises CheckpointError where it has nothing for that."""
    return MTPDrafter(model) if model.dspark is None else DSparkDrafter(model)


class MTPDrafter:
    """The MTP module as a drafter of one token; its state lies in the model's cache."""

    max_drafts = 1

    def __init__(self, model: LanguageModel) -> None:
        """Raises CheckpointError for a model without an MTP layer."""
        if model.mtp is None:
            raise CheckpointError(f"{model.checkpoint.directory}: expected an MTP layer to draft with, found none")
        self.model = model

    def read(self, states: Array, next_ids: Ints, cache: Cache, mask: Mask) -> None:
        """As in `Drafter`."""
        self._logits = self.model.mtp_logits(states, next_ids, cache, mask)  # [B, S, vocab]
        self._newest = _last(mask)

    def draft(self, sequence: int, sampler: Sampler) -> Drafts:
        """As in `Drafter`."""
        guess = sampler.distribution(self._logits[sequence, self._newest[sequence]], sequence)
        return Drafts([sampler.draw(guess, sequence)], [guess])


class DSparkDrafter:
    """The DSpark stages as a drafter of a block; the model itself has put its tokens into their rings."""

    def __init__(self, model: LanguageModel) -> None:
        """Raises CheckpointError for a model without a DSpark drafter."""
        if model.dspark is None:
            raise CheckpointError(f"{model.checkpoint.directory}: expected a DSpark drafter, found none")
        self.model, self.dspark = model, model.dspark
        self.max_drafts = model.dspark.settings.block_size

    def read(self, states: Array, next_ids: Ints, cache: Cache, mask: Mask) -> None:
        """As in `Drafter`: the last token is the one that a block begins with."""
        self._given = next_ids[np.arange(len(mask)), _last(mask)]
        self._cache = cache
        self._block: DraftBlock | None = None

    def draft(self, sequence: int, sampler: Sampler) -> Drafts:
        """As in `Drafter`; the first sequence that asks has the blocks of all of them computed."""
        if self._block is None:
            self._block = self.model.draft_block(self._given, self._cache)
        to_numpy, asarray = self.model.ops.to_numpy, self.model.ops.asarray
        guesses: list[Array] = []

        def pick(logits: Array) -> Ints:
            guesses.append(sampler.distribution(logits[0], sequence))
            return asarray(np.array([sampler.draw(guesses[-1], sequence)]))

        own = DraftBlock(*(part[sequence : sequence + 1] for part in self._block))
        drafted = self.dspark.draft(own, asarray(self._given[sequence : sequence + 1]), pick)
        return Drafts(to_numpy(drafted.ids)[0].tolist(), guesses, to_numpy(drafted.confidence)[0].tolist())


def _last(mask: Mask) -> Ints:
    """[B] the place of each row's last token; padding stands behind. 0 for a row without tokens."""
    newest: Ints = np.maximum(mask.sum(axis=1) - 1, 0)
    return newest
