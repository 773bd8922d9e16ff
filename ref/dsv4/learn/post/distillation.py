"""On-policy distillation: the student answers, and a teacher says what it would have said (report §5.1.2)."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dsv4.config import Config
from dsv4.learn.gradients import LOSSES, Pass
from dsv4.learn.learner import Learner
from dsv4.learn.losses.opd import opd, opd_covering
from dsv4.learn.post.actor import actor
from dsv4.learn.post.answers import Answered, Asker, measures_of
from dsv4.learn.post.recipe import OPD
from dsv4.learn.post.replay import Replay, replay_of, replayed
from dsv4.learn.post.teachers import TeacherModel
from dsv4.learn.trainable import TrainableModel
from dsv4.ops import Ops
from dsv4.ops.types import Array
from dsv4.text.tokenizer import Tokenizer


class TaughtPart(NamedTuple):
    """Some answers of a step, and what their teacher thinks of them."""

    replay: Replay
    hidden: Array
    """[tokens, d]: the teacher's last hidden state at each drawn token, row by row."""
    head: Array
    """[vocab, d] of the teacher."""
    share: float
    indexer: bool
    front: str
    """As of `OPD`."""

    @property
    def tokens(self) -> int:
        """The drawn ones."""
        return len(self.hidden)

    def losses(self, model: TrainableModel) -> dict[str, Any]:
        """As of `Part`."""
        with replayed(model, self.replay):
            run = Pass(model, self.replay.ids, self.replay.mask, observes=self.indexer)
        teacher = np.zeros(run.logits.shape, run.logits.dtype)
        teacher[self.replay.drawn] = self.hidden @ self.head.T
        divergence = {"student": opd, "teacher": opd_covering}[self.front]
        found = {"opd": divergence(run.logits, teacher, self.replay.drawn)}
        return found | ({"indexer": LOSSES["indexer"].compute(run)} if self.indexer else {})


class Distillation:
    """The lesson of a stage of distillation."""

    def __init__(
        self, stage: OPD, config: Config, tokenizer: Tokenizer, teachers: Sequence[Path], directory: Path, ops: Ops
    ) -> None:
        """teachers: the checkpoints of the stage's teachers, in its order; config, directory and ops: as for
        `Reinforcement`. Raises TrainingError for a teacher with another vocabulary."""
        self.stage, self.config, self.tokenizer, self.ops = stage, config, tokenizer, ops
        self.teachers = [TeacherModel(path, tokenizer, config.vocab_size) for path in teachers]
        self.weights: Mapping[str, float] = {"opd": 1.0, "indexer": stage.indexer_weight}
        self.asker = Asker(stage, tokenizer, directory, group=1)
        self._answered: list[Answered] = []

    def parts(self, learner: Learner) -> Iterator[Sequence[TaughtPart]]:
        """As of `Lesson`: a run for each teacher, whose head is forgotten before the next one's is read."""
        stage = self.stage
        turn, update = divmod(learner.step, stage.updates)
        self._answered = self.asker.answers(actor(learner.weights, self.config, self.ops, stage.quantise), turn)
        mine = self._answered[update :: stage.updates]
        for number, taught in enumerate(stage.teachers):
            some = [one.rollout for one in mine if one.question.world.name in taught.worlds]
            if not some or not taught.weight:
                continue
            teacher, file = self.teachers[number], self._file(learner.step, number)
            hidden = teacher.hidden(some, stage.part, self.ops, file)
            ends = np.cumsum([len(one.answer) for one in some])
            head = teacher.head()
            run = []
            for start in range(0, len(some), stage.part):
                rows = some[start : start + stage.part]
                tokens = slice(ends[start] - len(some[start].answer), ends[start + len(rows) - 1])
                share = taught.weight * len(rows) / len(some)
                replay = replay_of(rows, learner.config)
                run.append(TaughtPart(replay, hidden[tokens], head, share, stage.indexer_weight > 0, stage.front))
            yield run
            run.clear()
            del head, hidden

    def measures(self) -> dict[str, float]:
        """The mean score and length of the student's answers, and how many came to an end."""
        score = float(np.mean([one.score(self.tokenizer) for one in self._answered]))
        return {"score": score, **measures_of(self._answered)}

    def state(self) -> dict[str, Array]:
        """Nothing: answers and hidden states are on disk."""
        return {}

    def load_state(self, state: Mapping[str, Array]) -> None:
        """There is nothing to load."""

    def forget(self, step: int) -> None:
        """As of `Lesson`."""
        self.asker.forget(step)
        for file in self.asker.directory.glob("*.npy") if self.asker.directory.exists() else ():
            if file.name < f"{step:08}":
                with suppress(FileNotFoundError):
                    file.unlink()

    def _file(self, step: int, teacher: int) -> Path:
        """Where the hidden states of a step's answers of a teacher are."""
        return self.asker.directory / f"{step:08}-teacher-{teacher}.npy"
