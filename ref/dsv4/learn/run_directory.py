"""What a training run leaves in its directory, so that it can be killed at any moment and resumed to the same bits.

- `recipe.json`: what is trained, and how
- `tokenizer.json`, …: what the texts are read with
- `texts.json`: the texts' names and hashes
- `states/00000400.safetensors`: everything that changes, after so many steps: the newest, and what a way back may need
- `log.jsonl`: a line for each step
- `model/`: the weights after the newest state, as an ordinary checkpoint
- `.lock`: held by the process that trains here
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from dsv4.checkpoint.atomic import TEMPORARY_SUFFIX, replacing
from dsv4.checkpoint.input_files import read_json
from dsv4.checkpoint.lock import try_lock
from dsv4.checkpoint.record import remove_own
from dsv4.checkpoint.writing import STORED_DTYPES, write_safetensors
from dsv4.errors import TrainingError, reason
from dsv4.learn.run_log import RunLog

LOG_LINES = "log_lines"
"""Beside the arrays of a state: how many lines the log had."""

DTYPES = {**STORED_DTYPES, np.dtype(np.float64): "F64", np.dtype(np.uint8): "U8"}
"""The safetensors dtype of each array of a state."""

KEPT = 2
"""States that are kept of those which are old enough: if the newest turns out to be bad, there is one before it."""


class RunDirectory:
    """The directory of one run."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.log = RunLog(self.path / "log.jsonl")
        self.model = self.path / "model"
        self.tokenizer = self.path
        self._states = self.path / "states"

    @property
    def exists(self) -> bool:
        """Whether a run has begun here."""
        return (self.path / "recipe.json").exists()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """While it lasts, this process alone trains here; what killed ones have left half written is removed.

        Raises TrainingError where another process trains here.
        """
        try:
            lock = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise TrainingError(f"{self.path}: expected a directory to train in, found: {reason(error)}") from error
        try:
            if not try_lock(lock, otherwise=True):
                raise TrainingError(f"{self.path}: expected no other process to train there, found one")
            self._clear()
            yield
        finally:
            os.close(lock)

    def write_json(self, name: str, value: Any) -> None:
        """A small file. Raises SettingError where it cannot be written."""
        with replacing(self.path / name) as temporary:
            temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    def read_json(self, name: str) -> Any:
        """What `write_json` wrote. Raises TrainingError where it is not there or damaged."""
        return read_json(self.path / name, TrainingError, "a file of a run that was begun here")

    def steps(self) -> list[int]:
        """After how many steps there are states, in order."""
        names = (file.stem for file in self._states.glob("*.safetensors"))
        return sorted(int(name) for name in names if re.fullmatch("[0-9]{8,}", name))

    def newest(self, at_most: int | None = None) -> int:
        """After how many steps the newest state is, or the newest after so many at most.

        Raises TrainingError where there is none.
        """
        known = [step for step in self.steps() if at_most is None or step <= at_most]
        if not known:
            when = "" if at_most is None else f" after {at_most} steps or fewer"
            raise TrainingError(f"{self._states}: expected a state{when}, found none")
        return known[-1]

    def save_state(self, step: int, state: Mapping[str, Any], keep_from: int) -> None:
        """Keep a state, whole or not at all, and delete all that are older than the last two up to `keep_from`.

        Raises SettingError where it cannot be written: those that were saved before stay.
        """
        arrays = {**state, LOG_LINES: np.array(len(self.log), np.int64)}
        try:
            self._states.mkdir(exist_ok=True)
        except OSError as error:
            raise TrainingError(f"{self._states}: expected a directory to write to, found: {reason(error)}") from error
        with replacing(self.state_file(step)) as temporary:
            write_safetensors(temporary, {name: (DTYPES[array.dtype], array) for name, array in arrays.items()})
        for known in [known for known in self.steps() if known <= keep_from][:-KEPT]:
            self.state_file(known).unlink()

    def load_state(self, step: int) -> tuple[dict[str, Any], int]:
        """The arrays of a state, and how many lines the log had. Raises TrainingError where the file is damaged."""
        file = self.state_file(step)
        try:
            with safe_open(file, "numpy") as opened:
                state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 it is no dictionary
        except Exception as error:
            raise TrainingError(f"{file}: expected a state of the run, found: {reason(error)}") from error
        lines = state.pop(LOG_LINES, None)
        if lines is None or lines.shape != () or lines.dtype != np.int64:
            raise TrainingError(f"{file}: expected a state with {LOG_LINES}, a number, found none")
        return state, int(lines)

    def forget_after(self, step: int) -> None:
        """Delete the states after more than so many steps, the newest first."""
        for known in reversed(self.steps()):
            if known > step:
                self.state_file(known).unlink()

    def state_file(self, step: int) -> Path:
        """Where the state after so many steps is."""
        return self._states / f"{step:08}.safetensors"

    def _clear(self) -> None:
        """Remove temporary files, and models that had been replaced."""
        for directory in (self.path, self._states):
            for file in directory.glob(f".*{TEMPORARY_SUFFIX}"):
                if file.is_file():
                    file.unlink()
        for old in self.path.glob(f".{self.model.name}.*.old"):
            with suppress(OSError):  # something else is in it
                remove_own(old)
