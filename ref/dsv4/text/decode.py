"""The two decoding loops: token by token, and with a draft of the next one from the MTP module (report §2.4)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from dsv4.errors import DSV4Error
from dsv4.model.model import Model
from dsv4.ops.types import Array, Ints, Mask
from dsv4.text.sampling import Sampler, require_numbers, residual


@dataclass(frozen=True)
class Token:
    """One generated token."""

    sequence: int
    """Which prompt it continues, counting from 0."""
    id: int
    """The token id; the last one of a sequence may be a stop id."""


class Batch:
    """The sequences that are being continued."""

    def __init__(self, model: Model, sampler: Sampler, stop_ids: frozenset[int], left: Ints) -> None:
        """left [B]: how many tokens each sequence may get at most."""
        self.model, self.sampler, self.stop_ids, self.left = model, sampler, stop_ids, left
        self.cache = model.new_cache(len(left), max_rollback=1)
        self.drafted = self.accepted = 0
        self.failures: dict[int, DSV4Error] = {}

    @property
    def active(self) -> Ints:
        """The numbers of the sequences that are not finished."""
        return np.nonzero(self.left)[0]

    def in_turn(self) -> Iterator[int]:
        """The same one by one, without those that are ended before it is their turn."""
        return (int(sequence) for sequence in self.active if self.left[sequence])

    def take(self, sequence: int, token: int) -> Token:
        """Count a token of a sequence, which ends with a stop id or with its last allowed token."""
        self.left[sequence] = 0 if token in self.stop_ids else self.left[sequence] - 1
        return Token(sequence, int(token))

    @contextmanager
    def by_itself(self, sequence: int) -> Iterator[None]:
        """What raises inside ends this sequence alone: the others go on, and `raise_failure` says it in the end."""
        try:
            yield
        except DSV4Error as error:
            self.left[sequence] = 0
            self.failures[sequence] = error

    def raise_failure(self) -> None:
        """Raises DSV4Error for the first sequence that did not end by itself."""
        if self.failures:
            first = min(self.failures)
            others = len(self.failures) - 1
            more = f" ({others} more failed, too)" if others else ""
            raise DSV4Error(f"sequence {first}: {self.failures[first]}{more}") from self.failures[first]

    def next_tokens(self, states: Array) -> Ints:
        """A token for each sequence, finished or not, from its streams [B, 1, n, d]. Returns [B] on the host.

        Logits that are no numbers end their sequence.
        """
        logits = self.model.head(states)[:, 0]  # [B, vocab]
        tokens = self.model.ops.to_numpy(self.sampler.choose(logits))
        for sequence in self.in_turn():
            if tokens[sequence] < 0:
                with self.by_itself(sequence):
                    require_numbers(logits[sequence])
        return tokens


def decode(batch: Batch, states: Array) -> Iterator[Token]:
    """Token by token, from the streams of each prompt's last token, [B, 1, n, d]."""
    while True:
        tokens = batch.next_tokens(states)
        for sequence in batch.in_turn():
            yield batch.take(sequence, tokens[sequence])
        if not len(batch.active):
            return
        states = batch.model.states(tokens[:, None], batch.cache, batch.left[:, None] > 0)


def decode_with_drafts(batch: Batch, states: Array) -> Iterator[Token]:
    """Up to two tokens per step, from the streams of each prompt's last token, [B, 1, n, d].

    Each step reads the newest token and a draft of the one behind it. Where the draft stands, the step has given two
    tokens; where it does not, the cache forgets it and the right token is drawn from what the draft left out.
    """
    model = batch.model
    newest = batch.next_tokens(states)
    for sequence in batch.in_turn():
        yield batch.take(sequence, newest[sequence])
    unseen = _Unseen(states, newest[:, None], batch.left[:, None] > 0)
    while len(batch.active):
        drafts, guesses = _draft(batch, unseen)
        running, drafting = batch.left > 0, batch.left > 1  # with one token to go there is no use for a draft
        states = model.states(np.stack([newest, drafts], 1), batch.cache, np.stack([running, drafting], 1))
        logits = model.head(states)
        tokens, kept = np.zeros((len(running), 2), np.int64), np.zeros(len(running), bool)
        for sequence in batch.in_turn():
            guess = guesses[sequence] if drafting[sequence] else None
            with batch.by_itself(sequence):
                chosen = _accept(batch, sequence, drafts[sequence], guess, logits[sequence])
                tokens[sequence, : len(chosen)] = chosen
                kept[sequence] = len(chosen) == 2
                newest[sequence] = chosen[-1]
            for token in tokens[sequence, : 1 + kept[sequence]]:
                if batch.left[sequence]:  # a draft that is a stop id ends the sequence
                    yield batch.take(sequence, token)
        batch.cache.rollback((drafting & ~kept).astype(np.int64))
        going_on = batch.left > 0
        unseen = _Unseen(states, tokens, np.stack([going_on, going_on & kept], 1))


@dataclass(frozen=True)
class _Unseen:
    """What the MTP module has not read: states, and the tokens that follow them; padding stands behind."""

    states: Array
    next_ids: Ints
    mask: Mask


def _draft(batch: Batch, unseen: _Unseen) -> tuple[Ints, list[Array]]:
    """A draft for each sequence that goes on, and the distribution it was drawn from."""
    model, sampler = batch.model, batch.sampler
    logits = model.mtp_logits(unseen.states, unseen.next_ids, batch.cache, unseen.mask)
    newest = np.maximum(unseen.mask.sum(axis=1) - 1, 0)
    drafts: Ints = np.zeros(len(newest), np.int64)
    guesses: list[Array] = [np.empty(0)] * len(newest)
    for sequence in batch.in_turn():
        with batch.by_itself(sequence):
            guesses[sequence] = sampler.distribution(logits[sequence, newest[sequence]], sequence)
            drafts[sequence] = sampler.draw(guesses[sequence], sequence)
    return drafts, guesses


def _accept(batch: Batch, sequence: int, draft: int, guess: Array | None, logits: Array) -> list[int]:
    """The one or two tokens that a step gives: logits [2, vocab]; guess None where nothing was drafted.

    A draft is kept with probability min(1, target / guess), which leaves the target's distribution as it is.
    """
    sampler = batch.sampler
    target = sampler.distribution(logits[0], sequence)
    if guess is None:
        return [sampler.draw(target, sequence)]
    batch.drafted += 1
    if sampler.chance(sequence) * guess[draft] >= target[draft]:
        return [sampler.draw(residual(target, guess), sequence)]
    batch.accepted += 1
    try:
        behind = sampler.distribution(logits[1], sequence)
    except DSV4Error:  # the draft is a token of the text all the same; the next step reads it again, and fails
        return [int(draft)]
    return [int(draft), sampler.draw(behind, sequence)]
