"""Contestants timed in turns, so that what disturbs one disturbs the others; medians, spreads and ratios of them."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True)
class Contestant:
    """Something to time.

    run: one call of it. before: what makes it ready, not timed, before each batch of calls. single: whether a batch is
    one call alone and no other call goes before it, because `before` sets up what a call uses up. period: a batch holds
    a multiple of so many calls, because they differ and only so many in a row are like the next ones. finish: waits for
    what the calls of a batch have begun; its time is a part of the batch's.
    """

    run: Callable[[], object]
    before: Callable[[], object] | None = None
    single: bool = False
    period: int = 1
    finish: Callable[[], object] | None = None


@dataclass(frozen=True)
class Pace:
    """How long to measure. All but most_rounds in seconds.

    budget: for each contestant of a contest; batch: the least that a batch of calls takes; rest: before each batch,
    so that the threads of another library, which wait by spinning, go to sleep.
    """

    budget: float
    batch: float
    rest: float
    most_rounds: int


FULL = Pace(budget=2.0, batch=0.03, rest=0.03, most_rounds=25)
QUICK = Pace(budget=0.05, batch=0.002, rest=0.0, most_rounds=5)

LEAST_ROUNDS = 3
"""Also where the budget is too short for them, unless a single call takes longer than the budget."""


class Spread(NamedTuple):
    """A number measured several times: its median, and the quartiles below and above."""

    median: float
    low: float
    high: float


def alternate(
    contestants: Mapping[str, Contestant],
    pace: Pace,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], object] = time.sleep,
) -> dict[str, list[float]]:
    """Seconds per call of each contestant, a number for each round: A B C, A B C, …

    Each is called twice first, which compiles it and says how many calls make a batch and how many rounds fit into
    the budget. One that is slower than the others stops earlier; the first numbers of all are of the same rounds.
    """
    plans = {name: _plan(contestant, pace, clock) for name, contestant in contestants.items()}
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(max(plan.rounds for plan in plans.values())):
        for name, contestant in contestants.items():
            if turn < plans[name].rounds:
                sleep(pace.rest)
                times[name].append(_time(contestant, plans[name].calls, clock))
    return times


def spread(values: Sequence[float]) -> Spread:
    """The median and the quartiles of some numbers."""
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    return Spread(float(median), float(low), float(high))


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> Spread:
    """How many times as long theirs takes: the ratio of the medians, and the quartiles of the ratios round by round.

    theirs and ours: numbers of the same rounds; those that only one of them has are left out.
    """
    rounds = min(len(theirs), len(ours))
    first, second = np.array(theirs[:rounds]), np.array(ours[:rounds])
    each = spread(first / second)
    return Spread(float(np.median(first) / np.median(second)), each.low, each.high)


class _Plan(NamedTuple):
    calls: int
    rounds: int


def _plan(contestant: Contestant, pace: Pace, clock: Callable[[], float]) -> _Plan:
    _time(contestant, 1, clock)
    seconds = max(_time(contestant, 1, clock), 1e-9)
    calls = contestant.period * math.ceil(pace.batch / seconds / contestant.period)
    calls = 1 if contestant.single else max(contestant.period, calls)
    least = LEAST_ROUNDS if seconds < pace.budget else 1
    rounds = int(pace.budget / (calls * seconds + pace.rest))
    return _Plan(calls, min(max(rounds, least), pace.most_rounds))


def _time(contestant: Contestant, calls: int, clock: Callable[[], float]) -> float:
    """Seconds per call in a batch of them, after one that is not timed: it wakes threads and fills small caches."""
    if contestant.before is not None:
        contestant.before()
    if calls > 1:
        contestant.run()
        if contestant.finish is not None:
            contestant.finish()
    start = clock()
    for _ in range(calls):
        contestant.run()
    if contestant.finish is not None:
        contestant.finish()
    return (clock() - start) / calls
