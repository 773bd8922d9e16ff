"""JSON as RFC 8259 defines it, for the arguments of tool calls.

Python's own reader is another one: it takes NaN and Infinity, which are no JSON, and gives up on integers of more than
4,300 digits and on deep nesting, which are. This one has no limits of length or depth. A scalar stays JSON text, so
that no number has to be converted to be passed on.
"""

import json
import math
import re
from collections.abc import Iterator

JSONValue = str | list["JSONValue"] | dict[str, "JSONValue"]
"""A JSON value: the JSON text of a scalar, a list for an array, or a dict from each name's JSON text for an object."""

_SPACE = r"[ \t\n\r]*"
_STRING = r'"[^"\\\x00-\x1f]*+(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*+)*+"'
_NUMBER = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
_TOKEN = re.compile(
    rf"{_SPACE}(?:(?P<name>{_STRING}){_SPACE}:|(?P<scalar>{_STRING}|{_NUMBER}|true|false|null)|(?P<mark>[][{{}},]))"
)
_ONLY_SPACE = re.compile(rf"{_SPACE}\Z")
_BEGINS_VALUE = frozenset({"scalar", "[", "{"})


def read_json(text: str) -> JSONValue:
    """Read one JSON value.

    Args:
        text: the whole text.

    Returns:
        The value, with its scalars as `write_json` writes them. Of members with the same name the last one counts.

    Raises:
        ValueError: the text is not JSON. The message says at which character.

    Source: RFC 8259 §2–7.
    """
    whole: list[JSONValue] = []
    containers: list[list[JSONValue] | dict[str, JSONValue]] = [whole]  # those that are open, the innermost last
    names: list[str] = []  # of the members whose values are open
    expected: frozenset[str] = _BEGINS_VALUE
    for position, found, token in _tokens(text):
        if found not in expected:
            raise ValueError(f"expected {' or '.join(sorted(expected)) or 'the end'}, found {found} at {position}")
        if found == "name":
            names.append(_normal_scalar(token))
            expected = _BEGINS_VALUE
        elif found == ",":
            expected = frozenset({"name"}) if isinstance(containers[-1], dict) else _BEGINS_VALUE
        elif found in ("]", "}"):
            containers.pop()
            expected = _after_value(containers)
        else:
            value: JSONValue = [] if found == "[" else {} if found == "{" else _normal_scalar(token)
            _add(value, containers[-1], names)
            if isinstance(value, str):
                expected = _after_value(containers)
            else:
                containers.append(value)
                expected = frozenset({"name", "}"}) if found == "{" else _BEGINS_VALUE | {"]"}
    if expected:
        raise ValueError(f"expected {' or '.join(sorted(expected))}, found the end")
    return whole[0]


def write_json(value: JSONValue) -> str:
    """Write a JSON value as the official encoder does: `, ` and `: ` between parts, no escapes but the necessary ones.

    Args:
        value: what `read_json` returns.

    Returns:
        The JSON text.
    """
    written: list[str] = []
    waiting: list[JSONValue] = [value]  # what comes next is last
    while waiting:
        part = waiting.pop()
        if isinstance(part, str):
            written.append(part)
        elif isinstance(part, list):
            items = [item for member in part for item in (", ", member)]
            waiting.extend(reversed(["[", *items[1:], "]"]))
        else:
            items = [item for name, member in part.items() for item in (", ", f"{name}: ", member)]
            waiting.extend(reversed(["{", *items[1:], "}"]))
    return "".join(written)


def string_of(value: JSONValue) -> str | None:
    """Give the characters of a JSON string.

    Args:
        value: what `read_json` returns.

    Returns:
        The characters, or None for any other value.
    """
    return str(json.loads(value)) if isinstance(value, str) and value.startswith('"') else None


def _tokens(text: str) -> Iterator[tuple[int, str, str]]:
    """Give the position, kind and text of each token; the kind of a bracket, brace or comma is itself."""
    position = 0
    while not _ONLY_SPACE.match(text, position):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ValueError(f"expected JSON, found {text[position : position + 20]!r} at {position}")
        kind = str(match.lastgroup)
        token = match[kind]
        yield match.start(kind), token if kind == "mark" else kind, token
        position = match.end()


def _add(value: JSONValue, container: list[JSONValue] | dict[str, JSONValue], names: list[str]) -> None:
    if isinstance(container, dict):
        container[names.pop()] = value
    else:
        container.append(value)


def _after_value(containers: list[list[JSONValue] | dict[str, JSONValue]]) -> frozenset[str]:
    if len(containers) == 1:
        return frozenset()
    return frozenset({",", "}" if isinstance(containers[-1], dict) else "]"})


def _normal_scalar(token: str) -> str:
    """Write a scalar as Python would. A number that no float can hold stays as it is."""
    if token.startswith('"'):
        return json.dumps(json.loads(token), ensure_ascii=False)
    if token in ("true", "false", "null"):
        return token
    if not any(mark in token for mark in ".eE"):
        return "0" if token == "-0" else token
    return repr(float(token)) if math.isfinite(float(token)) else token
