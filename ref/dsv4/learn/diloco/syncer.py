"""The syncer: it holds the model that counts, and merges into it what learners have learnt, fragment by fragment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from dsv4.learn.diloco.merge import merged, token_weight
from dsv4.learn.diloco.messages import Change, Fragment, Progress, Request, Update, changed, sendable, unpacked
from dsv4.learn.diloco.outer import outer_step
from dsv4.learn.diloco.settings import Settings
from dsv4.ops.types import Array

WEIGHT, SENT, MOMENTUM, VERSIONS = "weight.", "sent.", "momentum.", "versions"
"""What the names of a state begin with."""

KEPT = 0.9
"""How much of a moving average of seconds each new value leaves; not published."""

SILENCE = 10
"""A learner that has not been heard of for so many of its steps does not set the pace."""

Heard = Literal["counted", "late", "stale"]
"""What became of an update: it counts; its round is over; it starts from a fragment that is not the syncer's."""


@dataclass
class Round:
    """A round that is open."""

    opened: float
    updates: dict[int, Update] = field(default_factory=dict)
    closes: float | None = None
    """When it ends, once the quorum is there."""
    is_last: bool = False
    """Of its fragment: learners have done their steps."""


class Syncer:
    """Rounds of fragments in turn, round r having fragment r mod P. Times are whatever clock the caller has.

    It is told what happens, and tells what to send: who carries messages, and how fast, is not its concern.
    """

    def __init__(
        self, weights: Mapping[str, Array], fragments: Sequence[Sequence[str]], settings: Settings, steps: range
    ) -> None:
        """weights: every tensor that a fragment names, as all learners begin with them; steps: that each of them does,
        by number.
        """
        self.fragments, self.settings, self.steps = fragments, settings, steps
        self.weights = {name: weights[name] for names in fragments for name in names}
        """Θ."""
        self.sent = dict(self.weights)
        """Θ as learners have it. What rounding has kept from them is part of the next change: nothing is lost."""
        self.momentum = {name: np.zeros_like(weight) for name, weight in self.weights.items()}
        self.versions = [0] * len(fragments)
        """Outer steps that each fragment has had."""
        self.rounds: dict[int, Round] = {}
        """Those that are open, by number."""
        self.ended: set[int] = set()
        """Fragments whose last round has begun."""
        self.learners: dict[int, tuple[Progress, float]] = {}
        """What was last heard of each, and when; seconds are a moving average."""
        self.averages = {"opened": -np.inf, "quorum": 0.0, "sync": 0.0}
        """When the last round was opened; ξ_quorum and ξ_sync, 0 before the first."""

    @property
    def next_round(self) -> int:
        """The number of the round to open next; it follows from the versions alone, so that a restart knows it."""
        return min((self.versions[place] * len(self.fragments) + place for place in self._idle), default=0)

    @property
    def clock(self) -> int:
        """How many inner steps a learner that keeps pace has done when the first round that is not over opens."""
        count = len(self.fragments)
        over = min(version * count + place for place, version in enumerate(self.versions))
        return min(self.steps.start + over * self.settings.steps_per_round, self.steps.stop)

    @property
    def is_over(self) -> bool:
        """Whether every fragment has had its last round."""
        return len(self.ended) == len(self.fragments) and not self.rounds

    def progress(self, message: Progress, now: float) -> None:
        """A learner has done a step: ξ_step is the quickest living learner's moving average."""
        known = self.learners.get(message.learner)
        seconds = message.seconds if known is None else _average(known[0].seconds, message.seconds)
        self.learners[message.learner] = message._replace(seconds=seconds), now

    def step_seconds(self, now: float) -> float | None:
        """ξ_step, of the quickest learner that lives, as far as one can hear; None before anybody is heard."""
        living = [one.seconds for one, heard in self.learners.values() if now - heard <= SILENCE * one.seconds]
        return min(living or [one.seconds for one, _ in self.learners.values()], default=None)

    def due(self, now: float) -> float | None:
        """When the next round may open: H/P steps after the last one, and at most τ at a time; None: not yet to say.

        Without that pace a fast network would merge every step or two, and the outer optimiser would be over-driven.
        None opens whose result would come after the quickest learner's last step: then, each fragment has its last one,
        all at once.
        """
        end, seconds = self.ends(now), self.step_seconds(now)
        if end is not None:
            return max(now, end) if self._idle else None
        quickest = max((one.step for one, _ in self.learners.values()), default=self.steps.start)
        is_late = quickest + self.settings.delay >= self.steps.stop
        if seconds is None or is_late or len(self.rounds) >= min(self.settings.delay, len(self.fragments)):
            return None
        return max(now, self.averages["opened"] + self.settings.steps_per_round * seconds)

    def ends(self, now: float) -> float | None:
        """When last rounds begin: all learners have done their steps, or τ steps after the first has; None: none has.

        So the steps that a learner does after a fragment's last turn are not lost. Not in the sources at hand: ours.
        """
        done = sorted(heard for one, heard in self.learners.values() if one.step >= self.steps.stop)
        if not done:
            return None
        latest = done[0] + self.settings.delay * (self.step_seconds(now) or 0.0)
        return min(latest, done[-1]) if len(done) == self.settings.learners else latest

    def open(self, now: float) -> Request:
        """Begin the next round; what it returns is for all learners."""
        number, end = self.next_round, self.ends(now)
        self.rounds[number] = Round(now, is_last=end is not None and now >= end)
        self.averages["opened"] = now
        if self.rounds[number].is_last:
            self.ended.add(number % len(self.fragments))
        return Request(number, number % len(self.fragments))

    def hear(self, update: Update, now: float) -> Heard:
        """Take an update. With the quorum, the round's `closes` is set: after the grace, and at once with all learners.

        Round r merges into version ⌊r/P⌋ of its fragment. An update that starts from another one is stale: what it says
        is no difference from Θ_prev. Its learner has missed a fragment and is to be sent the newest. Not in the sources
        at hand: ours.
        """
        if update.version != update.round // len(self.fragments):
            return "stale"
        if update.round not in self.rounds:
            return "late"
        this = self.rounds[update.round]
        this.updates[update.learner] = update
        if len(this.updates) == self.settings.quorum and this.closes is None:
            waited = now - this.opened
            self.averages["quorum"] = _average(self.averages["quorum"] or waited, waited)
            this.closes = now + self.grace(now)
        if len(this.updates) == self.settings.learners:
            this.closes = now  # there is nobody left to wait for
        return "counted"

    def grace(self, now: float) -> float:
        """max(0, γ(τ·ξ_step − ξ_quorum − ξ_sync)): how long to wait for others once the quorum is there.

        What the step hides, less what the quorum and the way back take: nobody waits for the result longer than before.
        Source: Decoupled DiLoCo (2604.21428, second-hand).
        """
        step = self.step_seconds(now) or 0.0
        left = self.settings.delay * step - self.averages["quorum"] - self.averages["sync"]
        return max(0.0, self.settings.grace * left)

    def close(self, number: int) -> Fragment | Change:
        """End a round: merge what was heard, do the outer step, and give what is to be sent to all learners.

        They are sent how Θ differs from what they have, in a few bits; with `return_bits` of 32, Θ itself.
        """
        this = self.rounds.pop(number)
        place = number % len(self.fragments)
        updates = [this.updates[learner] for learner in sorted(this.updates)]
        weights = [token_weight(update.tokens, update.steps) for update in updates]
        for name in self.fragments[place]:
            differences = [unpacked(update.differences[name]) for update in updates]
            self._step(name, differences, weights, this.is_last)
        self.versions[place] += 1
        if self.settings.return_bits == 32:
            self.sent |= {name: self.weights[name] for name in self.fragments[place]}
            return self.newest(place)
        change = Change(place, self.versions[place], {name: self._unsent(name) for name in self.fragments[place]})
        self.sent |= changed(self.sent, change)
        return change

    def synced(self, seconds: float) -> None:
        """How long it took to merge a fragment and to bring it to the learners: ξ_sync."""
        self.averages["sync"] = _average(self.averages["sync"] or seconds, seconds)

    def newest(self, place: int) -> Fragment:
        """A whole fragment, as learners have it who have missed nothing."""
        return Fragment(place, self.versions[place], {name: self.sent[name] for name in self.fragments[place]})

    def state(self, places: Sequence[int] | None = None) -> dict[str, Any]:
        """Everything that must not be lost, as arrays by name; places: of these fragments alone.

        Nothing of a fragment changes but by its own outer step, so a restarted syncer needs of each fragment what it
        was after its last one, and no moment in common. Open rounds are opened again.
        """
        chosen = range(len(self.fragments)) if places is None else places
        names = [name for place in chosen for name in self.fragments[place]]
        weights = {WEIGHT + name: self.weights[name] for name in names}
        sent = {SENT + name: self.sent[name] for name in names}
        momentum = {MOMENTUM + name: self.momentum[name] for name in names}
        return {**weights, **sent, **momentum, VERSIONS: np.array([self.versions[place] for place in chosen], np.int64)}

    def load_state(self, state: Mapping[str, Any], places: Sequence[int] | None = None) -> None:
        """Go on from a state, of some fragments or of all; open rounds are forgotten."""
        chosen = range(len(self.fragments)) if places is None else places
        for place, version in zip(chosen, state[VERSIONS].tolist(), strict=True):
            self.versions[place] = version
            for name in self.fragments[place]:
                self.weights[name], self.momentum[name] = state[WEIGHT + name], state[MOMENTUM + name]
                self.sent[name] = state[SENT + name]
        self.rounds.clear()

    @property
    def _idle(self) -> list[int]:
        """Fragments of which a round may open: none is open, and their last one has not been."""
        busy = self.ended | {number % len(self.fragments) for number in self.rounds}
        return [place for place in range(len(self.fragments)) if place not in busy]

    def _unsent(self, name: str) -> Any:
        """How a tensor differs from what learners have, as it is sent."""
        return sendable(name, self.weights[name] - self.sent[name], self.settings.return_bits)

    def _step(self, name: str, differences: Sequence[Array], weights: Sequence[float], is_last: bool) -> None:
        """The outer step of one tensor.

        A router's bias becomes the learners' mean: it descends no loss. So does every tensor in its last round: no
        later one would correct what the momentum overshoots.
        """
        difference = merged(name, differences, weights, self.settings.merge == "radial" and not is_last)
        rate, kept = self.settings.outer_learning_rate, self.settings.outer_momentum
        if is_last or name.endswith("gate.bias"):
            rate, kept = 1.0, 0.0
        self.weights[name], self.momentum[name] = outer_step(
            self.weights[name], difference, self.momentum[name], rate, kept
        )


def _average(before: float, new: float) -> float:
    return KEPT * before + (1 - KEPT) * new
