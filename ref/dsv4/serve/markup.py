"""An answer as it streams: reasoning, content and tool calls, apart from the markup that stands between them.

`dsv4.text.chat.parse` reads a whole answer; this reads the same format, piece by piece, and gives out what is certain.
What could still turn out to be markup is held back. Control tokens are kept as single characters that no text has, so
that text which only looks like one is text.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from dsv4.errors import shortened
from dsv4.text.chat import templates as t
from dsv4.text.chat.json_text import read_json
from dsv4.text.chat.pieces import CONTROL_PATTERN, Control, Piece
from dsv4.text.chat.tags import V4_TAGS, Tags

FIRST_CONTROL = 0xD800
"""Half a surrogate pair: decoded text has none."""

_CONTROL = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Reasoning:
    """More of the reasoning."""

    text: str


@dataclass(frozen=True)
class Content:
    """More of the answer itself."""

    text: str


@dataclass(frozen=True)
class CallBegun:
    """A call of a tool; its arguments follow."""

    number: int
    """Counts from 0."""
    name: str


@dataclass(frozen=True)
class Arguments:
    """More of the JSON text of the arguments of the call that began last."""

    number: int
    text: str


@dataclass(frozen=True)
class CallEnded:
    """The arguments of a call are whole."""

    number: int


Part = Reasoning | Content | CallBegun | Arguments | CallEnded


class Markup:
    """Reads one answer. Joined, its parts are what `chat.parse` makes of the whole answer.

    Attributes:
        thinking: whether the reasoning has not ended.
        in_calls: whether the block of tool calls has begun.
        ended: whether the end token has come, or something that the format does not have there.
        malformed: what was expected instead and what was found; "" for an answer that is well formed so far.
    """

    def __init__(self, thinking: bool, tags: Tags = V4_TAGS) -> None:
        """thinking: whether the answer begins with reasoning. tags: of the format, V4's or V4.1's."""
        self._tags = tags
        self.thinking = thinking
        self.in_calls = self.ended = False
        self.malformed = ""
        self._text = ""  # what was not given out, control tokens as characters
        self._controls: dict[str, str] = {}  # the character of each control token
        for token in (t.DSML, t.END, t.END_THINK):
            self._character(token)
        self._dsml, self._end = self._controls[t.DSML], self._controls[t.END]
        self._parts: list[Part] = []
        self._state: Callable[[], bool] = self._reasoning if thinking else self._content
        self._number = -1  # of the call
        self._names: set[str] = set()  # of its parameters
        self._name = ""  # of the parameter

    def push(self, piece: Piece) -> list[Part]:
        """The parts that are certain, now that this piece has come."""
        self._text += self._character(piece.text) if isinstance(piece, Control) else piece.text
        self._parts = []
        while not self.ended and self._state():
            pass
        return self._parts

    def _reasoning(self) -> bool:
        """Reasoning, up to the token that ends it."""
        text, control = self._to_control()
        self._give(Reasoning(text), text)
        self._text = self._text[len(text) :]
        if not control:
            return False
        self.thinking = False
        return self._expect({self._literal(t.END_THINK): self._content})

    def _content(self) -> bool:
        """The answer, up to the end token or to a block of tool calls."""
        opening = self._literal(self._tags.calls_open)
        before = opening.partition(self._dsml)[0]
        text, control = self._to_control()
        held = _overlap(text, before)
        if (control == self._dsml and held == len(before)) or not control:
            text = text[: len(text) - held]
        self._give(Content(text), text)
        self._text = self._text[len(text) :]
        return bool(control) and self._expect({opening: self._first_call, self._end: self._finish})

    def _first_call(self) -> bool:
        self.in_calls = True
        return self._expect({self._literal(self._tags.invoke_open): self._call_name})

    def _call_name(self) -> bool:
        """The tool's name, which may hold double quotes: it ends where the parameters, or the end of the call, come."""
        name, control = self._to_control()
        if not control:
            return False
        tails = [
            self._literal(t.INVOKE_NAME_CLOSE + following).partition(self._dsml)[0]
            for following in (
                self._tags.parameter_open,
                self._tags.invoke_close,
                t.NO_PARAMETERS + self._tags.invoke_close,
            )
        ]
        length = max((len(tail) for tail in tails if control == self._dsml and name.endswith(tail)), default=0)
        name, self._text = name[: len(name) - length], self._text[len(name) - length :]
        if not self._expect({t.INVOKE_NAME_CLOSE: self._first_parameter}):
            return False
        self._number, self._names = self._number + 1, set()
        self._parts += [CallBegun(self._number, name), Arguments(self._number, "{")]
        return True

    def _first_parameter(self) -> bool:
        ways = {self._tags.parameter_open: self._parameter_name, self._tags.invoke_close: self._call_end}
        ways[t.NO_PARAMETERS + self._tags.invoke_close] = self._call_end
        return self._expect({self._literal(literal): state for literal, state in ways.items()})

    def _next_parameter(self) -> bool:
        ways = {self._tags.parameter_open: self._parameter_name, self._tags.invoke_close: self._call_end}
        return self._expect({self._literal(literal): state for literal, state in ways.items()})

    def _parameter_name(self) -> bool:
        text, control = self._to_control()
        kinds = {t.PARAMETER_IS_STRING: self._string, t.PARAMETER_IS_JSON: self._json}
        places = {text.find(kind): kind for kind in kinds if kind in text}
        if not places:
            return self._fail(f"{t.PARAMETER_IS_STRING!r} or {t.PARAMETER_IS_JSON!r}") if control else False
        place = min(places)
        self._name = text[:place]
        if self._name in self._names:
            return self._fail("a parameter name that the call does not have yet")
        self._text = self._text[place + len(places[place]) :]
        separator = ", " if self._names else ""
        self._names.add(self._name)
        self._state = kinds[places[place]]
        self._parts.append(Arguments(self._number, f"{separator}{_quoted(self._name)}: "))
        if self._state == self._string:
            self._parts.append(Arguments(self._number, '"'))
        return True

    def _string(self) -> bool:
        """The value of a parameter that is text, given out as it comes."""
        text, whole = self._value()
        written = _quoted(self._plain(text))[1:-1]
        self._give(Arguments(self._number, written), written)
        if whole:
            self._parts.append(Arguments(self._number, '"'))
        return whole

    def _json(self) -> bool:
        """The value of a parameter that is JSON, given out when it is whole and proves to be JSON."""
        held = self._text
        text, whole = self._value()
        if not whole:
            self._text = held
            return False
        value = self._plain(text)
        try:
            read_json(value)
        except ValueError:
            self._text = held
            return self._fail('a JSON value, because of string="false"')
        self._parts.append(Arguments(self._number, value))
        return True

    def _value(self) -> tuple[str, bool]:
        """More of a value, taken off the text, and whether it is whole; other control tokens are text in it."""
        closing = self._literal(self._tags.parameter_close)
        before = closing.partition(self._dsml)[0]
        ends = [place for place in (self._text.find(self._dsml), self._text.find(self._end)) if place >= 0]
        text = self._text[: min(ends)] if ends else self._text
        text = text[: len(text) - _overlap(text, before)]
        self._text = self._text[len(text) :]
        return text, bool(ends) and self._expect({closing: self._next_parameter})

    def _call_end(self) -> bool:
        self._parts += [Arguments(self._number, "}"), CallEnded(self._number)]
        self._state = self._next_call
        return True

    def _next_call(self) -> bool:
        ways = {self._tags.invoke_open: self._call_name, self._tags.calls_close: self._after_calls}
        return self._expect({self._literal(literal): state for literal, state in ways.items()})

    def _after_calls(self) -> bool:
        return self._expect({self._end: self._finish})

    def _finish(self) -> bool:
        self.ended = True
        return False

    def _expect(self, ways: dict[str, Callable[[], bool]]) -> bool:
        """Go on in the state of the literal that comes; fail if none can come, wait if it is not yet whole."""
        for literal, state in ways.items():
            if self._text.startswith(literal):
                self._text, self._state = self._text[len(literal) :], state
                return True
        if not any(literal.startswith(self._text) for literal in ways):
            self._fail(" or ".join(repr(self._plain(literal)) for literal in ways))
        return False

    def _fail(self, expected: str) -> bool:
        self.ended = True
        self.malformed = f"expected {expected}, found {shortened(self._plain(self._text[:40]))!r}"
        return False

    def _to_control(self) -> tuple[str, str]:
        """The text before the next control token, and its character; "" where none has come."""
        found = _CONTROL.search(self._text)
        return (self._text[: found.start()], found.group()) if found else (self._text, "")

    def _give(self, part: Part, text: str) -> None:
        if text:
            self._parts.append(part)

    def _character(self, token: str) -> str:
        return self._controls.setdefault(token, chr(FIRST_CONTROL + len(self._controls)))

    def _literal(self, text: str) -> str:
        """A fixed text of the format, its control tokens as characters."""
        return CONTROL_PATTERN.sub(lambda match: self._character(match.group()), text)

    def _plain(self, text: str) -> str:
        """The way back: control tokens as their text."""
        for token, character in self._controls.items():
            text = text.replace(character, token)
        return text


def _overlap(text: str, literal: str) -> int:
    """How many characters at the end of the text are a beginning of the literal, or all of it."""
    return next((length for length in range(len(literal), 0, -1) if text.endswith(literal[:length])), 0)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
