"""What decoding with drafts has done: the steps, the drafts of each place, and the time they took."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Round:
    """One step of one sequence: some drafts, and what became of them."""

    sequence: int
    """Which prompt it continues, counting from 0."""
    position: int
    """t: that of the last token that the model had read before."""
    given: int
    """The token behind it, which the model read with the drafts."""
    drafts: list[int]
    """The drafted tokens, also those that were not checked."""
    confidence: list[float]
    """How sure the drafter was of each, as a logit; empty where it does not say."""
    length: int
    """How many drafts the model read."""
    accepted: int
    """How many of these were kept."""
    following: list[int]
    """The token that the model chose behind them; none where a kept draft ends the sequence."""


class Rounds:
    """Counts over all steps so far."""

    def __init__(self) -> None:
        self.steps = 0
        """Steps of single sequences: one step of a batch counts once for each sequence in it."""
        self.tokens = 0
        """Tokens that these steps gave."""
        self.drafted_by_place: list[int] = []
        """How many drafts of each place, the first first, were checked: those behind a refused one are not."""
        self.accepted_by_place: list[int] = []
        """How many of them were kept."""
        self.watch: Callable[[Round], None] = lambda one: None
        """Called after each step of a sequence, with what it did."""
        self._drafting_tokens, self._drafting_seconds = 0, 0.0
        self._plain_rates: list[float] = []

    def checked(self, place: int, kept: bool) -> None:
        """Count a draft that was checked; place: how many stand before it in its step."""
        if place == len(self.drafted_by_place):
            self.drafted_by_place.append(0)
            self.accepted_by_place.append(0)
        self.drafted_by_place[place] += 1
        self.accepted_by_place[place] += kept

    def add(self, one: Round) -> None:
        """Count a step of a sequence, whose drafts were counted by `checked`."""
        self.steps += 1
        self.tokens += one.accepted + len(one.following)
        self.watch(one)

    def timed(self, tokens: int, seconds: float, plain: bool) -> None:
        """Note how long a step of the batch took for so many tokens; plain: whether it was one without drafts."""
        if plain:
            self._plain_rates.append(tokens / seconds)
        else:
            self._drafting_tokens += tokens
            self._drafting_seconds += seconds

    @property
    def drafted(self) -> int:
        """How many drafted tokens were checked."""
        return sum(self.drafted_by_place)

    @property
    def accepted(self) -> int:
        """How many of them were kept."""
        return sum(self.accepted_by_place)

    @property
    def tokens_per_step(self) -> float:
        """Tokens that a sequence gets from one step; 0 before the first."""
        return self.tokens / self.steps if self.steps else 0.0

    @property
    def speedup(self) -> float | None:
        """Tokens per second of the steps with drafts, over those of the plain steps; None without steps of both."""
        if not self._plain_rates or not self._drafting_tokens:
            return None
        return self._drafting_tokens / self._drafting_seconds / float(np.median(self._plain_rates))
