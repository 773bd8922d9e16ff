"""The published bandwidths, and ours beside them: 2503.09799 table 6, on its logarithmic grid.

Two numbers of the published simulation were not at hand: how many layers it lays out, and how many bits it sends for a
parameter. Both are chosen to fit, as `table` shows: 48 layers whatever the model, and 12 bits, which is bf16 times the
3/4 that each of four sites must send. With 16 bits, several of the published numbers are missed by two steps of the
grid.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import numpy as np

from dsv4.learn.diloco.bandwidth.utilisation import Job, utilisation

GRID: tuple[float, ...] = tuple(np.logspace(-1, 3, 50).tolist())
"""Gbit/s among which the published search looks for the smallest that will do."""

TARGETS = (0.5, 0.8, 0.9, 0.95, 0.99)
"""Compute utilisations."""

BITS, LAYERS = 12.0, 48
"""What fits."""

BEYOND = 1000.1
"""Stands for "1000+": more than the grid has."""

JOBS = {
    "10B": Job(10e9, 0.8, BITS, LAYERS),
    "10B, H = 100": Job(10e9, 0.8, BITS, LAYERS, inner_steps=100),
    "Llama 405B": Job(405e9, 26.0, BITS, LAYERS),
    "DeepSeek-V3 671B": Job(671e9, 20.0, BITS, LAYERS),
}
"""The models whose numbers were at hand, with their published step times."""

PUBLISHED = {
    "10B": (104.8, 184.2, 222.3, 222.3, 390.7),
    "10B, H = 100": (1.4, 6.2, 13.3, 23.3, 86.8),
    "Llama 405B": (126.5, 222.3, 268.3, 323.8, 323.8),
    "DeepSeek-V3 671B": (323.8, 569.0, 686.6, 686.6, BEYOND),
}
"""Gbit/s for each of TARGETS. Source: 2503.09799 table 6."""


class Row(NamedTuple):
    """One number of the table."""

    job: str
    target: float
    published: float
    found: float
    """Ours, a number of the grid, or BEYOND."""
    steps: int
    """How many steps of the grid ours is above the published one."""


def table(bits: float = BITS, layers: int = LAYERS) -> Iterator[Row]:
    """The published numbers with ours, under these assumptions: bits for each parameter, and layers."""
    for name, job in JOBS.items():
        found = on_grid(replace(job, bits=bits, layers=layers))
        for target, known, ours in zip(TARGETS, PUBLISHED[name], found, strict=True):
            yield Row(name, target, known, ours, _place(ours) - _place(known))


def on_grid(job: Job) -> tuple[float, ...]:
    """The smallest bandwidth of the grid for each of TARGETS, or BEYOND where none will do."""

    @cache
    def reached(place: int) -> float:
        """The utilisation at a place of the grid, computed once."""
        return utilisation(job, GRID[place])

    found = []
    for target in TARGETS:
        low, high = 0, len(GRID)  # more bandwidth is never less utilisation
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if reached(middle) >= target else (middle + 1, high)
        found.append(GRID[low] if low < len(GRID) else BEYOND)
    return tuple(found)


def _place(gigabits: float) -> int:
    """Where a bandwidth is on the grid; one place behind the last for more than it has."""
    return len(GRID) if gigabits >= BEYOND else int(np.argmin(np.abs(np.log(np.array(GRID) / gigabits))))
