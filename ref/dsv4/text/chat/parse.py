"""From a completion back to a message: strict, so that nothing the model wrote is lost unnoticed."""

import json
import re
from collections.abc import Iterable
from typing import Any

from dsv4.errors import ChatError
from dsv4.text.chat import templates as t
from dsv4.text.chat.check import check_flag, check_mode
from dsv4.text.chat.json_text import read_json
from dsv4.text.chat.pieces import Control, Piece, PieceBuilder, Text
from dsv4.text.chat.reader import Reader, TextEndedError

_AFTER_NAME = tuple(
    t.INVOKE_NAME_CLOSE + following
    for following in (t.PARAMETER_OPEN, t.INVOKE_CLOSE, t.NO_PARAMETERS + t.INVOKE_CLOSE)
)
_KIND = re.compile(f"{re.escape(t.PARAMETER_IS_STRING)}|{re.escape(t.PARAMETER_IS_JSON)}")


def parse(completion: str | Iterable[Piece], mode: str = "non-think", require_end: bool = True) -> dict[str, Any]:
    """Read one completion: what the model wrote after the prompt, up to and including the end token.

    Args:
        completion: its pieces, as `dsv4.text.tokenizer.Tokenizer.decode_pieces` gives them, or its text. In a text,
            whatever looks like a control token is taken for one; pieces say which really are. In the modes "low",
            "high" and "max" a completion begins with the reasoning (the prompt has already written `<think>`), in
            "non-think" with the answer.
        mode: the mode in which the prompt was encoded: "non-think", "low", "high" or "max".
        require_end: whether the completion must be whole. With False it may stop anywhere, as it does when the
            model ran out of tokens.

    Returns:
        {"role": "assistant", "content": str, "reasoning_content": str, "tool_calls": list}, where a tool call is
        {"type": "function", "function": {"name": str, "arguments": str that holds a JSON object}}.
        With `require_end=False` also "unfinished": the text at the end that is in no other field, because it begins
        something that was cut short or may have been: a tool-call block, a control token, a character. It is "" if
        there is none. No call of a block that was cut short is in "tool_calls", so that nobody runs half of what the
        model asked for.

    Raises:
        ChatError: the completion is malformed. The message says what was expected, what was found and at which
            character, counted from 0.

    Source: official encoder. Its own parser lets some malformed text pass; this one does not: control tokens of any
    kind in reasoning, content or names, an empty tool-call block, a parameter that is neither a string nor JSON, a
    missing end token after tool calls. Like that parser, it takes a parameter's name to end at the first place where
    it can, and a tool's name at the last one.
    """
    check_mode(mode)
    check_flag("require_end", require_end)
    reader = Reader(_pieces_of(completion))
    message: dict[str, Any] = {"role": "assistant", "content": "", "reasoning_content": "", "tool_calls": []}
    try:
        _read_message(reader, message, thinking=mode != "non-think")
    except TextEndedError as error:
        if require_end:
            raise ChatError(str(error)) from None
    if not require_end:
        message["unfinished"] = reader.text[reader.kept :]
    return message


def _pieces_of(completion: object) -> list[Piece]:
    if isinstance(completion, str):
        builder = PieceBuilder()
        builder.template(completion)
        return builder.finish()
    if not isinstance(completion, Iterable):
        raise ChatError(f"completion: expected a string or pieces, found {type(completion).__name__}")
    pieces = list(completion)
    for number, piece in enumerate(pieces):
        if not isinstance(piece, Control | Text):
            raise ChatError(f"completion[{number}]: expected a piece, found {type(piece).__name__}")
    return pieces


def _read_message(reader: Reader, message: dict[str, Any], thinking: bool) -> None:
    if thinking:
        message["reasoning_content"] = reader.read_until(t.END_THINK)
        reader.keep()
        reader.expect(t.END_THINK)
    message["content"] = reader.read_until(t.CALLS_OPEN, t.END)
    reader.keep()
    if reader.expect(t.CALLS_OPEN, t.END) == t.CALLS_OPEN:
        message["tool_calls"] = _read_calls(reader)
        reader.keep()
        reader.expect(t.END)
    reader.keep()
    reader.expect_nothing_more()


def _read_calls(reader: Reader) -> list[dict[str, Any]]:
    calls = []
    opening = reader.expect(t.INVOKE_OPEN)
    while opening == t.INVOKE_OPEN:
        name = _read_name(reader)
        calls.append({"type": "function", "function": {"name": name, "arguments": _read_arguments(reader)}})
        opening = reader.expect(t.INVOKE_OPEN, t.CALLS_CLOSE)
    return calls


def _read_name(reader: Reader) -> str:
    """Read a tool's name, which may hold double quotes: it ends where the parameters, or the end of the call, come."""
    start = reader.position
    name = reader.read_until(*_AFTER_NAME)
    if not reader.stands_here(t.INVOKE_NAME_CLOSE):
        reader.position = start + len(name.partition('"')[0])
    reader.expect(t.INVOKE_NAME_CLOSE)
    return name


def _read_arguments(reader: Reader) -> str:
    """Read the parameters of one call into the text of a JSON object; JSON values stay as the model wrote them."""
    arguments: dict[str, str] = {}
    opening = reader.expect(t.PARAMETER_OPEN, t.INVOKE_CLOSE, t.NO_PARAMETERS + t.INVOKE_CLOSE)
    while opening == t.PARAMETER_OPEN:
        name_position = reader.position
        name = reader.read_until_match(_KIND)
        kind = reader.expect(t.PARAMETER_IS_STRING, t.PARAMETER_IS_JSON)
        value_position = reader.position
        value = reader.read_until(t.PARAMETER_CLOSE, stops=(t.DSML, t.END))
        reader.expect(t.PARAMETER_CLOSE)
        if name in arguments:
            reader.position = name_position
            raise ChatError(reader.describe("a parameter name that the call does not have yet"))
        if kind == t.PARAMETER_IS_JSON and not _is_json(value):
            reader.position = value_position
            raise ChatError(reader.describe('a JSON value, because of string="false"'))
        arguments[name] = value if kind == t.PARAMETER_IS_JSON else json.dumps(value, ensure_ascii=False)
        opening = reader.expect(t.PARAMETER_OPEN, t.INVOKE_CLOSE)
    members = (f"{json.dumps(name, ensure_ascii=False)}: {value}" for name, value in arguments.items())
    return "{" + ", ".join(members) + "}"


def _is_json(text: str) -> bool:
    try:
        read_json(text)
    except ValueError:
        return False
    return True
