"""From a completion back to a message: strict, so that nothing the model wrote is lost unnoticed."""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from dsv4.errors import ChatError
from dsv4.text.chat import templates as t
from dsv4.text.chat.check import Mode, check_flag, check_mode, check_revision
from dsv4.text.chat.json_text import read_json
from dsv4.text.chat.pieces import Control, Piece, PieceBuilder, Text
from dsv4.text.chat.reader import Reader, TextEndedError
from dsv4.text.chat.tags import Tags, tags_of

_KIND = re.compile(f"{re.escape(t.PARAMETER_IS_STRING)}|{re.escape(t.PARAMETER_IS_JSON)}")


def parse(
    completion: str | Iterable[Piece], mode: Mode = "non-think", require_end: bool = True, revision: str = "april"
) -> dict[str, Any]:
    """Read one completion: what the model wrote after the prompt, up to and including the end token.

    Args:
        completion: its pieces, as `dsv4.text.tokenizer.Tokenizer.decode_pieces` gives them, or its text. In a text,
            whatever looks like a control token is taken for one; pieces say which really are. In the modes that
            think, a completion begins with the reasoning (the prompt has already written `<think>`), in "non-think"
            with the answer.
        mode: the mode in which the prompt was encoded.
        require_end: whether the completion must be whole. With False it may stop anywhere, as it does when the
            model ran out of tokens.
        revision: that of the prompt: V4.1 calls tools with other tags than V4.

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
    check_revision(revision)
    reader = Reader(_pieces_of(completion, t.control_tokens_of(revision)))
    message: dict[str, Any] = {"role": "assistant", "content": "", "reasoning_content": "", "tool_calls": []}
    try:
        _read_message(reader, message, tags_of(revision), thinking=mode != "non-think")
    except TextEndedError as error:
        if require_end:
            raise ChatError(str(error)) from None
    if not require_end:
        message["unfinished"] = reader.text[reader.kept :]
    return message


def _pieces_of(completion: object, control_tokens: Sequence[str]) -> list[Piece]:
    if isinstance(completion, str):
        builder = PieceBuilder(control_tokens)
        builder.template(completion)
        return builder.finish()
    if not isinstance(completion, Iterable):
        raise ChatError(f"completion: expected a string or pieces, found {type(completion).__name__}")
    pieces = list(completion)
    for number, piece in enumerate(pieces):
        if not isinstance(piece, Control | Text):
            raise ChatError(f"completion[{number}]: expected a piece, found {type(piece).__name__}")
    return pieces


def _read_message(reader: Reader, message: dict[str, Any], tags: Tags, thinking: bool) -> None:
    if thinking:
        message["reasoning_content"] = reader.read_until(t.END_THINK)
        reader.keep()
        reader.expect(t.END_THINK)
    message["content"] = reader.read_until(tags.calls_open, t.END)
    reader.keep()
    if reader.expect(tags.calls_open, t.END) == tags.calls_open:
        message["tool_calls"] = _read_calls(reader, tags)
        reader.keep()
        reader.expect(t.END)
    reader.keep()
    reader.expect_nothing_more()


def _read_calls(reader: Reader, tags: Tags) -> list[dict[str, Any]]:
    calls = []
    opening = reader.expect(tags.invoke_open)
    while opening == tags.invoke_open:
        name = _read_name(reader, tags)
        calls.append({"type": "function", "function": {"name": name, "arguments": _read_arguments(reader, tags)}})
        opening = reader.expect(tags.invoke_open, tags.calls_close)
    return calls


def _read_name(reader: Reader, tags: Tags) -> str:
    """Read a tool's name, which may hold double quotes: it ends where the parameters, or the end of the call, come."""
    start = reader.position
    following = (tags.parameter_open, tags.invoke_close, t.NO_PARAMETERS + tags.invoke_close)
    name = reader.read_until(*(t.INVOKE_NAME_CLOSE + literal for literal in following))
    if not reader.stands_here(t.INVOKE_NAME_CLOSE):
        reader.position = start + len(name.partition('"')[0])
    reader.expect(t.INVOKE_NAME_CLOSE)
    return name


def _read_arguments(reader: Reader, tags: Tags) -> str:
    """Read the parameters of one call into the text of a JSON object; JSON values stay as the model wrote them."""
    arguments: dict[str, str] = {}
    opening = reader.expect(tags.parameter_open, tags.invoke_close, t.NO_PARAMETERS + tags.invoke_close)
    while opening == tags.parameter_open:
        name_position = reader.position
        name = reader.read_until_match(_KIND)
        kind = reader.expect(t.PARAMETER_IS_STRING, t.PARAMETER_IS_JSON)
        value_position = reader.position
        value = reader.read_until(tags.parameter_close, stops=(t.DSML, t.END))
        reader.expect(tags.parameter_close)
        if name in arguments:
            reader.position = name_position
            raise ChatError(reader.describe("a parameter name that the call does not have yet"))
        if kind == t.PARAMETER_IS_JSON and not _is_json(value):
            reader.position = value_position
            raise ChatError(reader.describe('a JSON value, because of string="false"'))
        arguments[name] = value if kind == t.PARAMETER_IS_JSON else json.dumps(value, ensure_ascii=False)
        opening = reader.expect(tags.parameter_open, tags.invoke_close)
    members = (f"{json.dumps(name, ensure_ascii=False)}: {value}" for name, value in arguments.items())
    return "{" + ", ".join(members) + "}"


def _is_json(text: str) -> bool:
    try:
        read_json(text)
    except ValueError:
        return False
    return True
