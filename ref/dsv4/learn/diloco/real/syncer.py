"""The syncer as a process: one thread that waits for messages or for the next moment at which something is due."""

import json
import os
import queue
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from dsv4.learn.diloco.chaos import SYNCER, Chaos
from dsv4.learn.diloco.messages import Change, Fragment, Progress, Request, Update
from dsv4.learn.diloco.real.files import TAPE, read_fragment, recovered_tape, write_fragment
from dsv4.learn.diloco.real.lines import Inbox, Tell
from dsv4.learn.diloco.real.wire import packed, unpacked
from dsv4.learn.diloco.recovery import copy_of
from dsv4.learn.diloco.syncer import Syncer

PATIENCE = 4
"""A round without its quorum is announced again after so many times what a fragment may be on its way."""

LAST_CALLS = 3
"""So often is a round announced when all learners are done, before the run ends without it."""


class SyncerProcess:
    """What Ray makes an actor of. `run` has one thread, everything else only leaves messages for it."""

    def __init__(self, start: Any, directory: str, life: int, chaos: Chaos, seed: int, began: float) -> None:
        """start: makes the syncer; directory: where tape and fragments are; life: how often it was killed before."""
        self.syncer: Syncer = start.syncer()
        self.directory, self.tape = Path(directory), Path(directory) / TAPE
        for place in range(len(self.syncer.fragments)):
            state = read_fragment(self.directory, place)
            if state is not None:
                self.syncer.load_state(state, [place])
        known = recovered_tape(self.tape, self.syncer.versions)
        self._inbox = Inbox(known)
        self._merges = sum(line["event"] == "merged" for line in known)
        sizes = [line for line in known if "up" in line][-1:]
        self._bytes = {key: sizes[0][key] if sizes else 0 for key in ("up", "down")}
        self._deaths = {kill.after for kill in chaos.kills if kill.who == SYNCER and kill.after > self._merges}
        self._lost, self._draws = chaos.lost, np.random.default_rng((seed, life))
        self._began, self._learners, self._lives = began, dict[int, Any](), dict[int, int]()
        self._writes = threading.RLock()
        self._messages: queue.Queue[Any] = queue.Queue()
        self._again: dict[int, float] = {}  # when each open round is announced again
        self._calls: Counter[int] = Counter()  # how often each round was announced when all learners were done
        if life:
            self._line("restarted", who=SYNCER)

    def meet(self, number: int, learner: Any, life: int) -> None:
        """A learner's handle, None where it is gone, and which life it is in: former ones are not listened to."""
        with self._writes:
            self._lives[number] = life
            if learner is None:
                self._line("killed", who=number)
        self._messages.put((number, learner))

    def hear(self, sent: bytes) -> int:
        """A learner's message, a Tell; how many of its lines are on the tape."""
        tell: Tell = unpacked(sent)
        number, _, life = tell.sender.partition(".")
        with self._writes:
            self._bytes["up"] += len(sent)
            if int(life) < self._lives.get(int(number), 0):
                return 0
            for line in self._inbox.new(tell):
                self._write(line)
            if tell.message is not None:
                self._messages.put(tell.message)
            return self._inbox.counts[tell.sender]

    def copy(self, number: int) -> dict[str, Any]:
        """What a learner begins with where it has no peer."""
        with self._writes:
            self._line("copied", learner=number, peer=None)
            return copy_of({}, self.syncer, None)

    def run(self) -> dict[str, Any]:
        """Until the last round is over; the syncer's state then."""
        while not self._is_over():
            try:
                message = self._messages.get(timeout=max(0.0, self._next_moment() - self._now()))
            except queue.Empty:
                message = None
            self._take(message)
            self._do_what_is_due()
        return self.syncer.state()

    def _is_over(self) -> bool:
        calls = [self._calls[number] for number in self.syncer.rounds]
        return self.syncer.is_over or min(calls, default=0) >= LAST_CALLS

    def _take(self, message: Any) -> None:
        match message:
            case Progress():
                self.syncer.progress(message, self._now())
            case Update():
                if self._is_lost(message):
                    return
                found = self.syncer.hear(message, self._now())
                if found != "counted":
                    self._line(found, learner=message.learner, round=message.round)
                if found == "stale":
                    self._send(message.learner, self.syncer.newest(message.fragment))
            case (number, learner):
                self._learners[number] = learner

    def _do_what_is_due(self) -> None:
        now = self._now()
        for number, this in sorted(self.syncer.rounds.items()):
            if this.closes is not None and this.closes <= now:
                self._close(number)
            elif this.closes is None and self._again[number] <= now:
                progress = [known.step for known, _ in self.syncer.learners.values()]
                self._calls[number] += min(progress, default=0) >= self.syncer.steps.stop
                self._announce(Request(number, number % len(self.syncer.fragments)))
        due = self.syncer.due(now)
        if due is not None and due <= now:
            self._announce(self.syncer.open(now))

    def _next_moment(self) -> float:
        """When something is due, if no message comes before; within an hour."""
        rounds, now = self.syncer.rounds, self._now()
        moments = [self._again[number] if this.closes is None else this.closes for number, this in rounds.items()]
        due = self.syncer.due(now)
        return min([*moments, now + 3600.0, *([] if due is None else [due])])

    def _announce(self, request: Request) -> None:
        now = self._now()
        seconds = self.syncer.step_seconds(now) or 1.0
        self._again[request.round] = now + PATIENCE * self.syncer.settings.delay * seconds
        for number in sorted(self._learners):
            self._send(number, request)

    def _close(self, number: int) -> None:
        """Nobody gets a fragment, as a message or in a copy, before it is written."""
        start = time.monotonic()
        updates, is_last = self.syncer.rounds[number].updates, self.syncer.rounds[number].is_last
        learners = sorted(updates)
        steps, tokens = ([getattr(updates[m], name) for m in learners] for name in ("steps", "tokens"))
        with self._writes:
            fragment = self.syncer.close(number)
            about = {"fragment": fragment.fragment, "version": fragment.version, "steps": steps, "tokens": tokens}
            self._line("merged", round=number, last=is_last, learners=learners, **about, **self._bytes)
            write_fragment(self.directory, fragment.fragment, self.syncer.state([fragment.fragment]))
        self._merges += 1
        if self._merges in self._deaths:
            os.kill(os.getpid(), signal.SIGKILL)
        for learner in sorted(self._learners):
            self._send(learner, fragment)
        self.syncer.synced(time.monotonic() - start)

    def _send(self, number: int, message: Request | Fragment | Change) -> None:
        """To a learner, if it is there and the message is not lost."""
        learner = self._learners.get(number)
        if learner is not None:
            sent = packed(message)
            self._bytes["down"] += len(sent)
            if not self._is_lost(message):
                learner.hear.remote(sent)

    def _is_lost(self, message: Any) -> bool:
        lost = bool(self._draws.random() < self._lost)
        if lost:
            self._line("lost", message=type(message).__name__)
        return lost

    def _now(self) -> float:
        return time.time() - self._began

    def _line(self, event: str, **about: Any) -> None:
        self._write({"time": round(self._now(), 3), "event": event, **about})

    def _write(self, line: dict[str, Any]) -> None:
        with self._writes, self.tape.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
