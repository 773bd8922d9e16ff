"""What a model scores on held-out tasks: in verse by the hidden rule, everywhere else by the rule of the reward."""

from typing import NamedTuple

import numpy as np

from dsv4.arguments import integer
from dsv4.errors import SettingError, quoted
from dsv4.learn.post.efforts import Effort
from dsv4.learn.post.questions import Question
from dsv4.learn.post.worlds import WORLDS
from dsv4.model.model import Model
from dsv4.text.generate import generate
from dsv4.text.tokenizer import Tokenizer


class Scores(NamedTuple):
    """Means over tasks."""

    score: float
    """From 0 to 1."""
    tokens: float
    """Of an answer, its end included."""
    ended: float
    """The share of answers that came to an end in their window."""


def score(
    model: Model,
    tokenizer: Tokenizer,
    world: str,
    effort: Effort,
    tasks: int = 100,
    seed: int = 0,
    temperature: float = 0.0,
) -> Scores:
    """Answer held-out tasks of a world, greedily unless said otherwise, and score the answers.

    model: of any backend; effort: the mode and the window; seed: of the tasks and of the draws. Raises SettingError for
    an unknown world, and as `dsv4.generate` does.
    """
    if world not in WORLDS:
        raise SettingError(f"world: expected one of {', '.join(WORLDS)}, found {quoted(world)}")
    count = integer("tasks", tasks, least=1)
    asked = [Question(WORLDS[world], WORLDS[world].task("held-out", number, seed), effort) for number in range(count)]
    prompts = [one.prompt(tokenizer).tolist() for one in asked]
    answers: list[list[int]] = [[] for _ in asked]
    for token in generate(model, prompts, effort.window, temperature, seed=seed):
        answers[token.sequence].append(token.id)
    scores = [one.score(np.array(answer), tokenizer) for one, answer in zip(asked, answers, strict=True)]
    ended = [answer[-1] in model.config.eos_token_ids for answer in answers]
    return Scores(float(np.mean(scores)), float(np.mean([len(answer) for answer in answers])), float(np.mean(ended)))
