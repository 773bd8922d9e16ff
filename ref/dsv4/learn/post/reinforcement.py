"""Reinforcement: answers are drawn, rewarded, and learned from by how much better than their group they were."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dsv4.config import Config
from dsv4.errors import TrainingError, quoted
from dsv4.learn.gradients import LOSSES, Pass
from dsv4.learn.learner import Learner
from dsv4.learn.losses.grpo import advantages, divergence, kept_answers, policy
from dsv4.learn.losses.policy import log_policy
from dsv4.learn.post.actor import actor
from dsv4.learn.post.answers import Answered, Asker, measures_of
from dsv4.learn.post.judge import judgements
from dsv4.learn.post.recipe import GRPO
from dsv4.learn.post.replay import Replay, replay_of, replayed
from dsv4.learn.trainable import Trainable, TrainableModel
from dsv4.model.model import Model
from dsv4.ops import Ops
from dsv4.ops.types import Array, Ints
from dsv4.text.tokenizer import Tokenizer


class AnswerPart(NamedTuple):
    """Some answers of a step, as they were drawn."""

    stage: GRPO
    replay: Replay
    advantage: Array
    """A [B]."""
    reference: Model | None
    """None where the divergence does not count."""
    share: float
    left_out: list[bool]
    """Takes, for each answer, whether it was too foreign and worse to be learned from."""

    @property
    def tokens(self) -> int:
        """The drawn ones."""
        return int(self.replay.drawn.sum())

    def losses(self, model: TrainableModel) -> dict[str, Any]:
        """As of `Part`. The reference routes and chooses for itself: it is a model of its own. Not in the report."""
        stage, replay = self.stage, self.replay
        with replayed(model, replay):
            run = Pass(model, replay.ids, replay.mask, observes=stage.indexer_weight > 0)
        log_now = log_policy(run.logits, replay.wanted, stage.temperature, replay.kept)
        log_old = replay.log_old.astype(log_now.dtype)
        judged = log_now, log_old, self.advantage, replay.drawn
        self.left_out.extend(~kept_answers(*judged, stage.delta))
        found = {"policy": policy(*judged, stage.epsilon, stage.delta)}
        if self.reference is not None:
            logits = self.reference(replay.ids, mask=replay.mask)
            log_reference = log_policy(logits, replay.wanted, stage.temperature, replay.kept)
            found["kl"] = divergence(log_now, log_old, log_reference, replay.drawn)
        return found | ({"indexer": LOSSES["indexer"].compute(run)} if stage.indexer_weight > 0 else {})


class Reinforcement:
    """The lesson of a stage of GRPO."""

    def __init__(
        self, stage: GRPO, config: Config, weights: Trainable, tokenizer: Tokenizer, directory: Path, ops: Ops
    ) -> None:
        """config: of the model as it is to be released; weights: those that it starts with, which are the reference
        until the first one is made; directory: for the rollouts; ops: who draws them."""
        self.stage, self.config, self.tokenizer, self.ops = stage, config, tokenizer, ops
        self.weights: Mapping[str, float] = {"policy": 1.0, "kl": stage.beta, "indexer": stage.indexer_weight}
        self.asker = Asker(stage, tokenizer, directory, stage.group)
        self._reference = _copied(weights)
        self._left_out: list[bool] = []
        self._answered: list[Answered] = []
        self._rewards: list[float] = []

    def parts(self, learner: Learner) -> Iterator[Sequence[AnswerPart]]:
        """As of `Lesson`: a step has its part of the answers that were drawn before the first step of its turn."""
        stage, step = self.stage, learner.step
        if step and step % stage.reference_interval == 0:
            self._reference = _copied(learner.weights)
        turn, update = divmod(step, stage.updates)
        model = actor(learner.weights, self.config, self.ops, stage.quantise)
        self._answered = self.asker.answers(model, turn)
        self._rewards = self._rewarded(model, turn)
        groups = np.array(self._rewards).reshape(stage.questions, stage.group)
        advantage = np.concatenate([advantages(group) for group in groups])
        rows = np.arange(len(self._answered))[update :: stage.updates]
        learnt = self._telling(rows, advantage)
        reference = actor(self._reference, self.config, Ops(), stage.quantise) if stage.beta else None
        self._left_out = []
        yield [
            AnswerPart(
                stage,
                replay_of([self._answered[row].rollout for row in some], learner.config),
                advantage[some],
                reference,
                len(some) / len(rows),
                self._left_out,
            )
            for some in (learnt[start : start + stage.part] for start in range(0, len(learnt), stage.part))
        ]

    def measures(self) -> dict[str, float]:
        """The mean reward and length of the answers, how many came to an end, and how many were left out."""
        return {
            "reward": float(np.mean(self._rewards)),
            **measures_of(self._answered),
            "left out": float(sum(self._left_out)) * self.stage.updates / len(self._answered),
        }

    def state(self) -> dict[str, Array]:
        """The reference."""
        return {f"reference.{name}": array for name, array in self._reference.items()}

    def load_state(self, state: Mapping[str, Array]) -> None:
        """As of `Lesson`."""
        for arrays in (self._reference.parameters, self._reference.others):
            for name in arrays:
                arrays[name] = state[f"reference.{name}"]

    def forget(self, step: int) -> None:
        """As of `Lesson`."""
        self.asker.forget(step)

    def _telling(self, rows: Ints, advantage: Array) -> Ints:
        """The rows whose answers say anything, at least one: from A = 0 nothing is learnt but by the other losses."""
        if self.stage.beta or self.stage.indexer_weight or not advantage[rows].any():
            return rows
        telling: Ints = rows[advantage[rows] != 0]
        return telling

    def _rewarded(self, model: Model, turn: int) -> list[float]:
        """The reward of each answer: what its world's rule or the judge says of it, less what its length costs."""
        judged = [one for one in self._answered if not one.question.world.has_rule]
        opinions = iter(judgements(model, judged, self.stage, self.tokenizer, self.asker.file(turn, "judge"), turn))
        rewards = []
        for one in self._answered:
            seen = one.score(self.tokenizer) if one.question.world.has_rule else next(opinions)
            rewards.append(checked(one.question.effort.reward(seen, len(one.rollout.answer)), one.question.world.name))
        return rewards


def checked(reward: float, world: str) -> float:
    """The reward. Raises TrainingError for one that is no finite number."""
    if not math.isfinite(reward):
        raise TrainingError(f"reward of an answer in {world}: expected a finite number, found {quoted(reward)}")
    return reward


def _copied(weights: Trainable) -> Trainable:
    """The arrays of now: an optimiser puts others in their place, and writes to none."""
    return Trainable(weights.config, dict(weights.parameters), dict(weights.others), weights.directory)
