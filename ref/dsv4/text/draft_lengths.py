"""How many drafts of a block are worth checking (DSpark, arXiv 2607.05147, §2.3 and §3.2).

A rule may look at what the drafter thinks of each draft, but at no draft behind the place where it stops: otherwise the
text would no longer follow the model's distribution.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import accumulate
from operator import mul
from typing import NamedTuple, Protocol

import numpy as np

Chances = Sequence[Sequence[float]]
"""For each sequence of a batch, how likely each of its drafts is to be kept if those before it were."""

StepsPerSecond = Callable[[int], float]
"""How many steps of so many tokens the model makes in a second."""


class LengthRule(Protocol):
    """What says how many drafts the model shall read."""

    def lengths(self, chances: Chances) -> list[int]:
        """For each sequence that goes on, how many of its first drafts are checked, 0 … all."""

    def timed(self, tokens: int, seconds: float) -> None:
        """Learn how long a step took in which the model read so many tokens of all sequences together."""


class Threshold:
    """The drafts before the first one whose chance is below a threshold, each by itself; 0 means all drafts."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def lengths(self, chances: Chances) -> list[int]:
        """As in `LengthRule`. Source: DSpark §3.2; code: DeepSpec's confidence threshold."""
        return [confident_prefix(each, self.threshold) for each in chances]

    def timed(self, tokens: int, seconds: float) -> None:
        """As in `LengthRule`; the time does not matter."""


class Scheduler:
    """As many drafts as give the batch the most tokens per second, by steps per second that it measures itself.

    The first step reads no drafts and the second all of them, so that two sizes are known from then on.
    """

    REMEMBERED = 32
    """Steps of one size whose times count, the last ones."""

    def __init__(self) -> None:
        self._seconds: dict[int, list[float]] = defaultdict(list)
        self._rounds = 0

    def lengths(self, chances: Chances) -> list[int]:
        """As in `LengthRule`."""
        self._rounds += 1
        if self._rounds <= 2 or len(self._seconds) < 2:
            return [0 if self._rounds == 1 else len(each) for each in chances]
        return schedule(chances, self.steps_per_second()).lengths

    def timed(self, tokens: int, seconds: float) -> None:
        """As in `LengthRule`."""
        self._seconds[tokens] = [*self._seconds[tokens], seconds][-self.REMEMBERED :]

    def steps_per_second(self) -> StepsPerSecond:
        """From a straight line through the median times of the sizes that were seen."""
        sizes = np.array(list(self._seconds), float)
        times = np.array([np.median(each) for each in self._seconds.values()])
        slope, step = np.polyfit(sizes, times, 1)
        least = times.min() / 2  # the line of noisy times may fall, but no step takes no time
        return lambda tokens: 1 / max(step + max(slope, 0) * tokens, least)


class Schedule(NamedTuple):
    """How many drafts each sequence gets checked, and how many tokens per second are to be expected of that."""

    lengths: list[int]
    throughput: float


def confident_prefix(chances: Sequence[float], threshold: float) -> int:
    """How many drafts stand before the first one whose chance is below the threshold. Source: DSpark §3.2."""
    below = [place for place, chance in enumerate(chances) if chance < threshold]
    return below[0] if below and threshold > 0 else len(chances)


def schedule(chances: Chances, steps_per_second: StepsPerSecond) -> Schedule:
    """The lengths of a batch's drafts by expected tokens per second. Raises nothing; no sequence gives no lengths.

    A step of R sequences gives R tokens and, for each draft that is read, the chance that all drafts up to it are kept.
    Drafts join by falling chance for as long as each one raises the tokens per second. It stops at the first that does
    not: to look further would let the length depend on the drafts behind it. Source: DSpark, algorithm 1.
    """
    kept = [list(accumulate(each, mul)) for each in chances]  # the chance that the draft and all before it are kept
    candidates = [(-chance, place, row) for row, each in enumerate(kept) for place, chance in enumerate(each)]
    lengths, tokens, expected = [0] * len(chances), len(chances), float(len(chances))
    best = expected * steps_per_second(tokens) if tokens else 0.0
    for falling, place, row in sorted(candidates):
        tokens, expected = tokens + 1, expected - falling
        throughput = expected * steps_per_second(tokens)
        if falling == 0 or throughput <= best:
            break
        best, lengths[row] = throughput, place + 1
    return Schedule(lengths, best)
