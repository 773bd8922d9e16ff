"""Learners, syncer and network in virtual time: one process, an event queue, and everything drawn from a seed.

What an event changes is a function of the state before it, and the next event is the earliest one, the first that was
queued among equals: a run has the same bits whenever it is made, however long its steps really take.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dsv4.errors import TrainingError
from dsv4.learn.diloco.chaos import SYNCER, Chaos
from dsv4.learn.diloco.events import Arrived, Copied, Due, Started, Stepped
from dsv4.learn.diloco.learner import Learner
from dsv4.learn.diloco.messages import Change, Fragment, Progress, Request, Update, size_of
from dsv4.learn.diloco.recovery import copy_of, rejoined
from dsv4.learn.diloco.syncer import Syncer

Line = dict[str, Any]
"""A line of the event tape."""

STEP_SECONDS, JITTER = 1.0, 0.1
"""Of a learner that is not slow, and by how much a step may take longer."""

LATENCY, BYTES_PER_SECOND = 0.05, 1e8
"""Of the network: a message takes half to one and a half times the first, and its bytes."""

PATIENCE = 4
"""A round without its quorum is announced again after so many times what a fragment may be on its way."""


class World:
    """A run in virtual time."""

    def __init__(
        self,
        make_learner: Callable[[int], Learner],
        make_syncer: Callable[[], Syncer],
        chaos: Chaos,
        seed: int,
        log: Callable[[Line], None] = lambda line: None,
    ) -> None:
        """make_learner, make_syncer: as at the start of the run, whenever called; log: takes the tape's lines."""
        self.make_learner, self.make_syncer, self.log = make_learner, make_syncer, log
        self.seed, self.chaos = seed, chaos
        self.syncer: Syncer | None = make_syncer()
        self.settings = self.syncer.settings
        self.learners: dict[int, Learner] = {m: make_learner(m) for m in range(self.settings.learners)}
        self.time = 0.0
        self.queue: list[tuple[float, int, Any]] = []
        self.counts: Counter[str] = Counter()
        """Of draws, events, steps of each learner, merges, bytes."""
        self.tokens: Counter[int] = Counter()
        """What each learner has learnt from."""
        self.lives: dict[int | str, int] = dict.fromkeys([*self.learners, SYNCER], 0)
        self.inboxes: dict[int, list[Fragment | Change]] = {m: [] for m in self.learners}
        """Fragments that came during a step: they are put in place when it ends."""
        self.kills = list(chaos.kills)
        """Those that are still to come."""
        self.saved: dict[int, Mapping[str, Any]] = {}
        """What the syncer has written of each fragment before anybody got it."""
        self.opens: float | None = None
        """When the syncer looks next whether a round may open."""
        self.is_over = False
        for m in self.learners:
            self._begin_step(m)

    def advance(self) -> None:
        """The next event. Raises TrainingError where there is none, since nobody is left, and as a learner's step."""
        if not self.queue:
            raise TrainingError("learners: expected at least one that is still running, found none")
        self.time, _, event = heapq.heappop(self.queue)
        match event:
            case Stepped(m, life, seconds) if life == self.lives[m]:
                self._stepped(m, seconds)
            case Arrived(to, life, message) if life == self.lives[to]:
                if to == SYNCER:
                    self._heard(message)
                else:
                    self._told(int(to), message)
            case Due(what, number, life) if life == self.lives[SYNCER]:
                self._due(what, number)
            case Started(who):
                self._started(who)
            case Copied(m, state):
                self._copied(m, state)

    def _stepped(self, m: int, seconds: float) -> None:
        """The step itself, then what came meanwhile."""
        learner = self.learners[m]
        report = learner.step()
        self.counts[f"steps.{m}"] += 1
        self.tokens[m] += report.tokens
        about = {"step": report.step, "loss": report.loss, "tokens": report.tokens, "seconds": seconds}
        self._line("step", learner=m, **about)
        waiting, self.inboxes[m] = self.inboxes[m], []
        for fragment in waiting:
            self._receive(m, fragment)
        if self._is_killed(m, self.counts[f"steps.{m}"]):
            return
        self._send(SYNCER, Progress(m, learner.trainer.step, seconds))
        if not learner.is_done:
            self._begin_step(m)

    def _begin_step(self, m: int) -> None:
        seconds = STEP_SECONDS * self._times(m) * (1 + JITTER * self._draw())
        self._push(seconds, Stepped(m, self.lives[m], seconds))

    def _times(self, m: int) -> float:
        """How many times longer a learner's steps take."""
        return dict(self.chaos.slow).get(m, 1.0)

    def _told(self, m: int, message: Request | Fragment | Change) -> None:
        """Requests are answered at once, with what the last step has left; fragments wait for the end of the step."""
        learner = self.learners[m]
        if isinstance(message, Request):
            update = learner.update(message)
            if update is not None:
                self._line("answered", learner=m, round=message.round, steps=update.steps)
                self._send(SYNCER, update)
        elif learner.is_done:
            self._receive(m, message)
        else:
            self.inboxes[m].append(message)

    def _receive(self, m: int, fragment: Fragment | Change) -> None:
        if self.learners[m].receive(fragment):
            self._line("received", learner=m, fragment=fragment.fragment, version=fragment.version)

    def _heard(self, message: Progress | Update) -> None:
        syncer = self._syncer
        if isinstance(message, Progress):
            syncer.progress(message, self.time)
        else:
            found = syncer.hear(message, self.time)
            if found != "counted":
                self._line(found, learner=message.learner, round=message.round)
            if found == "stale":
                self._send(message.learner, syncer.newest(message.fragment))
            this = syncer.rounds.get(message.round)
            if found == "counted" and this and this.closes is not None:
                self._push_at(this.closes, Due("close", message.round, self.lives[SYNCER]))
        self._pace()

    def _pace(self) -> None:
        """See to it that the next round opens in time, and that the run ends after the last one."""
        self.is_over = self.is_over or self._syncer.is_over
        due = self._syncer.due(self.time)
        if due is not None and (self.opens is None or due < self.opens):
            self.opens = due
            self._push_at(due, Due("open", None, self.lives[SYNCER]))

    def _due(self, what: str, number: int | None) -> None:
        syncer = self._syncer
        if what == "close" and number in syncer.rounds:
            self._close(int(number or 0))
        elif what == "again" and number in syncer.rounds and syncer.rounds[number].closes is None:
            self._again(int(number or 0))
        elif what == "open" and self.time == self.opens:
            self.opens = None
            if syncer.due(self.time) == self.time:
                self._announce(syncer.open(self.time))
            self._pace()

    def _announce(self, request: Request) -> None:
        for m in range(self.settings.learners):
            self._send(m, request)
        patience = PATIENCE * self.settings.delay * (self._syncer.step_seconds(self.time) or STEP_SECONDS)
        self._push(patience, Due("again", request.round, self.lives[SYNCER]))

    def _again(self, number: int) -> None:
        """Announce a round again; the run is over where none that is open can reach its quorum any more."""
        comes = any(isinstance(event, Started | Copied) for *_, event in self.queue)
        self.is_over = not comes and not any(self._can_end(one) for one in self._syncer.rounds)
        self._announce(Request(number, number % len(self._syncer.fragments)))

    def _can_end(self, number: int) -> bool:
        """Whether a round has its quorum, or may have: by learners with something to say, or unless it is a last one,
        by those who still do steps.
        """
        place = number % len(self._syncer.fragments)
        this = self._syncer.rounds[number]
        able = [one for one in self.learners.values() if one.steps[place] or not (one.is_done or this.is_last)]
        return this.closes is not None or len(able) >= self.settings.quorum

    def _close(self, number: int) -> None:
        syncer = self._syncer
        updates, is_last = syncer.rounds[number].updates, syncer.rounds[number].is_last
        learners = sorted(updates)
        fragment = syncer.close(number)
        place = fragment.fragment
        self.saved[place] = syncer.state([place])
        steps, tokens = ([getattr(updates[m], name) for m in learners] for name in ("steps", "tokens"))
        about = {"fragment": place, "version": fragment.version, "learners": learners, "steps": steps, "tokens": tokens}
        self._line("merged", round=number, last=is_last, **about)
        self.counts["merges"] += 1
        if self._is_killed(SYNCER, self.counts["merges"]):
            return
        syncer.synced(max(self._send(m, fragment) for m in range(self.settings.learners)))
        self._pace()

    def _is_killed(self, who: int | str, count: int) -> bool:
        """Whether the time has come for somebody to be killed; if so, it has happened."""
        due = [kill for kill in self.kills if (kill.who, kill.after) == (who, count)]
        if not due:
            return False
        self.kills.remove(due[0])
        self.lives[who] += 1
        if who == SYNCER:
            self.syncer = self.opens = None
        else:
            del self.learners[int(who)]
            self.inboxes[int(who)] = []
        self._line("killed", who=who)
        self._push(due[0].seconds, Started(who))
        return True

    def _started(self, who: int | str) -> None:
        """The syncer reads what it has written, and learners report to it; a learner asks the first peer that lives, or
        the syncer."""
        if who == SYNCER:
            self.syncer = self.make_syncer()
            for place, state in self.saved.items():
                self.syncer.load_state(state, [place])
            self._line("restarted", who=who)
            for m in self.learners:
                self._report(m)
            self._pace()
            return
        peer = min(self.learners, default=None)
        if peer is None and self.syncer is None:
            self._push(STEP_SECONDS, Started(who))
            return
        self._line("copied", learner=who, peer=peer)
        state = copy_of(self.learners, self.syncer, peer)
        size = sum(np.asarray(array).nbytes for array in state.values())
        self._push(LATENCY + size / BYTES_PER_SECOND, Copied(int(who), state))

    def _copied(self, m: int, state: Mapping[str, Any]) -> None:
        self.learners[m] = rejoined(self.make_learner(m), state)
        self._line("returned", learner=m)
        if self.learners[m].is_done:
            self._report(m)
        else:
            self._begin_step(m)

    def _report(self, m: int) -> None:
        """A learner says that it is there, where no step says so."""
        self._send(SYNCER, Progress(m, self.learners[m].trainer.step, STEP_SECONDS * self._times(m)))

    @property
    def _syncer(self) -> Syncer:
        """The living one: no event of a dead one comes through."""
        if self.syncer is None:
            raise AssertionError("an event of a syncer that is dead")
        return self.syncer

    def _send(self, to: int | str, message: Any) -> float:
        """Send a message, and give the seconds that it takes, whether it is lost, there is nobody, or it arrives."""
        size = size_of(message)
        seconds = LATENCY * (0.5 + self._draw()) + size / BYTES_PER_SECOND
        self.counts["bytes up" if to == SYNCER else "bytes down"] += size
        if not isinstance(message, Progress) and self._draw() < self.chaos.lost:
            self._line("lost", to=to, message=type(message).__name__)
        elif self.syncer is not None if to == SYNCER else to in self.learners:
            self._push(seconds, Arrived(to, self.lives[to], message))
        return seconds

    def _draw(self) -> float:
        """A number from 0 to 1 that depends on the seed and on how many were drawn before."""
        self.counts["draws"] += 1
        return float(np.random.default_rng((self.seed, self.counts["draws"])).random())

    def _push(self, seconds: float, event: Any) -> None:
        self._push_at(self.time + seconds, event)

    def _push_at(self, time: float, event: Any) -> None:
        self.counts["events"] += 1
        heapq.heappush(self.queue, (time, self.counts["events"], event))

    def _line(self, event: str, **about: Any) -> None:
        sizes = {"up": self.counts["bytes up"], "down": self.counts["bytes down"]} if event == "merged" else {}
        self.log({"time": round(self.time, 6), "event": event, **about, **sizes})
