"""Whole runs: killed and resumed to the same bits, on full disks, with losses that are no numbers, and wrong inputs."""

import errno
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from command import is_one_line, runner
from dsv4 import Checkpoint, load
from dsv4.checkpoint.convert import convert
from dsv4.errors import DSV4Error, SettingError, TextError, TrainingError
from dsv4.learn import run_directory
from dsv4.learn.anticipatory import SpikeRule
from dsv4.learn.pretrain import pretrain
from dsv4.learn.recipe import Recipe, Stage, recipe_as_json
from dsv4.text.tokenizer import Tokenizer
from learn.runs import recipe, write_texts

dsv4 = pytest.fixture(runner)


@pytest.fixture
def texts(tmp_path):
    return write_texts(tmp_path)


class KilledError(Exception):
    """Stands for a process that ends without another word."""


def killed_after(step: int):
    def watch(report, seconds):
        if report.step == step:
            raise KilledError

    return watch


def final(directory: Path) -> dict[str, np.ndarray]:
    """The last state of a run, everything that changes."""
    run = run_directory.RunDirectory(directory)
    return run.load_state(run.steps()[-1])


def same_bits(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def log_of(directory: Path) -> list[dict]:
    """Without the times."""
    return [
        {key: value for key, value in json.loads(line).items() if key != "seconds"}
        for line in (directory / "log.jsonl").read_text().splitlines()
    ]


def test_a_run_leaves_an_ordinary_checkpoint(tmp_path, texts):
    model = pretrain(recipe(), texts, tmp_path / "run")
    assert model == tmp_path / "run" / "model"
    checkpoint = Checkpoint.open(model)
    checkpoint.validate()
    assert checkpoint.has_mtp
    tokenizer = Tokenizer.from_file(model)
    loaded = load(model, backend="numpy")
    assert np.isfinite(loaded([tokenizer.encode("The rose")])).all()
    state = final(tmp_path / "run")
    np.testing.assert_array_equal(checkpoint.weight("head.weight"), state["weights.head.weight"])
    log = log_of(tmp_path / "run")
    assert [line["step"] for line in log] == list(range(12))
    assert [line["kind"] for line in log] == ["dense"] * 4 + ["indexer"] * 2 + ["sparse"] * 3 + ["decay"] * 3


def test_what_is_trained_can_be_stored_as_released(tmp_path, texts):
    model = pretrain(recipe(stages=(Stage("decay", 2, 16, 2),)), texts, tmp_path / "run")
    convert(model, tmp_path / "released")
    assert Checkpoint.open(tmp_path / "released").config.quantised
    assert np.isfinite(load(tmp_path / "released", backend="numpy")([[5, 6, 7]])).all()


@pytest.mark.parametrize("step", [0, 1, 4, 5, 9, 11])
def test_a_run_that_was_killed_ends_with_the_same_bits(tmp_path, texts, step):
    pretrain(recipe(), texts, tmp_path / "whole")
    with pytest.raises(KilledError):
        pretrain(recipe(), texts, tmp_path / "killed", watch=killed_after(step))
    pretrain(recipe(), texts, tmp_path / "killed", resume=True)
    same_bits(final(tmp_path / "killed"), final(tmp_path / "whole"))
    assert log_of(tmp_path / "killed") == log_of(tmp_path / "whole")


def test_two_runs_have_the_same_bits_and_another_seed_has_others(tmp_path, texts):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        pretrain(recipe(seed=seed), texts, tmp_path / name)
    same_bits(final(tmp_path / "a"), final(tmp_path / "b"))
    assert (final(tmp_path / "a")["weights.head.weight"] != final(tmp_path / "c")["weights.head.weight"]).any()


def test_a_run_that_is_killed_by_a_signal(tmp_path, texts):
    """At any moment, again and again, until it gets through."""
    file = tmp_path / "recipe.json"
    long = recipe(stages=(Stage("dense", 30, 16, 2),))
    file.write_text(json.dumps(recipe_as_json(long)))
    pretrain(long, texts, tmp_path / "whole")
    out, wait = tmp_path / "killed", 3.0
    arguments = [sys.executable, "-m", "dsv4", "train", *map(str, texts), "--recipe", str(file), "--out", str(out)]
    for attempt in range(12):
        resume = ["--resume"] if (out / "recipe.json").exists() else []
        process = subprocess.Popen([*arguments, *resume], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            _, err = process.communicate(timeout=wait if attempt < 10 else 120)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            wait *= 1.3
            continue
        assert process.returncode == 0, err
        break
    same_bits(final(out), final(tmp_path / "whole"))


def test_a_full_disk_loses_nothing_that_was_saved(tmp_path, texts, monkeypatch):
    pretrain(recipe(), texts, tmp_path / "whole")
    original, calls = run_directory.save_file, []

    def full(arrays, path):
        calls.append(path)
        if len(calls) == 3:
            Path(path).write_bytes(b"cut")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(arrays, path)

    monkeypatch.setattr(run_directory, "save_file", full)
    with pytest.raises(SettingError, match="No space left"):
        pretrain(recipe(), texts, tmp_path / "run")
    assert run_directory.RunDirectory(tmp_path / "run").steps()[-1:] == [2]
    pretrain(recipe(), texts, tmp_path / "run", resume=True)
    same_bits(final(tmp_path / "run"), final(tmp_path / "whole"))


def test_a_loss_that_is_no_number_leaves_the_last_good_model(tmp_path, texts):
    wild = recipe(learning_rate=1e12, final_learning_rate=1e12, stages=(Stage("dense", 20, 16, 2),), warmup_steps=0)
    with pytest.raises(TrainingError, match=r"step \d+: expected a loss like those before, found nan"):
        pretrain(wild, texts, tmp_path / "run")
    Checkpoint.open(tmp_path / "run" / "model").validate()


def test_a_spike_is_gone_back_from_and_a_killed_run_does_it_again(tmp_path, texts):
    """At a learning rate that is far too large."""
    rule = SpikeRule(window=3, deviations=1.0, rollback=2, period=3, delay=1)
    stages = (Stage("sparse", 12, 16, 4),)
    settings = recipe(stages=stages, spikes=rule, learning_rate=0.3, final_learning_rate=0.3)
    for name, watch in (("whole", None), ("killed", killed_after(8))):
        with suppress(KilledError, TrainingError):
            pretrain(settings, texts, tmp_path / name, **({"watch": watch} if watch else {}))
    with suppress(TrainingError):
        pretrain(settings, texts, tmp_path / "killed", resume=True)
    verdicts = [line["verdict"] for line in log_of(tmp_path / "whole")]
    assert "roll back" in verdicts
    assert log_of(tmp_path / "killed") == log_of(tmp_path / "whole")
    same_bits(final(tmp_path / "killed"), final(tmp_path / "whole"))


def test_a_run_starts_from_a_checkpoint_and_its_tokenizer(tmp_path, texts):
    first = pretrain(recipe(), texts, tmp_path / "first")
    second = recipe(stages=(Stage("sparse", 1, 16, 2),), warmup_steps=10**6, seed=5)
    pretrain(second, texts[:1], tmp_path / "second", init=first)
    found, expected = (final(tmp_path / name)["weights.head.weight"] for name in ("second", "first"))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)  # after one step at a learning rate of nearly 0
    assert (tmp_path / "second" / "tokenizer.json").read_bytes() == (first / "tokenizer.json").read_bytes()
    other = replace(recipe().model, moe_intermediate_size=16)
    with pytest.raises(TrainingError, match=r"tensor '.*': expected the recipe's shape"):
        pretrain(recipe(model=other), texts, tmp_path / "third", init=first)


class TestRefused:
    def test_a_run_of_something_else(self, tmp_path, texts):
        with pytest.raises(TrainingError, match="expected a run to resume, found none"):
            pretrain(recipe(), texts, tmp_path / "run", resume=True)
        pretrain(recipe(stages=(Stage("dense", 1, 16, 2),)), texts, tmp_path / "run")
        with pytest.raises(TrainingError, match="expected a run with the same stages"):
            pretrain(recipe(), texts, tmp_path / "run", resume=True)
        with pytest.raises(TrainingError, match="expected a new or empty directory"):
            pretrain(recipe(), texts, tmp_path / "run")
        texts[0].write_text("something else " * 99)
        with pytest.raises(TrainingError, match=r"expected the run's text 'plays.txt', found another text"):
            pretrain(recipe(stages=(Stage("dense", 1, 16, 2),)), texts, tmp_path / "run", resume=True)

    def test_texts(self, tmp_path, texts):
        (tmp_path / "short.txt").write_text("O!")
        (tmp_path / "blank.txt").write_text(" \n")
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "plays.txt").write_text("O!")
        for given, message in (
            ([], "expected at least one file"),
            ([tmp_path / "none.txt"], "none.txt"),
            ([tmp_path / "blank.txt"], "expected some text, found none"),
            ([tmp_path / "short.txt"], "expected at least one sequence of"),
            ([texts[0], tmp_path / "other" / "plays.txt"], "expected files of different names"),
        ):
            with pytest.raises(TextError, match=message):
                pretrain(recipe(), given, tmp_path / f"run-{len(message)}")

    def test_a_vocabulary_that_the_tokenizer_does_not_fit(self, tmp_path, texts):
        first = pretrain(recipe(stages=(Stage("dense", 1, 16, 2),)), texts, tmp_path / "first")
        fewer = replace(recipe().model, vocab_size=280)
        with pytest.raises(DSV4Error, match=r"vocab_size = 280"):
            pretrain(recipe(model=fewer), texts, tmp_path / "second", init=first)


