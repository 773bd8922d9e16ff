"""What a training run leaves in its directory, so that it can be killed at any moment and resumed to the same bits.

recipe.json         what is trained, and how
tokenizer.json, …   what the texts are read with
texts.json          the texts' names and hashes
states/00000400.safetensors    everything that changes, after so many steps; the last few of them
log.jsonl           a line for each step
model/              the weights after the newest state, as an ordinary checkpoint
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from dsv4.checkpoint.atomic import replacing
from dsv4.checkpoint.input_files import read_json
from dsv4.errors import TrainingError, reason

LOG_LINES = "log_lines"
"""Beside the arrays of a state: how many lines the log had."""


class RunDirectory:
    """The directory of one run."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.log = self.path / "log.jsonl"
        self.model = self.path / "model"
        self.tokenizer = self.path
        self._states = self.path / "states"

    @property
    def exists(self) -> bool:
        """Whether a run has begun here."""
        return (self.path / "recipe.json").exists()

    def create(self) -> None:
        """Make the directory. Raises TrainingError where something is in the way."""
        try:
            if self.path.exists() and any(self.path.iterdir()):
                raise TrainingError(f"{self.path}: expected a new or empty directory, found one with files in it")
            self._states.mkdir(parents=True)
        except OSError as error:
            raise TrainingError(f"{self.path}: expected a directory to train in, found: {reason(error)}") from error

    def write_json(self, name: str, value: Any) -> None:
        """A small file. Raises SettingError where it cannot be written."""
        with replacing(self.path / name) as temporary:
            temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    def read_json(self, name: str) -> Any:
        """What `write_json` wrote. Raises TrainingError where it is not there or damaged."""
        return read_json(self.path / name, TrainingError, "a file of a run that was begun here")

    def steps(self) -> list[int]:
        """After how many steps there are states, in order."""
        return sorted(int(file.stem) for file in self._states.glob("*.safetensors"))

    def save_state(self, step: int, state: Mapping[str, Any], keep_from: int) -> None:
        """Keep a state, whole or not at all, and forget older ones than the newest that is not after `keep_from`.

        Raises SettingError where it cannot be written: those that were saved before stay.
        """
        arrays = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in state.items()}
        lines = np.array(len(self._lines()), np.int64)
        with replacing(self._state(step)) as temporary:
            save_file({**arrays, LOG_LINES: lines}, temporary)
        needed = max((known for known in self.steps() if known <= keep_from), default=0)
        for known in self.steps():
            if known < needed:
                self._state(known).unlink()

    def load_state(self, step: int) -> dict[str, Any]:
        """The arrays of a state. Raises TrainingError where the file is damaged."""
        try:
            with safe_open(self._state(step), "numpy") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 it is no dictionary
        except Exception as error:
            raise TrainingError(f"{self._state(step)}: expected a state of the run, found: {reason(error)}") from error

    def append(self, line: Mapping[str, Any]) -> None:
        """One more line of the log. Raises TrainingError where it cannot be written."""
        try:
            with self.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise TrainingError(f"{self.log}: expected a log that can be written, found: {reason(error)}") from error

    def cut_log(self, lines: int) -> None:
        """Keep so many lines of the log: what came after belongs to steps that are done again."""
        kept = self._lines()[:lines]
        with replacing(self.log) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")

    def read_log(self) -> list[dict[str, Any]]:
        """All lines. Raises TrainingError where there is no log."""
        if not self.log.exists():
            raise TrainingError(f"{self.path}: expected the directory of a run, found no log.jsonl")
        return [json.loads(line) for line in self._lines()]

    def _lines(self) -> list[str]:
        """The lines that are whole: what a process that was killed left of its last one does not count."""
        content = self.log.read_text(encoding="utf-8") if self.log.exists() else ""
        return content[: content.rfind("\n") + 1].splitlines()

    def _state(self, step: int) -> Path:
        return self._states / f"{step:08}.safetensors"
