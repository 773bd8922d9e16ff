"""The row about a machine with other work: a layer's step beside processes that keep every core busy."""

import subprocess
import sys

from dsv4_accel.bench.case import MEMORY, Case, Contest, Goal
from dsv4_accel.bench.models import layer_steps
from dsv4_accel.bench.stage import Stage
from dsv4_accel.bench.timing import Contestant

ALONE, BESIDE = "alone", "beside others"

LENGTH = 2**12
"""Tokens in the cache."""

BUSY = "import time; end = time.monotonic() + 60\nwhile time.monotonic() < end: pass"
"""What a neighbour runs: it ends by itself, should nobody end it."""


class Neighbours:
    """As many busy processes as there are threads."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._processes: list[subprocess.Popen[bytes]] = []

    def begin(self) -> None:
        """Start those that are not running."""
        self._processes = [one for one in self._processes if one.poll() is None]
        missing = self._count - len(self._processes)
        self._processes += [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(missing)]

    def end(self) -> None:
        """End them all."""
        for one in self._processes:
            one.kill()
            one.wait()
        self._processes = []


def load_cases() -> list[Case]:
    """A decoding step of the large layer, beside neighbours and alone."""
    goal = Goal(1 / 2.2, ALONE, of=BESIDE)
    what = "V4-Flash layer, every core busy"
    return [Case("load.layer.decode.4k", what, MEMORY, _beside_neighbours, (goal,), large=True)]


def _beside_neighbours(stage: Stage) -> Contest:
    neighbours = Neighbours(stage.threads)
    stage.resources.callback(neighbours.end)
    step = layer_steps(stage.layer.model(stage.ops), stage, LENGTH)
    contestants = {BESIDE: Contestant(step, neighbours.begin), ALONE: Contestant(step, neighbours.end)}
    return Contest(contestants, None)
