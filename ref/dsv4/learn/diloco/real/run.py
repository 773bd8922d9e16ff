"""A run with real processes: who is started, and who takes the place of whom that died.

Ray starts the processes, on this machine or on those of a cluster, and carries what they say. Nothing here waits for a
learner: one that dies is noticed when its `run` ends, and another is started when its time has come.
"""

import logging
import os
import re
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dsv4.errors import BackendError, TrainingError, quoted, reason, shortened
from dsv4.learn.diloco.chaos import SYNCER, Chaos
from dsv4.learn.diloco.real.files import TAPE, lives_of
from dsv4.learn.diloco.real.learner import LearnerProcess
from dsv4.learn.diloco.real.syncer import SyncerProcess
from dsv4.learn.diloco.syncer import Syncer

LOCAL = "local"
"""In place of an address: processes on this machine alone."""

RESTART = 1.0
"""Seconds until somebody is started again who died without being asked to."""

PATIENCE = 5.0
"""Seconds in which an address must answer."""

THREADS = 8
"""Of a process: one for `run`, the others for what comes from outside."""

ANSWER_SECONDS = 300.0
"""Within which a process must be there, or give a state that it was asked for: a step may be under way."""

LOCAL_CLUSTER = {
    "include_dashboard": False,
    "_system_config": {"worker_niceness": 0},  # 15 by itself: beside anything else, a start would take half a minute
}
"""How Ray is started here."""

SILENT = {"RAY_USAGE_STATS_ENABLED": "0"}
"""Ray reports to nobody."""


def run(start: Any, directory: Path, chaos: Chaos, seed: int, address: str = LOCAL) -> Syncer:
    """Train until the last round is over, and give the syncer as it is then.

    start: makes learners and the syncer, as `training.Start` does, and can be pickled; directory: where the syncer
    keeps its fragments and the tape; what is there already is gone on with. On several machines it must be one that all
    of them have. address: Ray's own, or LOCAL. Raises BackendError where Ray is not installed or cannot be
    had or a process does not answer, TrainingError for a loss that is no number. Where this process is connected with
    LOCAL processes already, those are used, and left as they are.
    """
    ray, is_ours = _connected(address)
    this = _Run(ray, start, directory, chaos, seed)
    try:
        return this.until_the_end()
    except ray.exceptions.GetTimeoutError as error:
        raise BackendError(f"ray: expected an answer within {ANSWER_SECONDS:g} s, found none") from error
    finally:
        this.end_all()
        if is_ours:
            ray.shutdown()


