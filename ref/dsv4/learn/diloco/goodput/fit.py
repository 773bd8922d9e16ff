"""The nine published points, and the times that are not published, fitted to them.

The points tell three numbers apart and no more: what a restart takes, what a reconfiguration and a scale-up take
together, and slice times repair. How the last two split is ours: halves, and a slice of 1,024 chips.
"""

from collections.abc import Callable
from itertools import product

import numpy as np

from dsv4.learn.diloco.goodput.cluster import Cluster, Times, expected

PUBLISHED: dict[Cluster, float] = {
    Cluster(1_200_000, elastic=False): 0.27,
    Cluster(1_200_000): 0.58,
    Cluster(1_200_000, learners=2): 0.70,
    Cluster(1_200_000, learners=8): 0.88,
    Cluster(1_200_000, learners=16): 0.93,
    Cluster(2_400_000, elastic=False): 0.18,
    Cluster(2_400_000): 0.40,
    Cluster(2_400_000, learners=8): 0.80,
    Cluster(2_400_000, learners=16): 0.86,
}
"""Goodput at a failure per chip and year. Source: Decoupled DiLoCo (2604.21428, second-hand)."""

SLICE = 1024
"""Chips of a slice: a choice."""

FITTED = Times(restart=66.2, reconfiguration=9.5, scale_up=9.5, repair=1532.0, slice_chips=SLICE)
"""What `fitted` finds, in round numbers: no time of these is published."""


def fitted(rounds: int = 7, points: int = 25) -> Times:
    """The times for which the largest distance of `expected` from a published point is as small as can be.

    A grid of so many points in each direction, drawn closer round its best one so many times. Rigid clusters and
    elastic ones have no time in common, so each are fitted by themselves.
    """
    restart, _ = _closest(lambda seconds, _: Times(seconds, 0, 0, 0, SLICE), False, rounds, points)
    standing, repair = _closest(lambda one, two: Times(0, one / 2, one / 2, 20 * two, SLICE), True, rounds, points)
    return Times(restart, standing / 2, standing / 2, 20 * repair, SLICE)


def _closest(times: Callable[[float, float], Times], elastic: bool, rounds: int, points: int) -> tuple[float, float]:
    """The two numbers from 0 to 200, of which times are made, that come closest to the published points."""
    best, half = (100.0, 100.0), 100.0
    for _ in range(rounds):
        axes = (np.linspace(max(0.0, middle - half), middle + half, points).tolist() for middle in best)
        best = min(product(*axes), key=lambda pair: largest_distance(times(*pair), elastic))
        half /= 3
    return best


def largest_distance(times: Times, elastic: bool) -> float:
    """How far `expected` is from the published point that it is furthest from, of the rigid or the elastic ones."""
    return max(abs(expected(point, times) - found) for point, found in PUBLISHED.items() if point.elastic == elastic)
