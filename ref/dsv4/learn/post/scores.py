"""What a model scores on held-out tasks: in verse by the hidden rule, everywhere else by the rule of the reward."""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from dsv4.arguments import integer
from dsv4.errors import SettingError, quoted
from dsv4.learn.post.efforts import Effort
from dsv4.learn.post.judge import MODE, WINDOW, judgement
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
    answers = _answers(model, tokenizer, asked, temperature, seed)
    scores = [one.score(np.array(answer), tokenizer) for one, answer in zip(asked, answers, strict=True)]
    ended = [answer[-1] in model.config.eos_token_ids for answer in answers]
    return Scores(float(np.mean(scores)), float(np.mean([len(answer) for answer in answers])), float(np.mean(ended)))


def judge_agreement(model: Model, tokenizer: Tokenizer, verses: int = 100, seed: int = 0) -> float:
    """How often the model, as a judge, puts two held-out verses in the order that the rubric's rule puts them in.

    Greedily; see `agreement`. model, tokenizer, seed: as of `score`; verses: from whose pairs it is taken.
    """
    effort, judging = Effort(MODE, WINDOW, 0), WORLDS["judging"]
    count = integer("verses", verses, least=2)
    asked = [Question(judging, judging.task("held-out", number, seed), effort) for number in range(count)]
    answers = _answers(model, tokenizer, asked, 0.0, seed)
    opinions = [judgement(np.array(answer), tokenizer) for answer in answers]
    return agreement([one.task.facts["score"] for one in asked], opinions)


def agreement(labels: Sequence[float], opinions: Sequence[float]) -> float:
    """Of all pairs with different labels, the share whose opinions differ in the same direction; equal ones count half.

    Raises SettingError where all labels are the same. So 1 is a judge that is always right, and ½ one by lot.
    """
    found = [
        (1 + np.sign(labels[one] - labels[other]) * np.sign(opinions[one] - opinions[other])) / 2
        for one, other in combinations(range(len(labels)), 2)
        if labels[one] != labels[other]
    ]
    if not found:
        raise SettingError(f"labels: expected two that differ, found {len(labels)} that do not")
    return float(np.mean(found))


def _answers(
    model: Model, tokenizer: Tokenizer, asked: Sequence[Question], temperature: float, seed: int
) -> list[list[int]]:
    """The tokens of an answer to each question; all have one window."""
    prompts = [one.prompt(tokenizer).tolist() for one in asked]
    answers: list[list[int]] = [[] for _ in asked]
    for token in generate(model, prompts, asked[0].effort.window, temperature, seed=seed):
        answers[token.sequence].append(token.id)
    return answers
