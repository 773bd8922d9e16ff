"""What dsv4 has written into a directory, so that it can tell its own files from anybody else's."""

import json
import os
import stat
from pathlib import Path
from typing import Any

from dsv4.checkpoint.input_files import read_json
from dsv4.errors import CheckpointError

RECORD = ".dsv4.json"
"""The file that lists the others, each with its size and the time when it was written."""


def write_record(directory: Path) -> None:
    """List the files of a directory in it."""
    files = {path.name: _state(path.lstat()) for path in sorted(directory.iterdir()) if path.name != RECORD}
    text = json.dumps({"written_by": "dsv4", "files": files}, indent=1) + "\n"
    (directory / RECORD).write_text(text, encoding="utf-8")


def strangers(directory: Path) -> list[str]:
    """The names in a directory of all that dsv4 did not write there, or that has been changed since."""
    known = _recorded(directory)
    return [
        path.name for path in sorted(directory.iterdir()) if path.name != RECORD and not _is_as_written(path, known)
    ]


def remove_own(directory: Path) -> None:
    """Remove a directory that dsv4 has written, file by file.

    Raises OSError where it holds anything else, which stays.
    """
    known = _recorded(directory)
    for path in list(directory.iterdir()):
        if _is_as_written(path, known):
            path.unlink()
    (directory / RECORD).unlink(missing_ok=True)
    directory.rmdir()


def _is_as_written(path: Path, known: dict[str, Any]) -> bool:
    """Whether a path is a file of the record, unchanged. What is below a directory is not in any record."""
    state = _state(path.lstat())
    return bool(state) and known.get(path.name) == state


def _state(found: os.stat_result) -> list[int]:
    """What changes when a file is written to; empty for what is no file."""
    return [found.st_size, found.st_mtime_ns] if stat.S_ISREG(found.st_mode) else []


def _recorded(directory: Path) -> dict[str, Any]:
    """The states in the record by file name; none where there is no sound record."""
    try:
        content = read_json(directory / RECORD, CheckpointError)
    except CheckpointError:
        return {}
    files = content.get("files") if isinstance(content, dict) else None
    return files if isinstance(files, dict) else {}
