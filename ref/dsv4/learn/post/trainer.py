"""One step of post-training after another, whatever the lesson is."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from dsv4.config import Config
from dsv4.learn.clip import clip_gradients
from dsv4.learn.gradients import weighted_gradients
from dsv4.learn.learner import SHARDS, Learner, check_state, in_threads, under
from dsv4.learn.post.lesson import Lesson, Part
from dsv4.learn.post.recipe import Stage
from dsv4.learn.schedule import cosine_decay, warm_up
from dsv4.learn.trainable import Trainable, TrainableModel
from dsv4.ops.types import Array, Ints

LESSON = "lesson."
"""What the names in a state begin with that belong to the lesson."""


class Report(NamedTuple):
    """What one step reports."""

    step: int
    kind: str
    losses: dict[str, float]
    """By name, without their weights."""
    gradient_norm: float
    """Before it was clipped."""
    learning_rate: float
    tokens: int
    """Tokens that were learned from."""
    measures: dict[str, float]
    """What the lesson says of the step, such as the mean reward."""
    verdict: str
    """ "go on", or "stop" where a loss or the gradient is no number: the step has then not been done."""

    @property
    def loss(self) -> float:
        """The one that the stage makes small."""
        return next(iter(self.losses.values()))

    def to_json(self) -> dict[str, Any]:
        """As a line of the log, with the keys of every run's log."""
        return {**self._asdict(), "load": {}, "standing": {}}


class PostTrainer(Learner):
    """A model in a stage of post-training. Routing biases stay as they are, and so does the MTP module."""

    def __init__(self, stage: Stage, config: Config, weights: Trainable, lesson: Lesson) -> None:
        """config: of the model as it is to be released; weights: float32; they change."""
        super().__init__(config, weights)
        self.stage, self.lesson = stage, lesson

    @np.errstate(all="ignore")  # what is not finite is looked for, and said in words
    def advance(self) -> Report:
        """Do the next step. Where the verdict is "stop", the weights are what they were.

        Raises CheckpointError for weights that no model can be made of, and what the lesson raises.
        """
        number, stage = self.step, self.stage
        found = self._gradients()
        learnt = {name: gradient for name, gradient in found.gradients.items() if not name.startswith("mtp.")}
        clipped = clip_gradients(learnt, stage.clip_norm)
        rate = learning_rate(stage, number)
        is_sound = np.isfinite(clipped.norm) and all(map(np.isfinite, found.losses.values()))
        if is_sound:
            self.optimiser.step(clipped.gradients, rate)
            self.step += 1
        verdict = "go on" if is_sound else "stop"
        measures = self.lesson.measures()
        return Report(number, stage.kind, found.losses, clipped.norm, rate, found.tokens, measures, verdict)

    def state(self) -> dict[str, Array | Ints]:
        """As of `Learner`, with the lesson's."""
        return {**super().state(), **{LESSON + name: array for name, array in self.lesson.state().items()}}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """As of `Learner`."""
        check_state(state, self.state())
        self._load(state)
        self.lesson.load_state(under(LESSON, state))

    def _gradients(self) -> "_Found":
        """Of all parts of the step: sums, in which each counts with its share."""
        total = _Found({}, {}, 0)
        for parts in self.lesson.parts(self):
            models = self._models_of(self.weights.config, self.stage.quantise)
            for found in in_threads(partial(self._sum, models, parts), SHARDS):
                total = _added(total, found)
        return total

    def _sum(self, models: Sequence[TrainableModel], parts: Sequence[Part], thread: int) -> "_Found":
        """Of the parts that one thread computes, one after another, with a model of its own."""
        total = _Found({}, {}, 0)
        model = models[thread]
        with np.errstate(all="ignore"):
            for part in parts[thread::SHARDS]:
                values = part.losses(model)
                share = {name: part.share * self.lesson.weights[name] for name in values}
                losses = {name: part.share * float(value.data) for name, value in values.items()}
                total = _added(total, _Found(losses, weighted_gradients(model, values, share), part.tokens))
        return total


def learning_rate(stage: Stage, step: int) -> float:
    """η of a step, of which the first is 0: it rises linearly, stays, and falls along a cosine to the last step."""
    before = stage.steps - stage.decay_steps
    if step >= before:
        return cosine_decay(step - before, stage.decay_steps, stage.learning_rate, stage.final_learning_rate)
    return stage.learning_rate * warm_up(step, stage.warmup_steps)


class _Found(NamedTuple):
    losses: dict[str, float]
    gradients: dict[str, Array]
    tokens: int


def _added(one: _Found, other: _Found) -> _Found:
    """Both together; of a thread without a part there is nothing to add."""
    if not other.tokens:
        return one
    losses = {name: one.losses.get(name, 0.0) + value for name, value in other.losses.items()}
    gradients = {
        name: one.gradients[name] + gradient if one.gradients else gradient
        for name, gradient in other.gradients.items()
    }
    return _Found(losses, gradients, one.tokens + other.tokens)
