"""A learner: a whole model with its own data and optimiser, which never waits for anybody."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dsv4.errors import TrainingError
from dsv4.learn.diloco.merge import pseudo_gradient
from dsv4.learn.diloco.messages import Change, Fragment, Request, Update, changed, sendable
from dsv4.learn.trainer import Report, Trainer
from dsv4.ops.types import Array

TRAINER, BEFORE, COUNTERS = "trainer.", "before.", "counters"
"""What the names of a state begin with."""


class Learner:
    """One of M. Between two calls it is a function of the state before them and of what they brought."""

    def __init__(self, number: int, trainer: Trainer, fragments: Sequence[Sequence[str]], bits: int) -> None:
        """number: from 0; trainer: with the first weights, which all learners and the syncer have in common.

        fragments: the tensors of each; bits: of each number of a difference that is sent; 32 is float32 as it is.
        """
        self.number, self.trainer, self.fragments, self.bits = number, trainer, fragments, bits
        self.versions, self.tokens, self.steps = ([0] * len(fragments) for _ in range(3))
        """Of each fragment: how many outer steps it had when it came, and what was learnt since."""
        self._before = self._tensors()
        """Of every fragment, as it came from the syncer."""
        self._after = dict(self._before)
        """The same as the last step has left them: what is said of them, even while the next step is at work."""

    @property
    def is_done(self) -> bool:
        """Whether it has done all steps of the recipe."""
        return self.trainer.step >= self.trainer.recipe.steps

    def step(self) -> Report:
        """One inner step, counted for every fragment. Raises TrainingError for a loss that is no number."""
        report = self.advance()
        self.count(report)
        return report

    def advance(self) -> Report:
        """The step alone, which takes its time; meanwhile `update` may be called, and nothing else."""
        report = self.trainer.advance()
        if report.verdict != "go on":
            found = f"learner {self.number}, step {report.step}: expected a loss that is a number"
            raise TrainingError(f"{found}, found {report.loss:.4g}")
        return report

    def count(self, report: Report) -> None:
        """The step is over: what it has changed may be said, and counts."""
        self._after = self._tensors()
        self.tokens = [count + report.tokens for count in self.tokens]
        self.steps = [count + 1 for count in self.steps]

    def update(self, request: Request) -> Update | None:
        """What it has learnt of a fragment; None before the first step since the fragment came."""
        place = request.fragment
        if not self.steps[place]:
            return None
        differences: dict[str, Any] = {}
        for name in self.fragments[place]:
            difference = pseudo_gradient(self._before[name], self._after[name])
            differences[name] = sendable(name, difference, self.bits)
        version, tokens, steps = self.versions[place], self.tokens[place], self.steps[place]
        return Update(self.number, request.round, place, version, differences, tokens, steps)

    def receive(self, message: Fragment | Change) -> bool:
        """Put a fragment in the place of its own and count from 0; false for one that is no newer than its own.

        A change counts from the fragment as it came, whatever was learnt since. It is of no use, and false, where the
        fragment before it never came: the next update says so, and brings the whole fragment.
        """
        place, version, own = message.fragment, message.version, self.versions[message.fragment]
        if version <= own or (isinstance(message, Change) and version != own + 1):
            return False
        tensors = changed(self._before, message) if isinstance(message, Change) else message.tensors
        for name, tensor in tensors.items():
            self._before[name] = self._after[name] = tensor
            weights = self.trainer.weights
            (weights.parameters if name in weights.parameters else weights.others)[name] = tensor
        self.versions[place] = version
        self.tokens[place] = self.steps[place] = 0
        return True

    def rejoin(self, peer: Mapping[str, Any]) -> None:
        """Begin where a healthy peer stands, after a failure: with all that it has, but nothing learnt of its own.

        peer: its state. The counters are 0, so what the peer has learnt is not counted twice, and this learner counts
        again from its next step on. Source: Decoupled DiLoCo (2604.21428, second-hand).
        """
        self.load_state(peer)
        self.tokens, self.steps = ([0] * len(self.fragments) for _ in range(2))

    def state(self) -> dict[str, Any]:
        """Everything that `load_state` needs, as arrays by name."""
        trainer = {TRAINER + name: array for name, array in self.trainer.state().items()}
        before = {BEFORE + name: array for name, array in self._before.items()}
        return {**trainer, **before, COUNTERS: np.array([self.versions, self.tokens, self.steps], np.int64)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on where the learner of `state` stood, with the same bits. Raises TrainingError for another model's."""
        self.trainer.load_state({key[len(TRAINER) :]: state[key] for key in state if key.startswith(TRAINER)})
        self._before = {name: state[BEFORE + name] for name in self._before}
        self._after = self._tensors()
        self.versions, self.tokens, self.steps = (row.tolist() for row in state[COUNTERS])

    def _tensors(self) -> dict[str, Array]:
        """Of every fragment, as the trainer has them now."""
        return {name: self.trainer.weights.weight(name) for names in self.fragments for name in names}
