"""Checks of the messages that a caller hands over, before anything is rendered."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from dsv4.errors import ChatError, quoted
from dsv4.text.chat.json_text import JSONValue, read_json, string_of
from dsv4.text.chat.templates import (
    EFFORTS,
    IMAGE,
    MODES,
    PARAMETER_IS_JSON,
    PARAMETER_IS_STRING,
    TASKS,
    V41_LARGEST_EFFORT,
    is_v41,
)

Message = Mapping[str, Any]

Mode = str | int
"""How much to think: one of MODES, or an effort of V4.1, from 1 to 100."""

_OR_AN_EFFORT = f"or a number from 1 to {V41_LARGEST_EFFORT}"

_FIELDS_OF_ROLE = {
    "system": {"tools", "response_format"},
    "developer": {"tools", "response_format"},
    "user": set[str](),
    "latest_reminder": set[str](),
    "tool": set[str](),
    "assistant": {"reasoning_content", "tool_calls", "wo_eos"},
}
_FIELDS_OF_SOME_ROLE = ("tools", "response_format", "reasoning_content", "tool_calls")


def check_mode(mode: object) -> None:
    """Raise ChatError unless `mode` is one of MODES or an effort of V4.1, from 1 to 100."""
    if not _is_effort(mode) and mode not in MODES:
        raise ChatError(f"mode: expected one of {', '.join(MODES)}, {_OR_AN_EFFORT}, found {quoted(mode)}")


def check_revision(revision: object) -> None:
    """Raise ChatError unless `revision` is one that EFFORTS has."""
    if not isinstance(revision, str) or revision not in EFFORTS:
        raise ChatError(f"revision: expected one of {', '.join(EFFORTS)}, found {quoted(revision)}")


def check_mode_of(mode: object, revision: str) -> None:
    """Raise ChatError unless `revision` is one that EFFORTS has, and `mode` one of its modes: "low" is not April's."""
    check_revision(revision)
    modes, takes_efforts = tuple(EFFORTS[revision]), is_v41(revision)
    if mode not in modes and not (takes_efforts and _is_effort(mode)):
        expected = f"one of {', '.join(modes)}{', ' + _OR_AN_EFFORT if takes_efforts else ''}"
        raise ChatError(f"mode: expected {expected}, as revision {revision} has them, found {quoted(mode)}")


def read_mode(text: str) -> Mode:
    """Give the mode that somebody typed: a word, or the number of an effort. Raises ChatError as `check_mode`."""
    mode = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(V41_LARGEST_EFFORT)) else text
    check_mode(mode)
    return mode


def check_flag(name: str, value: object) -> None:
    """Raise ChatError unless the argument called `name` is True or False."""
    if not isinstance(value, bool):
        raise ChatError(f"{name}: expected True or False, found {quoted(value)}")


