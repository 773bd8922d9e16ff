"""Pieces of a prompt: which characters are control tokens of the format, and which are only text.

In a plain string the two look alike: a user who types `<｜Assistant｜>` would write a control token. A list of pieces
keeps them apart until the tokenizer has turned each into ids.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dsv4.text.chat.templates import CONTROL_TOKENS


def control_pattern(tokens: Sequence[str]) -> re.Pattern[str]:
    """Give the pattern that matches the text of any of these control tokens."""
    return re.compile("|".join(re.escape(token) for token in tokens))


CONTROL_PATTERN = control_pattern(CONTROL_TOKENS)
"""Matches the text of any control token of V4's format, and so all that the fixed texts within an answer have."""


@dataclass(frozen=True)
class Control:
    """One control token that the format itself writes, such as `<｜User｜>`; it becomes exactly one token id."""

    text: str


@dataclass(frozen=True)
class Text:
    """A run of ordinary text; whatever it contains, it never becomes a control token."""

    text: str


Piece = Control | Text


def join(pieces: Iterable[Piece]) -> str:
    """Give the text of pieces.

    Args:
        pieces: what `encode_pieces` returns.

    Returns:
        The pieces' texts joined, which is exactly what `encode` returns for the same arguments.
    """
    return "".join(piece.text for piece in pieces)


class PieceBuilder:
    """Collects a prompt and merges neighbouring text, so that the tokenizer sees whole runs of text."""

    def __init__(self, control_tokens: Sequence[str] = CONTROL_TOKENS) -> None:
        """control_tokens: of the format, V4's or V4.1's."""
        self._pattern = control_pattern(control_tokens)
        self._pieces: list[Piece] = []

    def template(self, text: str) -> None:
        """Add a fixed text of the format: the control tokens in it are control tokens."""
        position = 0
        for match in self._pattern.finditer(text):
            self.content(text[position : match.start()])
            self._pieces.append(Control(match.group()))
            position = match.end()
        self.content(text[position:])

    def content(self, text: str) -> None:
        """Add somebody's words: nothing in them is a control token."""
        if not text:
            return
        if self._pieces and isinstance(last := self._pieces[-1], Text):
            self._pieces[-1] = Text(last.text + text)
        else:
            self._pieces.append(Text(text))

    def finish(self) -> list[Piece]:
        """Give the pieces collected so far."""
        return list(self._pieces)
