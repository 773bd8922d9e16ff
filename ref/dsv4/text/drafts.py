"""Decoding with drafts: a cheap guess of the next tokens, which the model checks in one pass (report §2.4)."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from dsv4.errors import CheckpointError, DSV4Error
from dsv4.model.cache import Cache
from dsv4.model.model import Model
from dsv4.ops.types import Array, Ints, Mask
from dsv4.text.decode import Batch, Token
from dsv4.text.sampling import Sampler, residual


class Drafts(NamedTuple):
    """The guesses for the next tokens of one sequence."""

    ids: list[int]
    guesses: list[Array]
    """The distribution [vocab] that each was drawn from."""


@runtime_checkable
class Drafter(Protocol):
    """What guesses tokens for `decode_with_drafts`. It is given accepted tokens only, so it need not undo anything."""

    max_drafts: int
    """The largest number of drafts that one call of `draft` returns."""

    def read(self, states: Array, next_ids: Ints, cache: Cache, mask: Mask) -> None:
        """Read more of the text: the model's states [B, S, n, d], and the token that follows each, next_ids [B, S].

        Each call continues where the one before ended. A prompt's first token follows no state, and is not given.
        cache: what the states were computed with; mask [B, S]: false at padding. states: where the backend computes;
        next_ids and mask: on the host.
        """

    def draft(self, sequence: int, sampler: Sampler) -> Drafts:
        """Guesses for the tokens behind the last one that was read, each drawn from its distribution.

        sampler: what the text itself is drawn with. The distributions lie where the backend computes.
        """


class MTPDrafter:
    """The MTP module as a drafter of one token; its state lies in the model's cache."""

    max_drafts = 1

    def __init__(self, model: Model) -> None:
        """Raises CheckpointError for a model without an MTP layer."""
        if model.mtp is None:
            raise CheckpointError(f"{model.checkpoint.directory}: expected an MTP layer to draft with, found none")
        self.model = model

    def read(self, states: Array, next_ids: Ints, cache: Cache, mask: Mask) -> None:
        """As in `Drafter`."""
        self._logits = self.model.mtp_logits(states, next_ids, cache, mask)  # [B, S, vocab]
        self._newest = np.maximum(mask.sum(axis=1) - 1, 0)  # padding stands behind

    def draft(self, sequence: int, sampler: Sampler) -> Drafts:
        """As in `Drafter`."""
        guess = sampler.distribution(self._logits[sequence, self._newest[sequence]], sequence)
        return Drafts([sampler.draw(guess, sequence)], [guess])


def decode_with_drafts(batch: Batch, drafter: Drafter, states: Array) -> Iterator[Token]:
    """Up to 1 + drafter.max_drafts tokens per step, from the streams of each prompt's last token, [B, 1, n, d].

    Each step runs the model on the newest token and its drafts. Each accepted draft is one more token. At the first
    refused draft, it and all later ones are rolled back, and its replacement is drawn from `residual(target, guess)`.
    """
    newest = batch.next_tokens(states)
    for sequence in batch.in_turn():
        yield batch.take(sequence, newest[sequence])
    drafter.read(states, newest[:, None], batch.cache, batch.remaining[:, None] > 0)
    while len(batch.active):
        drafts = _draft(batch, drafter)
        tokens, present = _in_rows([[token, *each.ids] for token, each in zip(newest, drafts, strict=True)])
        states = batch.model.states(tokens, batch.cache, present & (batch.remaining[:, None] > 0))
        logits = batch.model.head(states)
        chosen: list[list[int]] = [[] for _ in drafts]
        for sequence in batch.in_turn():
            with batch.failing_alone(sequence):
                chosen[sequence] = accept(batch, sequence, drafts[sequence], logits[sequence])
                newest[sequence] = chosen[sequence][-1]
            for token in chosen[sequence]:
                if batch.remaining[sequence]:  # a draft that is a stop id ends the sequence
                    yield batch.take(sequence, token)
        refused = [len(each.ids) - max(len(kept) - 1, 0) for each, kept in zip(drafts, chosen, strict=True)]
        batch.cache.rollback(np.array(refused))
        tokens, present = _in_rows(chosen)
        drafter.read(states[:, : tokens.shape[1]], tokens, batch.cache, present & (batch.remaining[:, None] > 0))


def accept(batch: Batch, sequence: int, drafts: Drafts, logits: Array) -> list[int]:
    """The accepted drafts, and one token drawn from the model behind them.

    logits [1 + drafts, vocab]: what the model says behind the newest token and behind each draft. A draft is accepted
    with probability min(1, target / guess), which leaves the target's distribution as it is. The last of the tokens
    has not been read by the model yet.
    """
    sampler, kept = batch.sampler, list[int]()
    while True:
        try:
            target = sampler.distribution(logits[len(kept)], sequence)
        except DSV4Error:
            if kept:  # a token of the text all the same; the next step reads it again, and fails
                return kept
            raise
        if len(kept) == len(drafts.ids):
            return [*kept, sampler.draw(target, sequence)]
        draft, guess = drafts.ids[len(kept)], drafts.guesses[len(kept)]
        batch.drafted += 1
        if sampler.chance(sequence) * guess[draft] >= target[draft]:
            return [*kept, sampler.draw(residual(target, guess), sequence)]
        batch.accepted += 1
        kept.append(draft)


def _draft(batch: Batch, drafter: Drafter) -> list[Drafts]:
    """Drafts for each sequence; none where there is no use for them, with at most one token to go."""
    drafts = [Drafts([], []) for _ in batch.remaining]
    for sequence in batch.in_turn():
        if batch.remaining[sequence] > 1:
            with batch.failing_alone(sequence):
                ids, guesses = drafter.draft(sequence, batch.sampler)
                useful = min(batch.remaining[sequence] - 1, drafter.max_drafts)
                drafts[sequence] = Drafts(ids[:useful], guesses[:useful])
    return drafts


def _in_rows(several: list[list[int]]) -> tuple[Ints, Mask]:
    """Lists of tokens as rows [B, S], filled up with zeros, and where there are tokens."""
    lengths = np.array([len(tokens) for tokens in several])
    present = np.arange(max(lengths.max(), 1)) < lengths[:, None]
    rows = np.zeros(present.shape, np.int64)
    rows[present] = [token for tokens in several for token in tokens]
    return rows, present
