"""Judging verse by a rubric: a small labelled set, from which the model that writes learns to judge (report §5.1.1).

Nearest published recipe (DeepSeekMath-V2): the judge's reward is that of the form times 1 − |s′ − s|.
"""

import re

import numpy as np

from dsv4.learn.post.worlds.verse import (
    NOUNS,
    POINTS,
    RUBRIC,
    SYLLABLES,
    drawn_points,
    ending,
    ends_and_syllables,
    points,
    write,
)
from dsv4.learn.post.worlds.world import Message, Task, World, asked, pick

LABELLED = 2048
"""How many labelled verses there are to learn from."""


def judged(message: Message) -> float | None:
    """The score s′ that a judgement gives, from 0 to 1; None where it has not the form "Score: 2"."""
    found = re.fullmatch(r"\s*Score: ([0-9])\s*", message["content"])
    if found is None or message["tool_calls"] or int(found[1]) > POINTS:
        return None
    return int(found[1]) / POINTS


def judge_reward(judgement: float | None, label: float) -> float:
    """format · (1 − |s′ − s|): 0 without the form. judgement s′ and label s from 0 to 1."""
    return 0.0 if judgement is None else 1 - abs(judgement - label)


def question(rubric: str, verse: str) -> tuple[Message, ...]:
    """The conversation in which a verse is judged."""
    return asked(f"{rubric}\n{verse.strip()}\nScore?")


def _draw(generator: np.random.Generator) -> Task:
    wanted = pick(generator, SYLLABLES)
    verse = write(generator, wanted, pick(generator, NOUNS), drawn_points(generator, 0.5))
    found = points(verse, wanted)
    words, counts = ends_and_syllables(verse)
    ends = ", ".join(f"{word} {ending(word)}" for word in words)
    rhyme, metre, length = (f"{name} {'yes' if has else 'no'}" for name, has in found._asdict().items())
    thoughts = f"{ends}, {rhyme}, {' '.join(map(str, counts))}, {metre}, {length}"
    score = sum(found)
    asks = question(RUBRIC.format(syllables=wanted), verse)
    return Task(asks, f"Score: {score}", thoughts, f"; {score} of {POINTS}", facts={"score": score / POINTS})


def _check(task: Task, message: Message) -> float:
    return judge_reward(judged(message), task.facts["score"])


JUDGING = World("judging", _draw, _check, labelled=LABELLED)
