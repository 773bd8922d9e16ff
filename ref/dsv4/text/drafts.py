"""Decoding with drafts: a cheap guess of the next tokens, which the model checks in one pass (report §2.4)."""

import itertools
from collections.abc import Callable, Container, Iterator, Sequence
from time import perf_counter
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from dsv4.errors import DSV4Error
from dsv4.model.cache import Cache
from dsv4.ops.elementwise import sigmoid
from dsv4.ops.types import Array, Ints, Mask
from dsv4.text.decode import Batch, Token
from dsv4.text.draft_lengths import LengthRule
from dsv4.text.rounds import Round, Rounds
from dsv4.text.sampling import Sampler, residual


class Drafts(NamedTuple):
    """The guesses for the next tokens of one sequence."""

    ids: list[int]
    guesses: list[Array]
    """The distribution [vocab] that each was drawn from."""
    confidence: Sequence[float] = ()
    """How sure the drafter is of each, as a logit of the chance that it is kept if those before it are; empty where the
    drafter does not say, as an MTP module does not, and then every draft counts as sure."""


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


class Drafting(NamedTuple):
    """How to decode with drafts."""

    drafter: Drafter
    most: int
    """How many drafts of a sequence the model reads in a step at most."""
    rule: LengthRule
    """What says how many of them."""
    plain_steps: Container[int]
    """The numbers, from 0, of steps without drafts."""


def decode_with_drafts(batch: Batch, drafting: Drafting, states: Array) -> Iterator[Token]:
    """Up to 1 + drafting.most tokens per step, from the streams of each prompt's last token, [B, 1, n, d].

    Each step runs the model on the newest token and as many of its drafts as the rule says. Each accepted draft is one
    more token. At the first refused draft, it and all later ones are rolled back, and its replacement is drawn from
    `residual(target, guess)`.
    """
    drafter = drafting.drafter
    newest = batch.next_tokens(states)
    for sequence in batch.in_turn():
        yield batch.take(sequence, newest[sequence])
    drafter.read(states, newest[:, None], batch.cache, batch.remaining[:, None] > 0)
    for number in itertools.count():
        if not len(batch.active):
            return
        step = _step(batch, drafting, newest, number in drafting.plain_steps)
        for sequence in batch.in_turn():
            newest[sequence] = step.chosen[sequence][-1]
            for token in step.chosen[sequence]:
                if batch.remaining[sequence]:  # whoever takes the tokens may end a sequence
                    yield batch.take(sequence, token)
        batch.cache.rollback(step.refused)
        tokens, present = in_rows(step.chosen)
        drafter.read(step.states[:, : tokens.shape[1]], tokens, batch.cache, present & (batch.remaining[:, None] > 0))


class Chooser(Protocol):
    """Who chooses tokens: a batch, or a single sequence."""

    @property
    def sampler(self) -> Sampler:
        """What draws, a stream for each sequence."""

    @property
    def rounds(self) -> Rounds:
        """Where steps with drafts are counted."""

    @property
    def stop_ids(self) -> frozenset[int]:
        """The tokens that end a sequence."""


Narrow = Callable[[Array, list[int]], Array]
"""What counts of the logits [vocab] behind the drafts of a step that were kept so far: −∞ for what must not come."""


def whole(logits: Array, kept: list[int]) -> Array:
    """The logits as they are: a `Narrow` for texts that may go on in any way."""
    return logits


def accept(chooser: Chooser, sequence: int, drafts: Drafts, logits: Array, narrow: Narrow = whole) -> list[int]:
    """The accepted drafts, and one token drawn from the model behind them; none behind a draft that is a stop id.

    logits [1 + drafts, vocab]: what the model says behind the newest token and behind each draft. A draft is accepted
    with probability min(1, target / guess), which leaves the target's distribution as it is. The last of the tokens
    is the one that the next step begins with. narrow: called for one place after the other, as far as they count.
    """
    sampler, kept = chooser.sampler, list[int]()
    while True:
        try:
            target = sampler.distribution(narrow(logits[len(kept)], kept), sequence)
        except DSV4Error:
            if kept:  # a token of the text all the same; the next step reads it again, and fails
                return kept
            raise
        if len(kept) == len(drafts.ids):
            return [*kept, sampler.draw(target, sequence)]
        draft, guess = drafts.ids[len(kept)], drafts.guesses[len(kept)]
        if sampler.chance(sequence) * guess[draft] >= target[draft]:
            chooser.rounds.checked(place=len(kept), kept=False)
            return [*kept, sampler.draw(residual(target, guess), sequence)]
        chooser.rounds.checked(place=len(kept), kept=True)
        kept.append(draft)
        if draft in chooser.stop_ids:
            return kept


