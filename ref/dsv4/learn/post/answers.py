"""Questions and the answers that were drawn to them, one file of rollouts for each turn of a stage."""

from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dsv4.errors import PromptError, TrainingError, reason
from dsv4.learn.post.questions import Question, questions
from dsv4.learn.post.recipe import Sampled
from dsv4.learn.post.rollout_log import Rollout
from dsv4.learn.post.rollouts import Drawing, draw_rollouts
from dsv4.learn.post.worlds import WORLDS
from dsv4.model.model import Model
from dsv4.text.tokenizer import Tokenizer


class Answered(NamedTuple):
    """A question, an answer to it, and whether the answer has an end: else it has filled its window."""

    question: Question
    rollout: Rollout
    ended: bool

    def score(self, tokenizer: Tokenizer) -> float:
        """What the world's checker says of it."""
        return self.question.score(self.rollout.answer, tokenizer)


class Asker:
    """Draws the answers of a stage's turns; what was drawn is on disk and is not drawn again."""

    def __init__(self, stage: Sampled, tokenizer: Tokenizer, directory: Path, group: int) -> None:
        """directory: where the files are to be; group: answers to each question."""
        self.stage, self.tokenizer, self.directory, self.group = stage, tokenizer, directory, group

    def answers(self, model: Model, turn: int, worlds: Collection[str] = WORLDS) -> list[Answered]:
        """Those of a turn to questions of these worlds: every answer to the first question, then to the second, …

        Windows differ between efforts, so that each effort has a file of its own. Raises TrainingError as
        `draw_rollouts` does, and PromptError that names the world where a window does not fit.
        """
        stage = self.stage
        asked = questions(stage, turn * stage.questions, stage.questions)
        asked = [one for one in asked if one.world.name in worlds]
        found: dict[int, list[Answered]] = {}
        for number, effort in enumerate(dict.fromkeys(one.effort for one in asked)):
            places = [place for place, one in enumerate(asked) if one.effort == effort]
            prompts = [asked[place].prompt(self.tokenizer) for place in places for _ in range(self.group)]
            drawing = Drawing(effort.window, stage.temperature, stage.top_p, drawing_seed(stage.seed, turn, number))
            try:
                rollouts = draw_rollouts(model, prompts, drawing, self.file(turn, f"{number}-{effort.mode}"))
            except PromptError as error:
                worlds = ", ".join(dict.fromkeys(asked[place].world.name for place in places))
                raise PromptError(f"stage {stage.name}, {worlds} in mode {effort.mode}: {error}") from error
            for number_of_row, place in enumerate(places):
                of_question = rollouts[number_of_row * self.group : (number_of_row + 1) * self.group]
                found[place] = [Answered(asked[place], one, _ended(one, model)) for one in of_question]
        return [one for place in range(len(asked)) for one in found[place]]

    def file(self, turn: int, name: str) -> Path:
        """Where the rollouts of a turn are. Raises TrainingError where there can be no such directory."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            found = reason(error)
            raise TrainingError(f"{self.directory}: expected a directory to write to, found: {found}") from error
        return self.directory / f"{turn:08}-{name}.jsonl"

    def forget(self, step: int) -> None:
        """Delete the files of the turns before the one that a step belongs to."""
        for file in self.directory.glob("*.jsonl") if self.directory.exists() else ():
            if file.name < f"{step // self.stage.updates:08}":
                with suppress(FileNotFoundError):
                    file.unlink()


def measures_of(answered: Sequence[Answered]) -> dict[str, float]:
    """What every stage logs of its answers: their mean length in tokens, and the share that came to an end."""
    return {
        "tokens": float(np.mean([len(one.rollout.answer) for one in answered])),
        "ended": float(np.mean([one.ended for one in answered])),
    }


def drawing_seed(*numbers: int) -> int:
    """A seed of its own for each turn and effort of a stage."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def _ended(rollout: Rollout, model: Model) -> bool:
    return int(rollout.answer[-1]) in model.config.eos_token_ids
