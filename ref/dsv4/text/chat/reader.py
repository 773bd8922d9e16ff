"""A position in a completion that moves forward over what the format allows there."""

import re
from bisect import bisect_left
from collections.abc import Collection, Iterable

from dsv4.errors import ChatError
from dsv4.text.chat.pieces import CONTROL_PATTERN, Control, Piece, join

_HALF_A_CHARACTER = "\ufffd"
"""What stands for the bytes of a character whose last ones are missing, where a completion was cut."""


class TextEndedError(Exception):
    """The text is the beginning of a well-formed completion, but stops too early."""


class Reader:
    """Reads a completion from its beginning to its end.

    A literal is a fixed text of the format. It stands in the completion only where both its characters and its
    control tokens do: a control token's text alone does not make one.

    Attributes:
        text: the text of the whole completion.
        position: where reading goes on, in characters from 0.
        kept: how far the text has gone into the message.
    """

    def __init__(self, pieces: Iterable[Piece]) -> None:
        """Begin at the beginning of `pieces`."""
        pieces = list(pieces)
        self.text = join(pieces)
        self.position = 0
        self.kept = 0
        self._ended = False  # while something was read, which therefore may be incomplete
        self._controls: list[tuple[int, str]] = []  # where each control token begins, and its text
        position = 0
        for piece in pieces:
            if isinstance(piece, Control):
                self._controls.append((position, piece.text))
            position += len(piece.text)

    def keep(self) -> None:
        """Note that the text before the position is in the message."""
        self.kept = self.position

    def stands_here(self, literal: str) -> bool:
        """Tell whether `literal` is what comes next."""
        controls = [(self.position + match.start(), match.group()) for match in CONTROL_PATTERN.finditer(literal)]
        first = self._index_of_next_control(self.position)
        after = self._index_of_next_control(self.position + len(literal))
        return self.text.startswith(literal, self.position) and self._controls[first:after] == controls

    def expect(self, *literals: str) -> str:
        """Read one of `literals` and give it.

        Raises TextEndedError where the text ends before it is whole, ChatError where something else comes.
        """
        for literal in literals:
            if self.stands_here(literal):
                self.position += len(literal)
                return literal
        expected = " or ".join(repr(literal) for literal in literals)
        rest = self.text[self.position :]
        if self._ended:
            self.position = len(self.text)
            raise TextEndedError(self.describe(expected))
        if any(literal.startswith(rest) for literal in literals) and self.stands_here(rest):
            raise TextEndedError(self.describe(expected))
        raise ChatError(self.describe(expected))

    def expect_nothing_more(self) -> None:
        """Raise ChatError unless the completion ends here."""
        if self.position < len(self.text):
            raise ChatError(self.describe("nothing after the end token"))

    def read_until(self, *literals: str, stops: Collection[str] = ()) -> str:
        """Read any text up to that one of `literals` whose control token comes next, or up to that token.

        `stops` are the control tokens that end the text, without any all do. Where none follows, the text was cut:
        what may be the beginning of a literal, or of a character, is not read.
        """
        start = self.position
        end, token = self._next_control(stops)
        firsts = [(literal, match) for literal in literals if (match := CONTROL_PATTERN.search(literal))]
        if token:
            tails = [literal[: first.start()] for literal, first in firsts if first.group() == token]
        else:
            self._ended = True
            begun = [literal[:length] for literal, first in firsts for length in range(first.end())]
            tails = [*begun, _HALF_A_CHARACTER]
        length = max((len(tail) for tail in tails if self.text.endswith(tail, start, end)), default=0)
        self.position = end - length
        return self.text[start : self.position]

    def read_until_match(self, pattern: re.Pattern[str]) -> str:
        """Read any text up to where `pattern` first matches it, else up to a double quote or the next control token."""
        start = self.position
        end, token = self._next_control()
        match = pattern.search(self.text, start, end)
        self._ended = match is None and not token
        self.position = match.start() if match else start + len(self.text[start:end].partition('"')[0])
        return self.text[start : self.position]

    def describe(self, expected: str) -> str:
        """Give the message of an error at this position."""
        found = repr(self.text[self.position : self.position + 40]) if self.position < len(self.text) else "the end"
        return f"completion: expected {expected}, found {found} at character {self.position}"

    def _next_control(self, tokens: Collection[str] = ()) -> tuple[int, str]:
        """Give where the next control token begins, or the next of `tokens`, and its text; "" where there is none."""
        for index in range(self._index_of_next_control(self.position), len(self._controls)):
            start, token = self._controls[index]
            if not tokens or token in tokens:
                return start, token
        return len(self.text), ""

    def _index_of_next_control(self, position: int) -> int:
        return bisect_left(self._controls, (position, ""))
