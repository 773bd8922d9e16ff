"""Fine-tuning on the teachers' own answers: the student reads what it should say, and never says anything itself.

Not in the report, which distils in the student's answers instead (`distillation`): a comparison.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from dsv4.config import Config
from dsv4.learn.learner import Learner
from dsv4.learn.post.answers import Answered, Asker, measures_of
from dsv4.learn.post.fine_tuning import Conversation, ConversationPart, part_of
from dsv4.learn.post.recipe import Imitation
from dsv4.learn.post.rollout_log import Rollout
from dsv4.learn.post.teachers import TeacherModel
from dsv4.ops import Ops
from dsv4.ops.types import Array
from dsv4.text.tokenizer import Tokenizer


class Imitating:
    """The lesson of a stage of imitation."""

    def __init__(
        self,
        stage: Imitation,
        config: Config,
        tokenizer: Tokenizer,
        teachers: Sequence[Path],
        directory: Path,
        ops: Ops,
    ) -> None:
        """Arguments and errors as of `Distillation`."""
        self.stage, self.tokenizer, self.ops = stage, tokenizer, ops
        self.teachers = [TeacherModel(path, tokenizer, config.vocab_size) for path in teachers]
        self.weights: Mapping[str, float] = {"sft": 1.0, "indexer": stage.indexer_weight}
        self.askers = [
            Asker(stage, tokenizer, directory / f"teacher-{number}", group=1) for number in range(len(stage.teachers))
        ]
        self._answered: list[Answered] = []

    def parts(self, learner: Learner) -> Iterator[Sequence[ConversationPart]]:
        """As of `Lesson`: a run for each teacher, which answers the questions of its own worlds."""
        stage = self.stage
        turn, update = divmod(learner.step, stage.updates)
        self._answered = []
        for taught, teacher, asker in zip(stage.teachers, self.teachers, self.askers, strict=True):
            answered = asker.answers(teacher.actor(self.ops), turn, taught.worlds) if taught.weight else []
            self._answered += answered
            some = sorted(
                (read(one.rollout) for one in answered[update :: stage.updates]), key=lambda one: len(one.ids)
            )
            total = sum(int(one.said.sum()) for one in some)
            runs = [some[start : start + stage.part] for start in range(0, len(some), stage.part)]
            parts = [part_of(rows, total, stage.indexer_weight > 0) for rows in runs]
            yield [part._replace(share=taught.weight * part.share) for part in parts]

    def measures(self) -> dict[str, float]:
        """The mean score and length of the teachers' answers, and how many came to an end."""
        score = float(np.mean([one.score(self.tokenizer) for one in self._answered]))
        return {"score": score, **measures_of(self._answered)}

    def state(self) -> dict[str, Array]:
        """Nothing: answers are on disk."""
        return {}

    def load_state(self, state: Mapping[str, Array]) -> None:
        """There is nothing to load."""

    def forget(self, step: int) -> None:
        """As of `Lesson`."""
        for asker in self.askers:
            asker.forget(step)


def read(rollout: Rollout) -> Conversation:
    """An answer as a conversation to learn from: what was drawn is said."""
    ids = np.concatenate([rollout.prompt, rollout.answer])
    return Conversation(ids, np.arange(len(ids)) >= len(rollout.prompt))
