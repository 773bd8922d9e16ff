"""A cluster whose chips fail, event after event: which share of all chip-time is training.

M learners are M clusters of N/M chips that know nothing of each other's failures, which is the whole point of them.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from dsv4.arguments import integer, number
from dsv4.errors import SettingError

YEAR = 365 * 86400.0
"""Seconds: the mean time between interruptions (MTBI) of a chip in the published simulation."""

FAILURE, RETURN = 0, 1
DRAWS = 2**12
"""Failures that are drawn at a time."""


@dataclass(frozen=True)
class Times:
    """What a failure costs: seconds, and the chips that go with the one that failed."""

    restart: float
    """Rigid: everything stands until a spare has taken the failed chip's place."""
    reconfiguration: float
    """Elastic: the learner stands until it is ready to go on without the slice."""
    scale_up: float
    """Elastic: the learner stands when a slice comes back to it."""
    repair: float
    """From a slice's failure to its return."""
    slice_chips: int
    """Chips that leave and come back together."""

    def __post_init__(self) -> None:
        for name in ("restart", "reconfiguration", "scale_up", "repair"):
            if number(name, getattr(self, name)) < 0:
                raise SettingError(f"{name}: expected seconds from 0, found {getattr(self, name)}")
        integer("slice_chips", self.slice_chips, least=1)


class Cluster(NamedTuple):
    """What is simulated."""

    chips: int
    """N, of all learners together."""
    learners: int = 1
    """M."""
    elastic: bool = True
    """Whether a learner goes on without the slice that failed; else it waits for a spare."""
    mtbi: float = YEAR
    """Seconds between two failures of one chip, on average."""


def goodput(cluster: Cluster, times: Times, days: float, seed: int = 0) -> float:
    """The share of all chips' time in which they train, from 0 to 1.

    Failures come at random (Poisson), in a downtime as well: then the slice leaves with the reconfiguration that is
    under way, and one that comes back joins it, which is why failures that overlap cost less than each by itself.
    Raises SettingError for a cluster that does not have a slice for each learner. Source: Decoupled DiLoCo (2604.21428,
    second-hand): a failure per chip and year, whole slices leave; how downtimes overlap is ours.
    """
    check(cluster, times)
    if number("days", days) <= 0:
        raise SettingError(f"days: expected more than 0, found {days}")
    seeds = np.random.SeedSequence(integer("seed", seed)).spawn(cluster.learners)
    shares = [_learner(cluster, times, days * 86400, np.random.default_rng(one)) for one in seeds]
    return sum(shares) / len(shares)


def expected(cluster: Cluster, times: Times) -> float:
    """The same from renewal theory: a · 1 / (1 + λ·(reconfiguration + scale-up)), for many slices.

    a = 1 / (1 + slice · repair / MTBI) is the share of slices that are there, λ = a·N/M / MTBI the rate at which they
    fail, and come back. Rigid: 1 / (1 + N/M / MTBI · restart). Raises SettingError as `goodput` does.
    """
    check(cluster, times)
    rate = cluster.chips / cluster.learners / cluster.mtbi
    if not cluster.elastic:
        return 1 / (1 + rate * times.restart)
    there = 1 / (1 + times.slice_chips * times.repair / cluster.mtbi)
    return there / (1 + there * rate * (times.reconfiguration + times.scale_up))


def check(cluster: Cluster, times: Times) -> None:
    """Raise SettingError unless every learner has a slice, and all numbers are of some use."""
    integer("chips", cluster.chips, least=1, most=10**9)
    integer("learners", cluster.learners, least=1, most=cluster.chips)
    if number("MTBI", cluster.mtbi) <= 0:
        raise SettingError(f"MTBI: expected seconds above 0, found {cluster.mtbi}")
    if cluster.chips // cluster.learners < times.slice_chips:
        expected = f"at least a slice of {times.slice_chips} for each of {cluster.learners} learners"
        raise SettingError(f"chips: expected {expected}, found {cluster.chips}")


def _learner(cluster: Cluster, times: Times, end: float, generator: np.random.Generator) -> float:
    """The share of one learner: its slices by number alone, since all are alike."""
    slices = cluster.chips // cluster.learners // times.slice_chips
    failures = _failures(cluster.mtbi / (slices * times.slice_chips), generator)
    queue = [(*next(failures), FAILURE)]  # time, which slice as a share of all, what happens
    there, ready, last, work = slices, 0.0, 0.0, 0.0
    while True:
        time, place, event = heapq.heappop(queue)
        if min(time, end) > ready:
            work += there * (min(time, end) - max(last, ready))
        if time >= end:
            return work / (slices * end)
        last = time
        if event == RETURN:
            there += 1
            ready = time + times.scale_up if time >= ready else ready
            continue
        heapq.heappush(queue, (*next(failures), FAILURE))
        if not cluster.elastic:
            ready = time + times.restart if time >= ready else ready
        elif place * slices < there:  # a slice that is there, and not one that has failed before
            there -= 1
            heapq.heappush(queue, (time + times.repair, 0.0, RETURN))
            ready = time + times.reconfiguration if time >= ready else ready


def _failures(mean: float, generator: np.random.Generator) -> Iterator[tuple[float, float]]:
    """When a chip fails, and where: times without an end, and places from 0 to 1."""
    start = 0.0
    while True:
        at = start + np.cumsum(generator.exponential(mean, DRAWS))
        yield from zip(at.tolist(), generator.random(DRAWS).tolist(), strict=True)
        start = float(at[-1])
