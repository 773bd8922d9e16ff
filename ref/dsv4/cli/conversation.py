"""A conversation with a model: the lines that are typed, and as many of the latest turns as its context holds."""

import sys
from collections.abc import Collection, Iterator
from typing import Any

from dsv4.errors import ChatError, PromptError
from dsv4.text import chat
from dsv4.text.chat.check import Mode
from dsv4.text.tokenizer import Tokenizer


def typed_lines() -> Iterator[str]:
    """The lines that the user types, up to an empty one or the end of input."""
    return iter(_read_line, "")


class Conversation:
    """What was said, and the prompts that it makes; what the user should know goes to standard error.

    mode, revision: as `chat.encode` has them. context: how many tokens the model reads at most. answer: how many of
    these to keep free for the answer, as long as there are turns that can be left out for it. end_ids: the tokens that
    end an answer.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        mode: Mode,
        revision: str,
        system: str | None,
        context: int,
        answer: int,
        end_ids: Collection[int],
    ) -> None:
        """Begin with a system message or nothing. Raises PromptError for one that alone is too long."""
        self._tokenizer, self._mode, self._revision = tokenizer, mode, revision
        self._context, self._end_ids = context, end_ids
        self._most = context - min(answer, context // 2)
        self._system: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
        self._messages: list[dict[str, Any]] = []
        length = len(self._encode([{"role": "user", "content": ""}]))
        if length > context:
            raise PromptError(f"system message: expected a prompt of at most {context} tokens, found {length}")

    def ask(self, text: str) -> list[int]:
        """Add a message of the user and give the prompt's ids.

        The oldest turns are left out, for good, if there is no room for them. Where there is none for the message
        itself, it is not added, and there are no ids.
        """
        messages = [*self._messages, {"role": "user", "content": text}]
        starts = [number for number, message in enumerate(messages) if message["role"] == "user"]
        for start in starts:
            ids = self._encode(messages[start:])
            if len(ids) <= self._most:
                break
        if len(ids) > self._context:
            _say(f"not sent: the prompt would have {len(ids)} tokens, and the model reads at most {self._context}")
            return []
        if start:
            _say(
                f"the model reads at most {self._context} tokens: the oldest {start} messages are left out from now on"
            )
        self._messages = messages[start:]
        return ids

    def hear(self, ids: list[int]) -> None:
        """Add the model's answer. One that is not well formed is kept as plain text, without its end token."""
        try:
            message = chat.parse(self._tokenizer.decode_pieces(ids), self._mode, False, self._revision)
        except ChatError as error:
            _say(f"kept as plain text: {error}")
            text = self._tokenizer.decode(ids[:-1] if ids[-1] in self._end_ids else ids)
            message = {"role": "assistant", "content": text}
        self._messages.append(message)

    def _encode(self, messages: list[dict[str, Any]]) -> list[int]:
        pieces = chat.encode_pieces([*self._system, *messages], self._mode, revision=self._revision)
        return self._tokenizer.encode_pieces(pieces)


def _read_line() -> str:
    try:
        return input("> " if sys.stdin.isatty() else "").strip()
    except EOFError:
        return ""
    except UnicodeDecodeError as error:
        raise PromptError(f"standard input: expected text in {error.encoding}, found {error.reason}") from error


def _say(note: str) -> None:
    print(f"({note})", file=sys.stderr)
