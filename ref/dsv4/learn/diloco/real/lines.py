"""A learner's lines of the tape, on their way: each arrives once and in order, whoever is killed meanwhile."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

Line = dict[str, Any]


class Tell(NamedTuple):
    """A message to the syncer, with every line that its sender does not know to have arrived."""

    sender: str
    """Which learner, in which of its lives."""
    lines: tuple[tuple[int, Line], ...]
    """Numbered from 0 in the sender's life."""
    message: Any
    """None: the lines alone."""


class Outbox:
    """The lines of one life of a learner."""

    def __init__(self, sender: str) -> None:
        """sender: which learner, in which of its lives."""
        self.sender = sender
        self._kept: dict[int, Line] = {}
        self._next = 0

    def line(self, line: Line) -> None:
        """One more."""
        self._kept[self._next] = line
        self._next += 1

    def tell(self, message: Any) -> Tell:
        """A message with what may not have arrived yet: before what follows from a line comes the line."""
        return Tell(self.sender, tuple(self._kept.items()), message)

    def arrived(self, count: int) -> None:
        """The first so many lines are there: they need not be sent again."""
        self._kept = {number: line for number, line in self._kept.items() if number >= count}


class Inbox:
    """What the syncer knows of the lines of all learners; of a tape that is there already, from its lines."""

    def __init__(self, tape: Iterable[Mapping[str, Any]] = ()) -> None:
        """tape: the lines that are there already."""
        self.counts: dict[str, int] = {}
        for line in tape:
            if "sender" in line:
                self.counts[line["sender"]] = line["number"] + 1

    def new(self, tell: Tell) -> list[Line]:
        """The lines that have not been there before, with sender and number."""
        known = self.counts.get(tell.sender, 0)
        found = [{**line, "sender": tell.sender, "number": number} for number, line in tell.lines if number >= known]
        self.counts[tell.sender] = known + len(found)
        return found
