"""Lines of a log: numbers that are not finite, lines that are cut off, and files that no run has written."""

import json
import math

import pytest

from dsv4.errors import TrainingError
from dsv4.learn.run_log import RunLog

LINE = {
    "step": 3,
    "kind": "dense",
    "losses": {"next_token": 5.5},
    "gradient_norm": 1.0,
    "learning_rate": 0.01,
    "load": {"layers.1.ffn.gate.": 1.5},
    "standing": {},
    "verdict": "go on",
}


@pytest.fixture
def log(tmp_path):
    return RunLog(tmp_path / "log.jsonl")


def test_lines_are_read_as_they_were_written(log):
    for step in range(3):
        log.append(LINE | {"step": step})
    assert log.read() == [LINE | {"step": step} for step in range(3)]
    assert len(log) == 3
    log.cut(2)
    assert [line["step"] for line in log.read()] == [0, 1]
    log.cut(0)
    assert len(log) == 0 and log.read() == []


def test_what_is_not_finite_is_null(log):
    log.append(LINE | {"gradient_norm": math.inf, "losses": {"next_token": math.nan, "mtp": 1.0}})
    assert "NaN" not in log.file.read_text() and "Infinity" not in log.file.read_text()
    [line] = log.read()
    assert (line["gradient_norm"], line["losses"]) == (None, {"next_token": None, "mtp": 1.0})


def test_a_line_that_was_cut_off_does_not_count(log):
    log.append(LINE)
    with log.file.open("a") as file:
        file.write('{"step": 1, "los')
    assert len(log) == 1 and log.read() == [LINE]
    log.cut(1)
    log.append(LINE)
    assert log.read() == [LINE, LINE]


def test_a_full_disk(log):
    log.file.symlink_to("/dev/full")
    with pytest.raises(TrainingError, match=r"log.jsonl: expected a log that can be written, found: No space left"):
        log.append(LINE)


DAMAGED = {
    "no JSON": (b'{"step": 1', "expected a line of a run's log, found no valid JSON"),
    "a NaN": (b'{"step": NaN}', "expected a line of a run's log, found no valid JSON: the number NaN"),
    "other bytes": (b"\xff\xfe", "expected a line of a run's log, found no valid JSON"),
    "an empty line": (b"", "expected a line of a run's log, found an empty file"),
    "a list": (b"[1]", "expected a JSON object, found"),
    "other keys": (b'{"epoch": 1}', "learning_rate: expected a number or null, found None"),
    "losses in a list": (json.dumps(LINE | {"losses": [1]}).encode(), "losses: expected numbers by name, found"),
    "a word for a number": (json.dumps(LINE | {"load": {"a": "b"}}).encode(), "load: expected numbers by name, found"),
    "no step": (json.dumps(LINE | {"step": "3"}).encode(), "step: expected an integer, found '3'"),
    "no verdict": (json.dumps(LINE | {"verdict": None}).encode(), "verdict: expected a word, found None"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_line_that_no_run_has_written(log, case):
    line, message = DAMAGED[case]
    log.append(LINE)
    log.file.write_bytes(log.file.read_bytes() + line + b"\n")
    with pytest.raises(TrainingError, match=f"log.jsonl, line 2: {message}") as caught:
        log.read()
    assert "\n" not in str(caught.value)


def test_no_log(log):
    assert len(log) == 0
    with pytest.raises(TrainingError, match=r"log.jsonl: expected the log of a run, found no such file"):
        log.read()
    log.file.mkdir()
    with pytest.raises(TrainingError, match=r"log.jsonl: expected the log of a run, found a directory"):
        log.read()