class TestCommand:
    def write(self, directory: Path, chosen: Recipe, **changes) -> Path:
        file = directory / "recipe.json"
        file.write_text(json.dumps(recipe_as_json(chosen) | changes))
        return file

    def test_train_and_plot(self, tmp_path, texts, dsv4):
        pytest.importorskip("matplotlib")
        file = self.write(tmp_path, recipe())
        status, out, _ = dsv4("train", *texts, "--recipe", file, "--out", tmp_path / "run")
        assert (status, out) == (0, f"{tmp_path / 'run' / 'model'}\n")
        same = pretrain(recipe(), texts, tmp_path / "same")
        same_bits(final(tmp_path / "run"), final(same.parent))
        status, out, _ = dsv4("train", "plot", tmp_path / "run")
        assert (status, out) == (0, f"{tmp_path / 'run' / 'plot.png'}\n")
        assert (tmp_path / "run" / "plot.png").read_bytes().startswith(b"\x89PNG")

    @pytest.mark.parametrize(
        ("changes", "options", "message"),
        [
            ({"learning_rat": 1}, [], "learning_rat"),
            ({"clip_norm": "1"}, [], "clip_norm"),
            ({"stages": []}, [], "stages"),
            ({}, ["--resume"], "expected a run to resume"),
            ({}, ["--init", "nowhere"], "nowhere"),
        ],
    )
    def test_what_is_wrong_is_said_in_one_line(self, tmp_path, texts, dsv4, changes, options, message):
        file = self.write(tmp_path, recipe(), **changes)
        status, out, err = dsv4("train", *texts, "--recipe", file, "--out", tmp_path / "run", *options)
        assert (status, out) == (2, "")
        assert is_one_line(err)
        assert message in err

    def test_what_is_missing(self, tmp_path, texts, dsv4):
        file = self.write(tmp_path, recipe())
        for arguments, message in (
            ([*texts, "--out", tmp_path / "run"], "--recipe"),
            ([*texts, "--recipe", file], "--out"),
            (["plot", tmp_path], "found no log.jsonl"),
            (["plot"], "the directory of one run"),
        ):
            status, _, err = dsv4("train", *arguments)
            assert status == 2
            assert is_one_line(err)
            assert message in err
