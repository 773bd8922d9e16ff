"""The course of a run: lives of a server, the load on it, what is measured meanwhile, and the verdict."""

import json
import platform
import signal
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import dsv4
from serve.soak.load import Load
from serve.soak.pool import Pool
from serve.soak.process import SETTINGS, ServerProcess

FLAT = 0.02
"""How far the memory may be from its median after warm-up, as a part of it."""

WARM_UP = 0.25
"""The part of a life after which its memory is to be flat."""

LEAST_MINUTES = 10.0
"""A life must be so long that its memory says something."""

WINDOWS = 8

ENDED = {0, 130}
"""Exit statuses after Ctrl-C: 0 where the process was started with that signal ignored."""


@dataclass(frozen=True)
class Life:
    """How long a server lives, as a part of the run, and how it ends."""

    part: float
    grace: float
    """Seconds that its answers have to finish at the end."""
    end: signal.Signals


LIVES = (
    Life(1 / 12, 60.0, signal.SIGINT),  # all answers finish
    Life(1 / 12, 0.1, signal.SIGINT),  # those that do not are told
    Life(9 / 12, 60.0, signal.SIGTERM),  # long enough to see a leak
    Life(1 / 24, 60.0, signal.SIGKILL),  # nobody is told anything
    Life(1 / 24, 60.0, signal.SIGINT),
)


@dataclass(frozen=True)
class Plan:
    """What is run. share: of one core, for server and clients together."""

    minutes: float
    backend: str = "numpy"
    clients: int = 8
    share: float = 0.3
    seed: int = 0


class Pace:
    """Keeps the processor time of server and clients below a share of the time that has passed."""

    def __init__(self, server: ServerProcess, share: float) -> None:
        self._server, self._share = server, share
        self._begun, self._own = time.monotonic(), time.process_time()
        self._waits = False

    @property
    def used(self) -> float:
        """Seconds of processor time so far."""
        return self._server.used() + time.process_time() - self._own

    def may_go_on(self) -> bool:
        """Clients go on together and wait together, so that requests meet each other."""
        if not self._server.is_up:
            return False  # those whose replies are cut off find out
        try:
            ahead = self.used - self._share * (time.monotonic() - self._begun)
        except OSError:
            return True  # it has just ended
        self._waits = ahead > (-1.0 if self._waits else 1.0)
        return not self._waits


def soak(plan: Plan, out: Path) -> dict[str, Any]:
    """Run, and write what was found to a file: while it runs, too."""
    model = dsv4.load(backend=plan.backend)
    begun = time.process_time()
    questions = Pool(model).fill().questions
    print(f"{len(questions)} requests, their answers computed in {time.process_time() - begun:.0f} s", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        server = ServerProcess(Path(directory), plan.backend)
        run = Run(plan, server, out)
        try:
            return run.through(questions)
        finally:
            if server.is_up:
                server.stop(signal.SIGKILL)


class Run:
    """One run."""

    def __init__(self, plan: Plan, server: ServerProcess, out: Path) -> None:
        self._plan, self._server, self._out = plan, server, out
        self._pace = Pace(server, plan.share)
        self._begun, self._written = time.monotonic(), 0.0
        self._samples: list[dict[str, float]] = []
        self._lives: list[dict[str, Any]] = []
        self._left: dict[str, Any] = {}

    def through(self, questions: list[Any]) -> dict[str, Any]:
        """From the first start to the last stop."""
        load = self._load = Load(self._server, questions, self._plan.clients, self._plan.seed, self._pace.may_go_on)
        try:
            for number, life in enumerate(LIVES):
                self._server.start(life.grace)
                if number == 0:
                    fresh = self._files_of_nobody()
                    load.start()
                self._watch(life.part * self._plan.minutes * 60)
                if number == len(LIVES) - 1:
                    load.stop()
                    self._left = self._what_is_left(fresh)
                status = self._server.stop(life.end)
                self._lives.append(asdict(life) | {"end": life.end.name, "status": status})
        finally:
            load.stop()
        return self._write()

    def _watch(self, seconds: float) -> None:
        """Measure the server from time to time."""
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            sample = {"seconds": round(now - self._begun, 1), "life": self._server.life}
            self._samples.append(sample | {"used": round(self._pace.used, 2)} | self._server.size())
            if now - self._written > 300:
                self._write()
            time.sleep(max(0.0, min(2.0, end - now)))

    def _files_of_nobody(self) -> int:
        """The open files of a server that nobody asks yet; the connection that found it up may still be closing."""
        counts = []
        for _ in range(10):
            counts.append(self._server.size()["files"])
            time.sleep(0.05)
        return min(counts)

    def _what_is_left(self, fresh: int) -> dict[str, Any]:
        """What the server still has when nobody asks any more. fresh: its open files before anybody did."""
        for _ in range(100):
            figures, size = self._server.figures(), self._server.size()
            if not figures["running"] and not figures["waiting"] and size["files"] <= fresh:
                break
            time.sleep(0.1)
        more = max(0, size["files"] - fresh)
        return {"running": figures["running"], "waiting": figures["waiting"], "more_files": more}

    def _write(self) -> dict[str, Any]:
        """What was found so far."""
        load, memory = self._load, flatness(self._samples)
        is_long = memory is not None and memory["minutes"] >= LEAST_MINUTES
        statuses = {life["status"] for life in self._lives if life["end"] == "SIGINT"}
        failures = self._server.failures()
        found = {
            "passed": not load.fault_count and not failures and not any(self._left.values()) and statuses <= ENDED
            and len(self._lives) == len(LIVES) and (not is_long or bool(memory and memory["farthest"] <= FLAT)),
            "plan": asdict(self._plan),
            "settings": SETTINGS,
            "versions": {"python": platform.python_version(), "dsv4": dsv4.__version__, "system": sys.platform},
            "minutes": round((time.monotonic() - self._begun) / 60, 2),
            "counts": dict(load.counts),
            "answered": dict(load.answered),
            "fault_count": load.fault_count,
            "faults": load.faults,
            "failures": failures,
            "lives": self._lives,
            "left": self._left,
            "memory": memory,
            "samples": self._samples,
        }  # fmt: skip
        self._written = time.monotonic()
        partial = self._out.with_suffix(".partial")
        partial.write_text(json.dumps(found, indent=1), encoding="utf-8")
        partial.replace(self._out)
        return found


def flatness(samples: list[dict[str, float]]) -> dict[str, float] | None:
    """How flat the memory of the longest life is after warm-up: the medians of its windows against that of all.

    The process's own memory, without pages of files: those come and go as the system needs room for other processes.
    farthest: the largest distance, as a part. growth: from the first window to the last one.
    """
    lives = [sample["life"] for sample in samples]
    longest = [sample for sample in samples if sample["life"] == max(lives, key=lives.count)]
    warm = longest[int(len(longest) * WARM_UP) :]
    if len(warm) < WINDOWS:
        return None
    edges = [len(warm) * number // WINDOWS for number in range(WINDOWS + 1)]
    windows = [statistics.median(sample["own_memory"] for sample in warm[start:end]) for start, end in pairwise(edges)]
    middle = statistics.median(sample["own_memory"] for sample in warm)
    return {
        "minutes": round((longest[-1]["seconds"] - longest[0]["seconds"]) / 60, 2),
        "median": middle,
        "farthest": round(max(abs(window - middle) for window in windows) / middle, 4),
        "growth": round((windows[-1] - windows[0]) / middle, 4),
    }