def check_messages(messages: object) -> None:
    """Check every field that the format uses; fields that it does not know are left alone.

    Args:
        messages: what the caller gave as messages.

    Raises:
        ChatError: naming the message's index and field, what was expected and what was found.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str | bytes):
        raise ChatError(f"messages: expected a list of messages, found {quoted(messages)}")
    if not messages:
        raise ChatError("messages: expected at least one message, found an empty list")
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if not isinstance(message, Mapping):
            raise _wrong(where, "a dict with a role", message)
        role = message.get("role")
        if not isinstance(role, str) or role not in _FIELDS_OF_ROLE:
            raise _wrong(f"{where}.role", f"one of {', '.join(_FIELDS_OF_ROLE)}", role)
        _check_message(where, role, message)


def check_no_image(messages: Sequence[Message]) -> None:
    """Raise ChatError, which names the message and the field, for text that holds V4.1's image token.

    messages: such as `check_messages` accepts. Source: official encoder of V4.1, for content and reasoning; the other
    fields are checked for the same reason.
    """
    for index, message in enumerate(messages):
        for field in ("content", "reasoning_content", "tools", "response_format", "tool_calls"):
            if IMAGE in _written(field, message.get(field)):
                expected = f"text without {IMAGE}, which stands for an image"
                raise ChatError(f"messages[{index}].{field}: expected {expected}, found it")


def load_arguments(arguments: object) -> dict[str, JSONValue]:
    """Give the parameters of a tool call; arguments that are no JSON object become one parameter, `arguments`.

    Args:
        arguments: what the call has as `arguments`: the text of a JSON object, possibly once more written as a JSON
            string; or anything else that JSON can hold.

    Returns:
        The value of each parameter.

    Source: official encoder of V4.1 for JSON that is no object, which V4's cannot render; for the rest V4's.
    """
    text = arguments
    for _ in range(2):
        if not isinstance(text, str):
            break
        try:
            value = read_json(text)
        except ValueError:
            break
        if isinstance(value, dict):
            return {json.loads(name): member for name, member in value.items()}
        text = string_of(value)
    return {"arguments": json.dumps(arguments, ensure_ascii=False)}


def _is_effort(mode: object) -> bool:
    return isinstance(mode, int) and not isinstance(mode, bool) and 1 <= mode <= V41_LARGEST_EFFORT


def _written(field: str, value: Any) -> str:
    """All characters of a field as they stand in the prompt, and more: JSON may have written them as escapes."""
    if field == "tool_calls":
        functions = [call["function"] for call in value or ()]
        value = [(function["name"], load_arguments(function["arguments"])) for function in functions]
    return json.dumps(value, ensure_ascii=False, default=repr)


def _check_message(where: str, role: str, message: Message) -> None:
    for field in _FIELDS_OF_SOME_ROLE:
        if message.get(field) and field not in _FIELDS_OF_ROLE[role]:
            roles = " or ".join(other for other, fields in _FIELDS_OF_ROLE.items() if field in fields)
            raise _wrong(f"{where}.{field}", f"the field only on a message of role {roles}", message[field])
    _check_content(f"{where}.content", role, message)
    task = message.get("task")
    if task is not None and not (isinstance(task, str) and task in TASKS):
        raise _wrong(f"{where}.task", f"one of {', '.join(TASKS)}", task)
    reasoning = message.get("reasoning_content")
    if reasoning and not isinstance(reasoning, str):
        raise _wrong(f"{where}.reasoning_content", "a string or None", reasoning)
    _check_id(f"{where}.tool_call_id", message.get("tool_call_id"))
    if message.get("wo_eos") not in (None, False, True):
        raise _wrong(f"{where}.wo_eos", "True or False", message["wo_eos"])
    _check_tools(f"{where}.tools", message.get("tools"))
    _check_response_format(f"{where}.response_format", message.get("response_format"))
    _check_tool_calls(f"{where}.tool_calls", message.get("tool_calls"))


def _check_content(where: str, role: str, message: Message) -> None:
    content = message.get("content")
    if not content and role in ("system", "assistant"):
        return
    if "content" not in message and role in ("user", "tool"):
        return
    if role == "tool" and isinstance(content, list):
        _check_tool_parts(where, content)
    elif not isinstance(content, str):
        raise _wrong(where, "a string or a list of parts" if role == "tool" else "a string", content)
    elif role == "developer" and not content:
        raise _wrong(where, "a string that is not empty", content)


def _check_tool_parts(where: str, parts: list[Any]) -> None:
    for number, part in enumerate(parts):
        if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
            raise _wrong(f"{where}[{number}]", "a dict with a type", part)
        if part["type"] == "text" and not isinstance(part.get("text", ""), str):
            raise _wrong(f"{where}[{number}].text", "a string", part["text"])


def _check_id(where: str, name: object) -> None:
    if name is not None and not isinstance(name, str | int):
        raise _wrong(where, "a string, an integer or None", name)


def _check_tools(where: str, tools: object) -> None:
    if not tools:
        return
    if not isinstance(tools, list):
        raise _wrong(where, "a list of tools", tools)
    for number, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping):
            raise _wrong(f"{where}[{number}]", "a dict with a function", tool)
        _check_json(f"{where}[{number}].function", function)


def _check_response_format(where: str, response_format: object) -> None:
    if not response_format:
        return
    if not isinstance(response_format, Mapping):
        raise _wrong(where, "a JSON schema as a dict", response_format)
    _check_json(where, response_format)


def _check_tool_calls(where: str, calls: object) -> None:
    if not calls:
        return
    if not isinstance(calls, list):
        raise _wrong(where, "a list of tool calls", calls)
    for number, call in enumerate(calls):
        place = f"{where}[{number}]"
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping):
            raise _wrong(place, "a dict with a function", call)
        _check_id(f"{place}.id", call.get("id"))
        _check_id(f"{place}.function.id", function.get("id"))
        if not isinstance(function.get("name"), str):
            raise _wrong(f"{place}.function.name", "a string", function.get("name"))
        _check_arguments(f"{place}.function.arguments", function)


def _check_arguments(where: str, function: Message) -> None:
    """Refuse a dict, which V4's official encoder writes as one parameter and V4.1's as one for each member."""
    arguments = function.get("arguments")
    if "arguments" not in function or isinstance(arguments, Mapping):
        raise _wrong(where, "a string that holds a JSON object", arguments)
    _check_json(where, arguments)
    for name in load_arguments(arguments):
        for end in (PARAMETER_IS_STRING, PARAMETER_IS_JSON):
            if end in name:
                raise _wrong(where, f"parameter names without {end!r}, where a reader takes the name to end", name)


def _check_json(where: str, value: object) -> None:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ChatError(f"{where}: expected a value that JSON can hold, found one that it cannot ({error})") from error


def _wrong(where: str, expected: str, found: object) -> ChatError:
    return ChatError(f"{where}: expected {expected}, found {quoted(found)}")
