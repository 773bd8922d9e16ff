"""Plays as plain text, read as scenes of speeches, and turned into conversations.

The form is that of Project Gutenberg's editions: paragraphs between blank lines; a speech is one whose first line is a
name, with a full stop or in capitals; what stands in brackets is a stage direction.
"""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

SPEAKER = re.compile(r"[A-Z0-9][A-Za-z0-9' ]{0,30}\.|[A-Z][A-Z ]{1,30}")
HEADING = re.compile(r"(act|scene|persons|dramatis)\b", re.IGNORECASE)
HEADING_OR_NAME = re.compile(r"(prologue|epilogue)\b", re.IGNORECASE)


class Speech(NamedTuple):
    """What somebody says, without stage directions."""

    speaker: str
    words: str

    @property
    def text(self) -> str:
        """The speech as the play prints it: the name on a line of its own, then the words."""
        return f"{self.speaker}.\n{self.words}"


def tidy(text: str) -> str:
    """The text without blanks at the ends of lines, and with no more than one blank line in a row."""
    lines = "\n".join(line.rstrip() for line in text.splitlines())
    return re.sub(r"\n{3,}", "\n\n", lines).strip() + "\n"


def scenes(text: str) -> list[list[Speech]]:
    """The speeches of each scene of a tidy play; scenes without any are left out.

    A paragraph without a speaker goes on with the speech before it; headings of acts and scenes begin a new scene.
    A prologue or epilogue is a heading where no words follow in its paragraph, and else somebody who speaks. What
    stands before the first speaker of a scene is left out.
    """
    found: list[list[Speech]] = [[]]
    for paragraph in text.split("\n\n"):
        first, _, rest = paragraph.strip().partition("\n")
        is_speech = rest and SPEAKER.fullmatch(first)
        words = _without_directions(rest if is_speech else paragraph)
        if HEADING.match(first) or (HEADING_OR_NAME.match(first) and not (words and is_speech)):
            found.append([])
        elif words and is_speech:
            found[-1].append(Speech(first.removesuffix("."), words))
        elif words and found[-1]:
            speaker, before = found[-1].pop()
            found[-1].append(Speech(speaker, f"{before}\n{words}"))
    return [scene for scene in found if scene]


def conversations(scene: Iterable[Speech], characters: int) -> list[list[dict[str, Any]]]:
    """A scene as conversations in V4's chat format: a speech of the user is answered by the next one.

    characters: a conversation ends with the first answer by which it is as long as this. A speech that would stay
    without an answer is left out.
    """
    found: list[list[dict[str, Any]]] = []
    speeches = list(scene)
    length = characters  # so that the first pair begins a conversation
    for question, answer in zip(speeches[::2], speeches[1::2], strict=False):
        if length >= characters:
            found.append([])
            length = 0
        found[-1].append({"role": "user", "content": question.words})
        found[-1].append({"role": "assistant", "content": answer.words})
        length += len(question.words) + len(answer.words)
    return found


def _without_directions(text: str) -> str:
    return tidy(re.sub(r"\[[^\]]*\]?", "", text)).strip()
