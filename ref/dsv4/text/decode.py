"""Decoding token by token, and what every decoding loop stands on."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from dsv4.errors import DSV4Error
from dsv4.model.language_model import LanguageModel
from dsv4.ops.types import Array, Ints
from dsv4.text.rounds import Rounds
from dsv4.text.sampling import Sampler, require_numbers


@dataclass(frozen=True)
class Token:
    """One generated token."""

    sequence: int
    """Which prompt it continues, counting from 0."""
    id: int
    """The token id; the last one of a sequence may be a stop id."""


class Batch:
    """The sequences that are being continued."""

    def __init__(
        self,
        model: LanguageModel,
        sampler: Sampler,
        stop_ids: frozenset[int],
        left: Ints,
        max_rollback: int = 0,
        drafts: bool = False,
    ) -> None:
        """left [B]: how many tokens each sequence may get at most; max_rollback, drafts: as for `Model.new_cache`."""
        self.model, self.sampler, self.stop_ids, self.remaining = model, sampler, stop_ids, left
        self.cache = model.new_cache(len(left), max_rollback, drafts=drafts)
        self.rounds = Rounds()
        self.failures: dict[int, DSV4Error] = {}

    @property
    def drafted(self) -> int:
        """How many drafted tokens were checked so far."""
        return self.rounds.drafted

    @property
    def accepted(self) -> int:
        """How many of them were kept."""
        return self.rounds.accepted

    @property
    def active(self) -> Ints:
        """The numbers of the sequences that are not finished."""
        return np.nonzero(self.remaining)[0]

    def in_turn(self) -> Iterator[int]:
        """The same one by one, without those that are ended before it is their turn."""
        return (int(sequence) for sequence in self.active if self.remaining[sequence])

    def take(self, sequence: int, token: int) -> Token:
        """Count a token of a sequence, which ends with a stop id or with its last allowed token."""
        self.remaining[sequence] = 0 if token in self.stop_ids else self.remaining[sequence] - 1
        return Token(sequence, int(token))

    @contextmanager
    def failing_alone(self, sequence: int) -> Iterator[None]:
        """What raises inside ends this sequence alone: the others go on, and `raise_failure` says it in the end."""
        try:
            yield
        except DSV4Error as error:
            self.remaining[sequence] = 0
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
                with self.failing_alone(sequence):
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
        states = batch.model.states(tokens[:, None], batch.cache, batch.remaining[:, None] > 0)
