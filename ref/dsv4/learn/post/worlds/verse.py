"""Verse: two lines that rhyme. What makes it good is in a written rubric, and no rule is the reward.

Training sees the rubric and a judge's opinion. The score by rule is hidden: it says afterwards how the verse became.
"""

import re
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from dsv4.learn.post.worlds.world import Message, Task, World, asked, pick

RUBRIC = "Rubric: rhyme, {syllables} syllables a line, two lines."
"""A point for each of the three."""

POINTS = 3

ENDINGS = (
    ("night", "light", "bright", "flight"),
    ("day", "way", "bay", "play"),
    ("tree", "free", "bee", "knee"),
    ("town", "brown", "crown", "gown"),
    ("gold", "cold", "bold", "fold"),
    ("rain", "grain", "train", "chain"),
)
"""Words that rhyme, to end lines with."""

ADJECTIVES = ("old", "red", "still", "silver", "quiet", "little")
NOUNS = ("moon", "wind", "bird", "river", "garden", "winter")
VERBS = ("sings", "calls", "waits", "wanders", "listens")
PLACES = ("at", "by the", "in a", "after the", "over a")
SYLLABLES = (6, 7, 8)

SAME_WORD = 0.3
"""Of the two lines that do not rhyme, those that end in one word: else nobody could learn that it is no rhyme."""


class Points(NamedTuple):
    """Which of the rubric's points a verse has."""

    rhyme: bool
    metre: bool
    length: bool


def points(verse: str, wanted: int) -> Points:
    """The rubric's points by rule: lines that end in different words that rhyme, `wanted` syllables each, two lines."""
    ends, counts = ends_and_syllables(verse)
    rhymes = len(ends) >= 2 and all(rhyme(one, other) for one, other in pairwise(ends))
    metre = bool(counts) and all(count == wanted for count in counts)
    return Points(rhymes, metre, len(ends) == 2)


def ends_and_syllables(verse: str) -> tuple[list[str], list[int]]:
    """The last word of each line, and its number of syllables: what the rubric's points are about."""
    lines = [words for line in verse.strip().split("\n") if (words := re.findall("[a-z]+", line.lower()))]
    return [words[-1] for words in lines], [sum(map(syllables, words)) for words in lines]


@cache
def syllables(word: str) -> int:
    """How many groups of vowels a word has, without a silent e at its end; at least one."""
    spoken = re.sub("(?<=[^aeiouy])e$", "", word) if len(word) > 3 else word
    return max(1, len(re.findall("[aeiouy]+", spoken)))


def rhyme(one: str, other: str) -> bool:
    """Whether two different words are spelt alike from their last group of vowels on."""
    return one != other and ending(one) == ending(other) != ""


def ending(word: str) -> str:
    """A word from its last group of vowels on, which its rhymes have, too."""
    found = re.search("[aeiouy]+[^aeiouy]*e?$", word)
    return found[0] if found else ""


def write(generator: np.random.Generator, wanted: int, topic: str, has: Points) -> str:
    """A verse on a topic that has these points of the rubric and lacks the others."""
    group, stranger = generator.permutation(len(ENDINGS))[:2]
    first, second = generator.permutation(ENDINGS[group])[:2]
    is_same = has.length and generator.random() < SAME_WORD
    unlike = str(first) if is_same else pick(generator, ENDINGS[stranger])
    ends = [str(first), str(second) if has.rhyme else unlike]
    if not has.length:
        ends = [*ends, str(generator.permutation([one for one in ENDINGS[group] if one not in ends])[0])]
        if not has.rhyme:
            ends = ends[:1] + ends[2:] + ends[1:2]
    counts = [wanted] * len(ends)
    if not has.metre:
        counts[int(generator.integers(len(ends)))] += pick(generator, (-1, 1))
    about = [topic, *[None] * (len(ends) - 1)]
    lines = [_line(generator, *line) for line in zip(counts, about, ends, strict=True)]
    return "\n".join(lines)


def rubric(task: Task) -> str:
    """The rubric of a task of this world, as the judge reads it."""
    return RUBRIC.format(syllables=task.facts["syllables"])


def _line(generator: np.random.Generator, wanted: int, topic: str | None, end: str) -> str:
    """A line of so many syllables, from 5 to 9, that ends in a word."""
    while True:
        noun, verb, place = topic or pick(generator, NOUNS), pick(generator, VERBS), pick(generator, PLACES)
        article, before, behind = (pick(generator, ("", *some)) for some in (("the",), ADJECTIVES, ADJECTIVES))
        words = " ".join([article, before, noun, verb, place, behind, end]).split()
        if sum(map(syllables, words)) == wanted:
            return " ".join(words)


def drawn_points(generator: np.random.Generator, chance: float) -> Points:
    """Each of the points with this chance."""
    return Points(*(bool(one) for one in generator.random(POINTS) < chance))


def _draw(generator: np.random.Generator) -> Task:
    """The good answer is one in most points: what is learned from it leaves something to be learned."""
    topic, wanted = pick(generator, NOUNS), pick(generator, SYLLABLES)
    question = f"Write two lines of {wanted} syllables that rhyme, about the {pick(generator, ADJECTIVES)} {topic}."
    verse = write(generator, wanted, topic, drawn_points(generator, 0.7))
    last = verse.split("\n")[0].split()[-1]
    facts = {"syllables": wanted}
    return Task(asked(question), verse, f"rhyme on {last}", f"; {wanted} syllables", facts=facts)


def _check(task: Task, message: Message) -> float:
    return sum(points(message["content"], task.facts["syllables"])) / POINTS


VERSE = World("verse", _draw, _check, has_rule=False)
