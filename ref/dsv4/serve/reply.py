"""From the tokens of one job to what a client is given: text in whole characters, up to a stop text, and its parts."""

from collections.abc import Sequence
from dataclasses import dataclass

from dsv4.serve.job import Chosen, Ended, LogProb
from dsv4.serve.markup import Arguments, CallBegun, CallEnded, Content, Markup, Part, Reasoning
from dsv4.text.chat.pieces import Control, Piece, Text
from dsv4.text.chat.tags import V4_TAGS, Tags
from dsv4.text.chat.templates import END
from dsv4.text.stop_texts import StopTexts
from dsv4.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Given:
    """A part of an answer, with the log-probabilities of the tokens that it is made of, where they were asked for."""

    part: Part
    logprobs: tuple[LogProb, ...] = ()


class ChatReply:
    """The answer of one job in a chat format, V4's or V4.1's.

    Attributes:
        ids: the tokens that came.
        accepted, reasoning_tokens: how many of them were accepted drafts, and how many belong to the reasoning.
        ended: whether nothing more is given: the job need not go on.
        has_calls: whether a call of a tool is whole, and nothing behind it was cut.
        note: why the answer ended as it did, where finish_reason has no word for that; the stop text that ended it.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        thinking: bool,
        stops: Sequence[str],
        stop_ids: frozenset[int],
        most_calls: int = 0,
        tags: Tags = V4_TAGS,
    ) -> None:
        """thinking: whether reasoning comes first. stops: end the content. most_calls: end behind so many; 0: never."""
        self._tokenizer, self._stop_ids, self._most_calls = tokenizer, stop_ids, most_calls
        self._decoder, self._markup, self._stops = tokenizer.stream(), Markup(thinking, tags), StopTexts(stops)
        self._waiting: list[LogProb] = []  # of tokens whose text is held back
        self.ids: list[int] = []
        self.accepted = self.reasoning_tokens = 0
        self.ended = self.has_calls = False
        self.note: str | None = None
        self._whole_calls = 0

    def take(self, chosen: Chosen) -> list[Given]:
        """One more token: what is certain now."""
        if self.ended:
            return []
        pieces = self._pieces(chosen.token)
        self.ids.append(chosen.token)
        self.accepted += chosen.accepted
        is_control = any(isinstance(piece, Control) for piece in pieces)
        self.reasoning_tokens += self._markup.thinking and not is_control
        if chosen.logprob and not is_control and not self._markup.in_calls:
            self._waiting.append(chosen.logprob)
        given = [each for piece in pieces for part in self._markup.push(piece) for each in self._after_stops(part)]
        if self._markup.ended and not self.ended:
            given += self._end()
        return given

    def finish(self, ended: Ended) -> tuple[list[Given], str]:
        """The end of the job: what was held back, and OpenAI's word for why the answer ended."""
        given = [] if self.ended else self._flush()
        if self.has_calls:
            return given, "tool_calls"
        if self.ended or ended.reason in ("stop", "cancelled"):
            return given, "stop"
        if ended.reason != "length":
            self.note = ended.reason
        return given, "length"

    def _pieces(self, token: int) -> list[Piece]:
        """What a token adds: a control token, or the characters that are whole now."""
        if token in self._stop_ids:
            return [*self._held_characters(), Control(END)]
        control = self._tokenizer.control_of_id.get(token)
        if control is not None:
            return [*self._held_characters(), Control(control)]
        text = self._decoder.push(token)
        return [Text(text)] if text else []

    def _held_characters(self) -> list[Piece]:
        held = self._decoder.flush()
        self._decoder = self._tokenizer.stream()
        return [Text(held)] if held else []

    def _after_stops(self, part: Part) -> list[Given]:
        """The part as it goes out, stop texts left out; nothing follows the end."""
        match part:
            case _ if self.ended:
                return []
            case Reasoning():
                return [self._with_logprobs(part)]
            case Content(text=text):
                text = self._stops.push(text)
                self.ended, self.note = self._stops.ended, self._stops.found
                return [self._with_logprobs(Content(text))] if text else []
            case CallBegun() | Arguments():
                given = self._flush()
                self._waiting = []
                return [*given, Given(part)]
            case CallEnded():
                self._whole_calls += 1
                self.ended = self.has_calls = self._whole_calls == self._most_calls
                return [Given(part)]

    def _end(self) -> list[Given]:
        """The answer ended by itself, or in what the format does not have."""
        self.ended = True
        if self._markup.malformed:
            self.note = f"malformed: {self._markup.malformed}"
        self.has_calls = self._whole_calls > 0 and not self._markup.malformed
        return self._flush()

    def _flush(self) -> list[Given]:
        """Text that was held back because a stop text might have come of it."""
        text = self._stops.flush()
        return [self._with_logprobs(Content(text))] if text else []

    def _with_logprobs(self, part: Part) -> Given:
        logprobs, self._waiting = tuple(self._waiting), []
        return Given(part, logprobs)


class TextReply:
    """The answer of one job as plain text: control tokens have none.

    Attributes: as those of `ChatReply`, but for calls, which it never has.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str], stop_ids: frozenset[int]) -> None:
        """stops: texts that end the answer."""
        self._decoder, self._stops, self._stop_ids = tokenizer.stream(skip_special=True), StopTexts(stops), stop_ids
        self._waiting: list[LogProb] = []
        self.ids: list[int] = []
        self.accepted = self.reasoning_tokens = 0
        self.ended = False
        self.note: str | None = None

    def take(self, chosen: Chosen) -> list[Given]:
        """One more token: what is certain now."""
        if self.ended:
            return []
        self.ids.append(chosen.token)
        self.accepted += chosen.accepted
        if chosen.logprob:
            self._waiting.append(chosen.logprob)
        if chosen.token in self._stop_ids:
            self.ended = True
            return self._given(self._rest())
        text = self._stops.push(self._decoder.push(chosen.token))
        self.ended, self.note = self._stops.ended, self._stops.found
        return self._given(text)

    def finish(self, ended: Ended) -> tuple[list[Given], str]:
        """The end of the job: what was held back, and OpenAI's word for why the answer ended."""
        if self.ended or ended.reason in ("stop", "cancelled"):
            return [], "stop"
        if ended.reason != "length":
            self.note = ended.reason
        return self._given(self._rest(), last=True), "length"

    def _rest(self) -> str:
        return self._stops.push(self._decoder.flush()) + self._stops.flush()

    def _given(self, text: str, last: bool = False) -> list[Given]:
        """The text with the log-probabilities so far; at the end also without text, as the end token has none."""
        if not text and not (((self.ended and not self._stops.ended) or last) and self._waiting):
            return []
        logprobs, self._waiting = tuple(self._waiting), []
        return [Given(Content(text), logprobs)]
