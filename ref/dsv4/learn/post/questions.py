"""Which tasks a step asks: a function of the stage and of the step alone, so that a run can be resumed."""

from typing import NamedTuple

import numpy as np

from dsv4.learn.post.efforts import Effort
from dsv4.learn.post.recipe import Stage
from dsv4.learn.post.worlds import WORLDS, Task, World
from dsv4.ops.types import Ints
from dsv4.text.tokenizer import Tokenizer


class Question(NamedTuple):
    """A task, and in which mode it is asked."""

    world: World
    task: Task
    effort: Effort

    def prompt(self, tokenizer: Tokenizer) -> Ints:
        """[P] token ids."""
        return np.array(tokenizer.encode_pieces(self.task.prompt(self.effort.mode)), np.int64)

    def score(self, answer: Ints, tokenizer: Tokenizer) -> float:
        """What the world's checker gives for an answer [n], from 0 to 1; 0 for one without an end."""
        return self.world.score(self.task, tokenizer.decode_pieces(answer.tolist()), self.effort.mode)


def questions(stage: Stage, first: int, count: int) -> list[Question]:
    """The questions first … first + count − 1 of a stage: worlds in turn, and for each of them efforts in turn.

    A world that the stage names twice is asked twice in each turn, and never for the same task.
    """
    found = []
    for number in range(first, first + count):
        turn, place = divmod(number, len(stage.worlds))
        name = stage.worlds[place]
        asked_before = turn * stage.worlds.count(name) + stage.worlds[:place].count(name)
        efforts = stage.efforts_of(name)
        effort = efforts[asked_before % len(efforts)]
        found.append(Question(WORLDS[name], WORLDS[name].task("train", asked_before, stage.seed), effort))
    return found
