"""`--memory`: sizes as people write them, the same text with a budget, and one line about what was read."""

import json
import os
import re

import pytest

from command import is_one_line, runner
from dsv4 import Checkpoint, bundled_model
from dsv4.checkpoint import direct, reading
from dsv4.cli.quantities import bytes_of
from dsv4.errors import SettingError
from full_disk import full_disk
from tiny_checkpoint import listing, write_released


@pytest.fixture
def dsv4(monkeypatch, capfd):
    return runner(monkeypatch, capfd)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8GiB", 2**33),
        ("500 MB", 500_000_000),
        ("1.5e9", 1_500_000_000),
        ("64kib", 2**16),
        ("12B", 12),
        ("2TB", 2 * 10**12),
    ],
)
def test_sizes(text, expected):
    assert bytes_of(text, "--memory") == expected


@pytest.mark.parametrize("text", ["", "GiB", "8 gallons", "-1GB", "1,5GB", "0x10"])
def test_what_is_no_size(text):
    with pytest.raises(SettingError, match=r"^--memory: expected a size such as 8GiB or 500MB, found "):
        bytes_of(text, "--memory")


def test_the_text_is_the_same_and_a_line_says_what_was_read(dsv4):
    arguments = ("generate", "The", "-n", 4, "-t", 0, "-b", "numpy")
    free = dsv4(*arguments)
    size = Checkpoint.open(bundled_model()).nbytes // 2 + 2**22  # room for caches, and half of the weights
    bounded = dsv4(*arguments, "--memory", size)
    assert free[2] == ""
    assert bounded[:2] == free[:2]
    assert re.fullmatch(r"read \S+ [kM]?B, \S+ [kM]?B/s; \d+ of \d+ parts were in memory\n", bounded[2])


@pytest.mark.parametrize(
    ("size", "message"), [("10", "memory: expected at least"), ("much", "--memory: expected a size")]
)
def test_a_budget_that_cannot_be_is_one_line(dsv4, size, message):
    status, out, err = dsv4("generate", "The", "-b", "numpy", "--memory", size)
    assert (status, out) == (2, "")
    assert is_one_line(err)
    assert message in err


def vanish(file):
    file.unlink()


def cut_short(file):
    os.truncate(file, file.stat().st_size // 2)


@pytest.fixture
def failing(tmp_path, monkeypatch):
    """A model whose file something happens to when it is read for the hundredth time, in the middle of a run."""
    write_released(tmp_path / "model")
    reads, happens = [], []

    def read_tensor(entry):
        reads.append(entry)
        if len(reads) == 100:
            happens[0](entry.file)
        return direct.read_tensor(entry)

    monkeypatch.setattr(reading, "read_tensor", read_tensor)
    (tmp_path / "ids.json").write_text(json.dumps(list(range(20))))
    return tmp_path, happens, reads


@pytest.mark.parametrize(
    ("happens", "message"),
    [(vanish, "expected a readable file, found: No such file"), (cut_short, "truncated after it was opened")],
)
def test_a_file_that_fails_in_the_middle_of_a_run_is_one_line_and_nothing_is_half_written(
    dsv4, failing, happens, message
):
    directory, what, reads = failing
    what.append(happens)
    arguments = ("--ids", directory / "ids.json", "--out", directory / "logits.npy", "--chunk", 1)
    status, out, err = dsv4("logits", directory / "model", *arguments, "-b", "numpy", "--memory", 120_000)
    assert (status, out) == (2, "")
    assert is_one_line(err)
    assert message in err
    assert "model.safetensors: tensor '" in err
    assert len(reads) >= 100
    assert listing(directory) == ["ids.json", "model"]


def test_a_disk_that_fills_up_is_one_line_and_nothing_is_half_written(dsv4, tmp_path):
    write_released(tmp_path / "model")
    (tmp_path / "ids.json").write_text(json.dumps(list(range(20)) * 20))
    arguments = ("--ids", tmp_path / "ids.json", "--out", tmp_path / "logits.npy")
    with full_disk(20_000):
        status, out, err = dsv4("logits", tmp_path / "model", *arguments, "-b", "numpy", "--memory", "1MB")
    assert (status, out) == (2, "")
    assert is_one_line(err)
    assert "logits.npy" in err
    assert listing(tmp_path) == ["ids.json", "model"]
