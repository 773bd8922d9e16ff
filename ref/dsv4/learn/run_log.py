"""The log of a training run: a line of JSON for each step."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dsv4.checkpoint.atomic import replacing
from dsv4.checkpoint.input_files import parse_json, regular_size
from dsv4.errors import TrainingError, quoted, reason

NUMBERS = ("learning_rate", "gradient_norm")
"""What a line holds as a number each, or as null where it was not finite."""

NUMBERS_BY_NAME = ("losses", "load", "standing")
"""What a line holds as objects of such numbers."""

WORDS = ("kind", "verdict")
"""What a line holds as a word each."""


class RunLog:
    """A file of lines. What a process that was killed left of its last one does not count."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __len__(self) -> int:
        """How many lines there are."""
        return len(self._lines())

    def append(self, line: Mapping[str, Any]) -> None:
        """One more line, with null for numbers that are not finite. Raises TrainingError where it cannot be written."""
        text = json.dumps(_with_nulls(line), allow_nan=False)
        try:
            with self.file.open("a", encoding="utf-8") as file:
                file.write(text + "\n")
        except OSError as error:
            raise TrainingError(f"{self.file}: expected a log that can be written, found: {reason(error)}") from error

    def cut(self, lines: int) -> None:
        """Keep so many lines: what came after belongs to steps that are done again."""
        kept = self._lines()[:lines]
        with replacing(self.file) as temporary:
            temporary.write_bytes(b"".join(line + b"\n" for line in kept))

    def read(self) -> list[dict[str, Any]]:
        """All lines. Raises TrainingError where there is no log, and for a line that no run has written."""
        regular_size(self.file, TrainingError, "the log of a run")
        return [_parsed(f"{self.file}, line {number}", line) for number, line in enumerate(self._lines(), start=1)]

    def _lines(self) -> list[bytes]:
        return self.file.read_bytes().split(b"\n")[:-1] if self.file.exists() else []


def _with_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _with_nulls(one) for name, one in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _parsed(place: str, line: bytes) -> dict[str, Any]:
    """A line with all that a picture shows."""
    try:
        found = parse_json(line)
    except ValueError as error:
        raise TrainingError(f"{place}: expected a line of a run's log, found {reason(error)}") from error
    if not isinstance(found, dict):
        raise TrainingError(f"{place}: expected a JSON object, found {quoted(found)}")
    for key, is_right, expected in (
        *((key, _is_number, "a number or null") for key in NUMBERS),
        *((key, _are_numbers, "numbers by name") for key in NUMBERS_BY_NAME),
        *((key, lambda value: isinstance(value, str), "a word") for key in WORDS),
        ("step", lambda value: isinstance(value, int), "an integer"),
    ):
        if key not in found or not is_right(found[key]):
            raise TrainingError(f"{place}: {key}: expected {expected}, found {quoted(found.get(key))}")
    return found


def _is_number(value: Any) -> bool:
    return value is None or isinstance(value, int | float)


def _are_numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(_is_number(one) for one in value.values())