class _Run:
    """Who lives, who is to be started again and when."""

    def __init__(self, ray: Any, start: Any, directory: Path, chaos: Chaos, seed: int) -> None:
        self.ray, self.start, self.directory, self.chaos, self.seed = ray, start, directory, chaos, seed
        self.shared, self.began = ray.put(start), time.time()
        self.lives = lives_of(directory / TAPE)
        self.actors: dict[int | str, Any] = {}
        self.running: dict[Any, int | str] = {}  # who it is that ends when this is there
        self.due: dict[int | str, float] = {}  # who is started when

    def until_the_end(self) -> Syncer:
        """Start everybody, and again whoever dies, until the syncer's `run` ends."""
        self._start_all()
        while True:
            wait = max(0.0, min(self.due.values(), default=time.time() + 3600) - time.time())
            for ref in self._next_ended(wait):
                found = self._ended(self.running.pop(ref), ref)
                if found is not None:
                    return found
            for who in [who for who, moment in self.due.items() if moment <= time.time()]:
                del self.due[who]
                if who == SYNCER:
                    self._start_syncer()
                else:
                    self._return(int(who))

    def end_all(self) -> None:
        """Nobody goes on after the run."""
        for actor in self.actors.values():
            self.ray.kill(actor)

    def _start_all(self) -> None:
        """The learners of a new run begin when all are there; others ask for a state as after a failure."""
        is_new = not self.lives
        self._start_syncer()
        numbers = self.start.settings.numbers
        if not is_new:
            for number in numbers:
                self._return(number)
            return
        for number in numbers:
            self._make_learner(number, None)
        self._get([ref for number in numbers for ref in self._introduce(number)])
        for number in numbers:
            self._run(number)

    def _next_ended(self, seconds: float) -> list[Any]:
        """Whose `run` ends within so many seconds, or nobody's."""
        if self.running:
            ended: list[Any] = self.ray.wait(list(self.running), timeout=seconds)[0]
            return ended
        time.sleep(seconds)
        return []

    def _ended(self, who: int | str, ref: Any) -> Syncer | None:
        """The syncer's state at the end of the run; None for somebody who died and is to be started again."""
        try:
            state = self.ray.get(ref)
        except self.ray.exceptions.RayActorError:
            kills = [kill for kill in self.chaos.kills if kill.who == who]
            life = self.lives[who]
            self.lives[who] += 1
            self.due[who] = time.time() + (kills[life].seconds if life < len(kills) else RESTART)
            del self.actors[who]
            if who != SYNCER and SYNCER in self.actors:
                self.actors[SYNCER].meet.remote(who, None, self.lives[who])
            return None
        except self.ray.exceptions.RayTaskError as error:
            raise TrainingError(shortened(str(error.cause))) from error
        syncer: Syncer = self.start.syncer()
        syncer.load_state(state)
        return syncer

    def _start_syncer(self) -> None:
        arguments = (self.shared, str(self.directory), self.lives[SYNCER], self.chaos, self.seed, self.began)
        self._make(SYNCER, SyncerProcess, arguments)
        for number in self.start.settings.numbers:
            if number in self.actors:
                self._introduce(number)
        self._run(SYNCER)

    def _make_learner(self, number: int, state: Any) -> None:
        arguments = (self.shared, number, self.lives[number], self.chaos, self.began, state)
        self._make(number, LearnerProcess, arguments)

    def _return(self, number: int) -> None:
        """Start a learner again with a peer's state, or the syncer's; later, where neither can be had now.

        What the peer's state follows from is on the tape before the learner begins.
        """
        errors = self.ray.exceptions.RayActorError
        try:
            syncer = self.actors[SYNCER]
            for peer in self.start.settings.numbers:
                if peer in self.actors:
                    try:
                        state, tell = self._get(self.actors[peer].state.remote(number))
                    except errors:
                        continue
                    self._get(syncer.hear.remote(tell))
                    break
            else:
                state = self._get(syncer.copy.remote(number))
        except (KeyError, errors):
            self.due[number] = time.time() + RESTART
            return
        self._make_learner(number, state)
        self._introduce(number)
        self._run(number)

    def _make(self, who: int | str, kind: type, arguments: tuple[Any, ...]) -> None:
        options = {"num_cpus": 0, "max_concurrency": THREADS, "max_restarts": 0}
        self.actors[who] = self.ray.remote(kind).options(**options).remote(*arguments)

    def _get(self, refs: Any) -> Any:
        return self.ray.get(refs, timeout=ANSWER_SECONDS)

    def _run(self, who: int | str) -> None:
        self.running[self.actors[who].run.remote()] = who

    def _introduce(self, number: int) -> list[Any]:
        """A learner and the syncer get to know each other; what is there when they do."""
        learner, syncer = self.actors[number], self.actors[SYNCER]
        told = syncer.meet.remote(number, learner, self.lives[number])
        return [told, learner.meet.remote(syncer, self.lives[SYNCER])]


def _connected(address: str) -> tuple[Any, bool]:
    """Ray, which has found its processes or started them, and whether that was done here."""
    if find_spec("ray") is None:
        raise BackendError("ray: expected Ray, found none installed: pip install 'dsv4[ray]'")
    _check_reachable(address)
    import ray

    if address == LOCAL and ray.is_initialized():
        return ray, False
    # Ray's processes find the same modules, and share the cores. Those of this machine have the driver's own
    # environment: another one would have to be made for each process.
    variables = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "OPENBLAS_NUM_THREADS": "1"}
    own = LOCAL_CLUSTER if address == LOCAL else {"runtime_env": {"env_vars": variables}}
    try:
        with _environment(variables | SILENT if address == LOCAL else {}):
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **own)
    except Exception as error:  # Ray has no class for what can be wrong with an address
        raise BackendError(f"ray: expected processes at {quoted(address)}, found: {reason(error)}") from error
    return ray, True


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """With these variables, which processes that are started meanwhile inherit."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _check_reachable(address: str) -> None:
    """Raise BackendError where nobody listens at HOST:PORT: Ray itself would try for minutes."""
    found = re.fullmatch(r"(?:ray://)?([^:/]+):([0-9]{1,5})", address)
    if found is None:
        return
    try:
        socket.create_connection((found[1], int(found[2])), timeout=PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise BackendError(f"ray: expected processes at {quoted(address)}, found: {reason(error)}") from error
