"""The text of a recall document, written part by part with its token ids: speeches of a play, statements, questions.

Parts are encoded one by one. Each begins with a line break or with the blank before a word and ends with a word or a
stop, where a byte-level tokenizer cuts anyway, so that together they are the ids of the whole text.
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from dsv4.learn.texts.recall_words import statement

Encode = Callable[[str], list[int]]

SMALLEST_GAP = 12
"""Tokens below which a gap is not worth a speech of the play."""

MOST_TRIES = 100
"""Speeches that may be passed over in a row before a gap stays open."""


class Answer(NamedTuple):
    """An answer that the document had given before."""

    start: int
    """Which token is the answer's first one."""
    length: int
    """How many tokens it has."""
    distance: int
    """How many tokens its start stands behind that of the same answer, last given."""

    def behind(self, tokens: int) -> "Answer":
        """The same answer with so many tokens put in front of the text."""
        return self._replace(start=self.start + tokens)


class Filler:
    """Speeches of a play in their order, from a place that is drawn; those with one of some words are passed over."""

    def __init__(
        self, plays: Sequence[Sequence[str]], without: Sequence[str], encode: Encode, generator: np.random.Generator
    ) -> None:
        self._plays, self._encode, self._generator = plays, encode, generator
        self._without = re.compile(rf"\b({'|'.join(without)})", re.IGNORECASE)
        self._speeches: list[str] = []

    def next(self, tokens: int) -> str | None:
        """The next speech, cut behind a line so that it has at most so many tokens; None where nothing fits."""
        for _ in range(MOST_TRIES):
            if not self._speeches:
                self._turn_to_a_place()
            speech = self._speeches.pop()
            if not self._without.search(speech) and (cut := self._cut(f"\n\n{speech}", tokens)):
                return cut
        return None

    def _turn_to_a_place(self) -> None:
        lengths = np.array([len(play) for play in self._plays])
        chosen = int(self._generator.integers(lengths.sum()))
        play = int(np.searchsorted(np.cumsum(lengths), chosen, side="right"))
        first = chosen - int(lengths[:play].sum())
        self._speeches = list(self._plays[play][first:])[::-1]

    def _cut(self, text: str, tokens: int) -> str | None:
        """The text up to the last line with which it has at most so many tokens; it has a speaker and a line more."""
        kept, count = "", 0
        for line in re.findall(r"\n*[^\n]+", text):
            count += len(self._encode(line))
            if count > tokens:
                break
            kept += line
        return kept if kept.count("\n") > 2 else None


class Writer:
    """Text that grows, its token ids, and the answers in it that were given before."""

    def __init__(self, encode: Encode, asker: str, teller: str, most: int) -> None:
        """most: how many tokens the text may have."""
        self._encode, self._asker, self._teller, self._most = encode, asker, teller, most
        self._last: dict[str, int] = {}
        self._teller_speaks = False
        self.text, self.ids = "", list[int]()
        self.answers: list[Answer] = []
        self._add(f"[Enter {asker} and {teller}]")

    def fill(self, filler: Filler, until: int) -> None:
        """Let the play go on until the text has about so many tokens, and never more."""
        while (gap := until - len(self.ids)) >= SMALLEST_GAP and (speech := filler.next(gap)):
            self._add(speech)
            self._teller_speaks = False

    def say(self, question: str | None, key: str, answer: str, nearest: int) -> None:
        """State a fact: for the first time, or again, after a question if there is one.

        Nothing is written where the text would get too long, or where the answer would stand less than `nearest`
        tokens behind where it stood last.
        """
        known = key in self._last
        asks = known and question is not None
        before = f"\n\n{self._asker}.\n{question.format(key=key)}" if asks and question else ""
        before += "\n" if self._teller_speaks and not asks else f"\n\n{self._teller}.\n"
        stated, _, rest = statement(key, answer).partition(f" {answer}")
        parts = [self._encode(part) for part in (before + stated, f" {answer}", rest)]
        start = len(self.ids) + len(parts[0])
        distance = start - self._last.get(key, start)
        if len(self.ids) + sum(map(len, parts)) > self._most or (known and distance < nearest):
            return
        for part in (before + stated, f" {answer}", rest):
            self._add(part)
        if known:
            self.answers.append(Answer(start, len(parts[1]), distance))
        self._last[key] = start
        self._teller_speaks = True

    def _add(self, part: str) -> None:
        self.text += part
        self.ids += self._encode(part)
