"""What a world is: problems that a generator draws, in two splits, and a score for each answer."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_args

import numpy as np

from dsv4.arguments import integer
from dsv4.errors import ChatError, SettingError, quoted
from dsv4.text.chat import Piece, encode_pieces, parse

T = TypeVar("T")

Message = dict[str, Any]
Split = Literal["train", "held-out"]

HELD_OUT = 5
"""One task in so many is held out."""


@dataclass(frozen=True)
class Task:
    """One task: what the model is asked, and one good answer."""

    messages: tuple[Message, ...]
    """The conversation so far; the assistant's turn is next."""
    content: str
    """What a good answer says."""
    reasoning: str = ""
    """What it thinks before in mode "high"."""
    doubt: str = ""
    """What it thinks after that in mode "max"."""
    slip: str = ""
    """What it thinks there in place of the reasoning, where its doubt has something to correct."""
    tool_calls: tuple[Message, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the checker goes by."""

    def prompt(self, mode: str) -> list[Piece]:
        """The pieces that the model continues."""
        return encode_pieces(self.messages, mode)

    def conversation(self, mode: str) -> list[Piece]:
        """The same with the good answer behind it, up to the end token: what fine-tuning learns from."""
        doubted = (self.slip or self.reasoning) + self.doubt
        thoughts = {"non-think": "", "high": self.reasoning, "max": doubted}[mode]
        answer: Message = {"role": "assistant", "content": self.content, "reasoning_content": thoughts}
        if self.tool_calls:
            answer["tool_calls"] = list(self.tool_calls)
        return encode_pieces([*self.messages, answer], mode)


@dataclass(frozen=True)
class World:
    """A family of tasks."""

    name: str
    draw: Callable[[np.random.Generator], Task]
    """Any task of it."""
    check: Callable[[Task, Message], float]
    """The score of an answer, as `dsv4.text.chat.parse` reads it: from 0 to 1."""
    has_rule: bool = True
    """Whether the score may be a reward. Where it may not, a judge gives the reward, and the score is hidden from
    training: it only tells afterwards what the judge was worth."""
    labelled: int | None = None
    """How many tasks the train split has; None for no end."""

    def task(self, split: Split, number: int, seed: int = 0) -> Task:
        """The task of this number, the same whenever it is asked for. Raises SettingError for another split."""
        if split not in get_args(Split):
            raise SettingError(f"split: expected one of {', '.join(get_args(Split))}, found {quoted(split)}")
        number = integer("number", number)
        if self.labelled is not None and split == "train":
            number %= self.labelled
        place = get_args(Split).index(split)
        generator = np.random.default_rng((integer("seed", seed), *self.name.encode(), place, number))
        while True:
            task = self.draw(generator)
            if is_held_out(task) == (split == "held-out"):
                return task

    def score(self, task: Task, completion: list[Piece], mode: str) -> float:
        """What an answer is worth: 0 for one that is malformed or has no end. completion: its pieces."""
        try:
            message = parse(completion, mode)
        except ChatError:
            return 0.0
        return self.check(task, message)


def is_held_out(task: Task) -> bool:
    """Whether a task belongs to the held-out split: by what it asks alone, so that no task is in both."""
    asked = "\0".join(str(message.get("content")) for message in task.messages)
    return hashlib.sha256(asked.encode()).digest()[0] % HELD_OUT == 0


def says(task: Task, message: Message) -> float:
    """1 for an answer that says the task's content and calls no tool, else 0."""
    return float(message["content"].strip() == task.content and not message["tool_calls"])


def asked(question: str) -> tuple[Message, ...]:
    """A conversation of one question."""
    return ({"role": "user", "content": question},)


def pick(generator: np.random.Generator, some: Sequence[T]) -> T:
    """One of some things, each as likely."""
    return some[int(generator.integers(len(some)))]
