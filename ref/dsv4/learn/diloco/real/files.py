"""What the syncer's process leaves for the next one: its fragments and the tape."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open

from dsv4.checkpoint.atomic import replacing
from dsv4.checkpoint.writing import write_safetensors
from dsv4.errors import TrainingError, reason
from dsv4.learn.diloco.chaos import SYNCER
from dsv4.learn.run_directory import DTYPES

TAPE = "tape.jsonl"
"""The tape's name in the directory."""


def lives_of(tape: Path) -> Counter[int | str]:
    """How many lives each process of a run has had so far, by learner's number and SYNCER; empty for a new run."""
    lives: Counter[int | str] = Counter()
    if tape.exists():
        lives[SYNCER] = 1
        for line in tape.read_bytes().split(b"\n")[:-1]:
            number, _, life = json.loads(line).get("sender", "").partition(".")
            if life:
                lives[int(number)] = max(lives[int(number)], int(life) + 1)
    return lives


def read_fragment(directory: Path, place: int) -> dict[str, Any] | None:
    """The state of a fragment after its last outer step; None before the first. Raises TrainingError for damage."""
    file = directory / f"fragment-{place:05}.safetensors"
    if not file.exists():
        return None
    try:
        with safe_open(file, "numpy") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 it is no dictionary
    except Exception as error:
        raise TrainingError(f"{file}: expected a fragment of the run, found: {reason(error)}") from error


def write_fragment(directory: Path, place: int, state: Mapping[str, Any]) -> None:
    """What `read_fragment` reads: whole, or as it was before."""
    with replacing(directory / f"fragment-{place:05}.safetensors") as temporary:
        write_safetensors(temporary, {name: (DTYPES[array.dtype], array) for name, array in state.items()})


def recovered_tape(tape: Path, versions: Sequence[int]) -> list[dict[str, Any]]:
    """The lines of a tape that still hold; the others are cut out of the file.

    versions: of the fragments that were written. A merge whose fragment was not written has not happened: nobody has
    got it. Neither has half a line.
    """
    if not tape.exists():
        return []
    lines = tape.read_bytes().split(b"\n")[:-1]
    found = [(line, json.loads(line)) for line in lines]
    held = [
        (line, about)
        for line, about in found
        if about["event"] != "merged" or about["version"] <= versions[about["fragment"]]
    ]
    with replacing(tape) as temporary:
        temporary.write_bytes(b"".join(line + b"\n" for line, _ in held))
    return [about for _, about in held]