class _Step(NamedTuple):
    """What one step of a batch has read and chosen."""

    states: Array
    """[B, S, n, d] of the newest tokens and their drafts."""
    chosen: list[list[int]]
    """The tokens that each sequence gets; none where it failed."""
    refused: Ints
    """[B] how many of the tokens that were read are to be forgotten: the last chosen one is to be read again."""


def _step(batch: Batch, drafting: Drafting, newest: Ints, plain: bool) -> _Step:
    """Draft, read, and choose the tokens of every sequence; plain: without drafts."""
    started, before = perf_counter(), batch.cache.lengths
    drafted = [Drafts([], []) for _ in newest] if plain else _draft(batch, drafting.drafter)
    lengths = _lengths(batch, drafted, drafting.most, drafting.rule)
    drafts = [Drafts(each.ids[:length], each.guesses) for each, length in zip(drafted, lengths, strict=True)]
    tokens, present = in_rows([[token, *each.ids] for token, each in zip(newest, drafts, strict=True)])
    present &= batch.remaining[:, None] > 0
    states = batch.model.states(tokens, batch.cache, present)
    logits = batch.model.head(states)
    chosen: list[list[int]] = [[] for _ in drafts]
    for sequence in batch.in_turn():
        kept_before = batch.rounds.accepted
        with batch.failing_alone(sequence):
            chosen[sequence] = accept(batch, sequence, drafts[sequence], logits[sequence])
            accepted = batch.rounds.accepted - kept_before
            one = Round(
                sequence=sequence,
                position=int(before[sequence]) - 1,
                given=int(newest[sequence]),
                drafts=drafted[sequence].ids,
                confidence=list(drafted[sequence].confidence),
                length=lengths[sequence],
                accepted=accepted,
                following=chosen[sequence][accepted:],
            )
            batch.rounds.add(one)
    seconds = perf_counter() - started
    drafting.rule.timed(int(present.sum()), seconds)
    batch.rounds.timed(sum(map(len, chosen)), seconds, plain)
    refused = [len(each.ids) - max(len(kept) - 1, 0) for each, kept in zip(drafts, chosen, strict=True)]
    return _Step(states, chosen, np.array(refused))


def _lengths(batch: Batch, drafted: list[Drafts], most: int, rule: LengthRule) -> list[int]:
    """How many drafts of each sequence the model shall read: 0 for one that has ended."""
    lengths = [0] * len(drafted)
    active = list(batch.in_turn())
    chances = []
    for sequence in active:
        ids, _, confidence = drafted[sequence]
        useful = min(len(ids), most, int(batch.remaining[sequence]) - 1)
        sure = np.ones(useful) if len(confidence) == 0 else sigmoid(np.array(confidence[:useful], np.float64))
        chances.append(sure.tolist())
    for sequence, length in zip(active, rule.lengths(chances), strict=True):
        lengths[sequence] = length
    return lengths


def _draft(batch: Batch, drafter: Drafter) -> list[Drafts]:
    """Drafts for each sequence; none where there is no use for them, with at most one token to go."""
    drafts = [Drafts([], []) for _ in batch.remaining]
    for sequence in batch.in_turn():
        if batch.remaining[sequence] > 1:
            with batch.failing_alone(sequence):
                drafts[sequence] = drafter.draft(sequence, batch.sampler)
    return drafts


def in_rows(several: Sequence[Sequence[int]]) -> tuple[Ints, Mask]:
    """Lists of tokens as rows [B, S], filled up with zeros, and where there are tokens."""
    lengths = np.array([len(tokens) for tokens in several])
    present = np.arange(max(lengths.max(), 1)) < lengths[:, None]
    rows = np.zeros(present.shape, np.int64)
    rows[present] = [token for tokens in several for token in tokens]
    return rows, present
