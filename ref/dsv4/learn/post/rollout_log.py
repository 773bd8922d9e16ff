"""Rollouts on disk, token by token as they are made.

A run that is killed goes on with every rollout where it stopped. Were rollouts begun anew instead, the long ones would
be interrupted again and again, and what is learned from would be too short (report §5.2.3).
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dsv4.checkpoint.atomic import replacing
from dsv4.checkpoint.input_files import parse_json
from dsv4.errors import TrainingError, quoted, reason
from dsv4.learn.post.recording import Choices, Draw, joined
from dsv4.ops.types import Array, Ints


class Rollout(NamedTuple):
    """One answer, and how it came about: a prompt of P tokens and n drawn ones."""

    prompt: Ints
    """[P] token ids."""
    answer: Ints
    """[n] token ids."""
    log_old: Array
    """[n] float64: log π_old of each, the sampler's own numbers."""
    kept: list[list[int] | None]
    """For each, the tokens that top-p left to be drawn from; None for all."""
    choices: Choices
    """Of the P + n − 1 tokens that the model read: the last one was not read any more."""


class RolloutLog:
    """The file of a batch of rollouts: a line for the batch, then one for each token."""

    def __init__(self, file: Path, prompts: list[Ints], settings: dict[str, Any]) -> None:
        """prompts: token ids [P] of each; settings: how tokens are drawn, which belongs to the file.

        A line that a killed process has left unfinished is removed. Raises TrainingError for a file of other rollouts,
        and for a damaged one.
        """
        self.file, self.prompts = file, prompts
        begun = {"prompts": [prompt.tolist() for prompt in prompts], "settings": settings}
        found = _whole_lines(file)
        if not found:
            with replacing(file) as temporary:
                temporary.write_text(json.dumps(begun) + "\n", encoding="utf-8")
        elif _parsed(file, 1, found[0]) != begun:
            raise TrainingError(f"{file}: expected rollouts of the same prompts and settings, found others")
        elif len(b"".join(found)) < file.stat().st_size:
            with replacing(file) as temporary:
                temporary.write_bytes(b"".join(found))

    @contextmanager
    def appending(self) -> Iterator["Appender"]:
        """What takes new tokens. Raises TrainingError where the file cannot be written."""
        try:
            with self.file.open("a", encoding="utf-8") as file:
                yield Appender(file)
        except OSError as error:
            raise TrainingError(f"{self.file}: expected a file that can be written, found: {reason(error)}") from error

    def drawn(self) -> list[list[int]]:
        """The tokens of each rollout so far."""
        return [[line["id"] for line in lines] for lines in self._by_sequence()]

    def rollouts(self, index_topk: int) -> list[Rollout]:
        """All of them, as the file has them. Raises TrainingError where one has no token."""
        found = []
        for sequence, lines in enumerate(self._by_sequence()):
            if not lines:
                raise TrainingError(f"{self.file}: expected at least one token of rollout {sequence}, found none")
            choices = joined([_choices(line) for line in lines], index_topk)
            answer = np.array([line["id"] for line in lines], np.int64)
            log_old = np.array([line["log_old"] for line in lines], np.float64)
            found.append(Rollout(self.prompts[sequence], answer, log_old, [line["kept"] for line in lines], choices))
        return found

    def _by_sequence(self) -> list[list[dict[str, Any]]]:
        by_sequence: list[list[dict[str, Any]]] = [[] for _ in self.prompts]
        for number, text in enumerate(_whole_lines(self.file)[1:], start=2):
            line = _parsed(self.file, number, text)
            if not isinstance(line, dict) or line.keys() != LINE or not 0 <= line["sequence"] < len(self.prompts):
                raise TrainingError(f"{self.file}, line {number}: expected a token of a rollout, found {quoted(line)}")
            by_sequence[line["sequence"]].append(line)
        return by_sequence


LINE = {"sequence", *Draw._fields, *Choices._fields}
"""The keys of a line."""


class Appender:
    """Writes a line for each token."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def token(self, sequence: int, draw: Draw, choices: Choices) -> None:
        """A drawn token, and what was chosen for the tokens that were read before it."""
        plain = {part: {name: array.tolist() for name, array in of.items()} for part, of in choices._asdict().items()}
        self._file.write(json.dumps({"sequence": sequence, **draw._asdict(), **plain}) + "\n")
        self._file.flush()


def _choices(line: dict[str, Any]) -> Choices:
    return Choices(_arrays(line["experts"]), _arrays(line["entries"]))


def _arrays(lists: dict[str, Any]) -> dict[str, Ints]:
    return {name: np.array(rows, np.int64) for name, rows in lists.items()}


def _whole_lines(file: Path) -> list[bytes]:
    """The lines that have an end, with it."""
    content = file.read_bytes() if file.exists() else b""
    return [line + b"\n" for line in content.split(b"\n")[:-1]]


def _parsed(file: Path, number: int, line: bytes) -> Any:
    try:
        return parse_json(line)
    except ValueError as error:
        raise TrainingError(f"{file}, line {number}: expected JSON, found {reason(error)}") from error
