"""Whole runs: what they leave, killed and resumed to the same bits, on full disks, and by the command."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from command import is_one_line, runner
from dsv4 import Checkpoint, load
from dsv4.checkpoint.convert import convert
from dsv4.errors import CheckpointError, SettingError, TrainingError
from dsv4.learn import snapshots
from dsv4.learn.pretrain import pretrain
from dsv4.learn.recipe import Recipe, Stage, recipe_as_json
from dsv4.learn.run_directory import RunDirectory
from dsv4.learn.trainable import Trainable
from dsv4.text.tokenizer import Tokenizer
from full_disk import full_disk
from learn.runs import (
    KilledError,
    assert_same_run,
    final,
    killed,
    killed_after,
    log_of,
    model_bytes,
    recipe,
    same_bits,
    short,
    write_texts,
)

dsv4 = pytest.fixture(runner)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    return write_texts(tmp_path_factory.mktemp("texts"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory, texts):
    """A run of all stages, by which others are measured."""
    return pretrain(recipe(), texts, tmp_path_factory.mktemp("whole") / "run").parent


@pytest.fixture(scope="module")
def quick(tmp_path_factory, texts):
    """Likewise, of six dense steps."""
    return pretrain(short(6), texts, tmp_path_factory.mktemp("quick") / "run").parent


def test_a_run_leaves_an_ordinary_checkpoint(whole):
    checkpoint = Checkpoint.open(whole / "model")
    checkpoint.validate()
    assert checkpoint.has_mtp
    tokenizer = Tokenizer.from_file(whole / "model")
    loaded = load(whole / "model", backend="numpy")
    assert np.isfinite(loaded([tokenizer.encode("The rose")])).all()
    state = final(whole)
    np.testing.assert_array_equal(checkpoint.weight("head.weight"), state["weights.head.weight"])
    log = log_of(whole)
    assert [line["step"] for line in log] == list(range(12))
    assert [line["kind"] for line in log] == ["dense"] * 4 + ["indexer"] * 2 + ["sparse"] * 3 + ["decay"] * 3


def test_what_is_trained_can_be_stored_as_released(tmp_path, whole):
    convert(whole / "model", tmp_path / "released")
    assert Checkpoint.open(tmp_path / "released").config.quantised
    assert np.isfinite(load(tmp_path / "released", backend="numpy")([[5, 6, 7]])).all()


def test_where_the_indexers_stand_is_in_the_log(tmp_path, texts, monkeypatch):
    """From the warm-up on, where sequences are so long that an indexer has to choose."""
    monkeypatch.setattr(sys.modules[pretrain.__module__], "CAPTURE_INTERVAL", 2)
    stages = (Stage("dense", 2, 32, 2), Stage("indexer", 2, 32, 2), Stage("sparse", 2, 32, 2))
    pretrain(recipe(stages=stages), texts, tmp_path / "run")
    standing = [line["standing"] for line in log_of(tmp_path / "run")]
    assert [bool(one) for one in standing] == [False, False, True, False, True, False]
    assert standing[2].keys() == standing[4].keys() == {"layers.1.attn.", "layers.3.attn."}


def test_a_run_without_mtp_on_documents_and_conversations(tmp_path):
    ratios = recipe().model.compress_ratios[:-1]
    model = replace(recipe().model, num_nextn_predict_layers=0, compress_ratios=ratios)
    lines = [{"text": "rose and thorn, crown and sword " * 3}]
    lines += [
        {"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "The duke. " * n}]}
        for n in (2, 9)
    ]
    (tmp_path / "talk.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name, watch in (("whole", lambda *_: None), ("run", killed_after(3))):
        try:
            pretrain(short(4, model=model), [tmp_path / "talk.jsonl"], tmp_path / name, watch=watch)
        except KilledError:
            pretrain(short(4, model=model), [tmp_path / "talk.jsonl"], tmp_path / name, resume=True)
    assert not Checkpoint.open(tmp_path / "run" / "model").has_mtp
    assert log_of(tmp_path / "run")[0]["losses"].keys() == {"next_token", "balance"}
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def lines_of(log: Path) -> int:
    return log.read_bytes().count(b"\n") if log.exists() else 0


class TestKilled:
    @pytest.mark.parametrize("steps", [(0, 5, 11), (1, 4, 9)])
    def test_after_a_step_a_run_ends_with_the_same_bits(self, tmp_path, texts, whole, steps):
        for place, step in enumerate(steps):
            with pytest.raises(KilledError):
                pretrain(recipe(), texts, tmp_path / "run", resume=place > 0, watch=killed_after(step))
        pretrain(recipe(), texts, tmp_path / "run", resume=True)
        assert_same_run(tmp_path / "run", whole)

    @pytest.mark.parametrize("save", [2, 4])
    def test_between_state_and_model(self, tmp_path, texts, quick, monkeypatch, save):
        """The second of four times, or the last one, after which no step is left to be done."""
        saved, original = [], snapshots.write_model

        def dies(directory, trainer):
            saved.append(trainer.step)
            if len(saved) == save:
                raise KilledError
            original(directory, trainer)

        with monkeypatch.context() as patch, pytest.raises(KilledError):
            patch.setattr(snapshots, "write_model", dies)
            pretrain(short(6), texts, tmp_path / "run")
        directory, seen = RunDirectory(tmp_path / "run"), []
        assert directory.newest() == saved[-1] == 2 * save - 2

        def looks(report, seconds):
            seen.append(Checkpoint.open(directory.model).weight("head.weight"))

        state, _ = directory.load_state(saved[-1])
        pretrain(short(6), texts, directory.path, resume=True, watch=looks)
        if seen:
            np.testing.assert_array_equal(seen[0], state["weights.head.weight"])
        assert_same_run(directory.path, quick)

    def test_while_the_log_is_cut(self, tmp_path, texts, quick, monkeypatch):
        with pytest.raises(KilledError):
            pretrain(short(6), texts, tmp_path / "run", watch=killed_after(4))
        with monkeypatch.context() as patch, pytest.raises(KilledError):
            patch.setattr("dsv4.learn.run_log.replacing", killed)
            pretrain(short(6), texts, tmp_path / "run", resume=True)
        assert len(log_of(tmp_path / "run")) == 5
        pretrain(short(6), texts, tmp_path / "run", resume=True)
        assert_same_run(tmp_path / "run", quick)

    def test_by_a_signal(self, tmp_path, texts):
        """Where it does not expect it, twice: each time when some steps are done."""
        file, out = tmp_path / "recipe.json", tmp_path / "run"
        file.write_text(json.dumps(recipe_as_json(short(24))))
        arguments = [sys.executable, "-m", "dsv4", "train", *map(str, texts), "--recipe", str(file), "--out", str(out)]
        for done, resume in ((3, []), (12, ["--resume"])):
            process = subprocess.Popen([*arguments, *resume], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            while process.poll() is None and not (lines_of(out / "log.jsonl") >= done):
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            _, err = process.communicate()
            assert process.returncode == -signal.SIGKILL, err
        subprocess.run([*arguments, "--resume"], stdout=subprocess.DEVNULL, check=True)
        pretrain(short(24), texts, tmp_path / "whole")
        assert_same_run(out, tmp_path / "whole")


def test_another_seed_has_other_bits(tmp_path, texts, quick):
    pretrain(short(6), texts, tmp_path / "same")
    same_bits(final(tmp_path / "same"), final(quick))
    pretrain(short(6, seed=1), texts, tmp_path / "other")
    assert (final(tmp_path / "other")["weights.head.weight"] != final(quick)["weights.head.weight"]).any()


class TestFullDisk:
    """Nothing that was saved is lost, and what is said is one line."""

    def fails(self, run, texts, error, message, watch=lambda *_: None):
        with pytest.raises(error, match=message) as caught:
            pretrain(short(6), texts, run, watch=watch)
        assert "\n" not in str(caught.value)
        directory = RunDirectory(run)
        Checkpoint.open(directory.model).validate()
        return directory

    def test_in_a_state(self, tmp_path, texts, quick, monkeypatch):
        original = RunDirectory.save_state

        def fills(self, step, *arguments, **settings):
            with full_disk(50_000 if step == 4 else 2**40):
                original(self, step, *arguments, **settings)

        with monkeypatch.context() as patch:
            patch.setattr(RunDirectory, "save_state", fills)
            message = r"00000004.safetensors: expected a file that can be written, found: File too large"
            directory = self.fails(tmp_path / "run", texts, SettingError, message)
        assert directory.steps() == [0, 2]
        pretrain(short(6), texts, directory.path, resume=True)
        assert_same_run(directory.path, quick)

    def test_in_the_model(self, tmp_path, texts, quick, monkeypatch):
        original, saved = Trainable.save, []

        def fills(self, *arguments, **settings):
            saved.append(1)
            with full_disk(50_000 if len(saved) == 3 else 2**40):
                original(self, *arguments, **settings)

        with monkeypatch.context() as patch:
            patch.setattr(Trainable, "save", fills)
            message = r"model: expected files that can be written, found: File too large"
            directory = self.fails(tmp_path / "run", texts, CheckpointError, message)
        assert directory.newest() == 4
        pretrain(short(6), texts, directory.path, resume=True)
        assert_same_run(directory.path, quick)

    def test_in_the_log(self, tmp_path, texts, quick):
        log, aside = tmp_path / "run" / "log.jsonl", tmp_path / "aside"

        def fills(report, seconds):
            if report.step == 2:
                log.rename(aside)
                log.symlink_to("/dev/full")

        message = r"log.jsonl: expected a log that can be written, found: No space left on device"
        directory = self.fails(tmp_path / "run", texts, TrainingError, message, fills)
        log.unlink()
        aside.rename(log)
        pretrain(short(6), texts, directory.path, resume=True)
        assert_same_run(directory.path, quick)


class TestDamaged:
    @pytest.fixture
    def run(self, tmp_path, texts):
        with pytest.raises(KilledError):
            pretrain(short(6), texts, tmp_path / "run", watch=killed_after(2))
        return RunDirectory(tmp_path / "run")

    def test_a_state_of_something_else_leaves_all_as_it_is(self, run, texts):
        state, _ = run.load_state(2)
        run.save_state(2, {name: array for name, array in state.items() if name != "weights.norm.weight"}, 0)
        log, model = log_of(run.path), model_bytes(run.path)
        with pytest.raises(
            TrainingError, match=r"00000002.safetensors: 'weights.norm.weight': expected an array, found"
        ):
            pretrain(short(6), texts, run.path, resume=True)
        assert (log_of(run.path), model_bytes(run.path)) == (log, model)

    def test_files_that_are_no_states_do_not_count(self, run, texts, quick):
        (run.path / "states" / "old.safetensors").touch()
        pretrain(short(6), texts, run.path, resume=True)
        assert_same_run(run.path, quick)

    def test_no_state_is_left(self, run, texts):
        for step in run.steps():
            run.state_file(step).unlink()
        with pytest.raises(TrainingError, match="states: expected a state, found none"):
            pretrain(short(6), texts, run.path, resume=True)

    def test_texts_in_a_list(self, run, texts):
        run.write_json("texts.json", ["plays.txt"])
        with pytest.raises(TrainingError, match=r"texts.json: expected the hashes of texts by name, found \['plays"):
            pretrain(short(6), texts, run.path, resume=True)


def test_a_second_process_is_refused(tmp_path, texts):
    def second(report, seconds):
        with pytest.raises(TrainingError, match="expected no other process to train there, found one"):
            pretrain(short(), texts, tmp_path / "run", resume=True)

    pretrain(short(), texts, tmp_path / "run", watch=second)


class TestCommand:
    def write(self, directory: Path, chosen: Recipe, **changes) -> Path:
        file = directory / "recipe.json"
        file.write_text(json.dumps(recipe_as_json(chosen) | changes))
        return file

    def test_train_and_plot(self, tmp_path, texts, quick, dsv4):
        pytest.importorskip("matplotlib")
        file = self.write(tmp_path, short(6))
        status, out, _ = dsv4("train", *texts, "--recipe", file, "--out", tmp_path / "run")
        assert (status, out) == (0, f"{tmp_path / 'run' / 'model'}\n")
        assert_same_run(tmp_path / "run", quick)
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
            ({}, ["--init", "nowhere", "--resume"], "expected none, since the run is resumed"),
            ({"stages": [{"kind": "dense", "steps": 10**12, "length": 16, "batch": 1}]}, [], "stages[0].steps"),
        ],
    )
    def test_what_is_wrong_is_said_in_one_line(self, tmp_path, texts, dsv4, changes, options, message):
        file = self.write(tmp_path, recipe(), **changes)
        status, out, err = dsv4("train", *texts, "--recipe", file, "--out", tmp_path / "run", *options)
        assert (status, out) == (2, "")
        assert is_one_line(err)
        assert message in err

    @pytest.mark.parametrize("text", ["O!", "", " \n", None])
    def test_texts_that_cannot_be_leave_nothing(self, tmp_path, dsv4, text):
        file, place = self.write(tmp_path, recipe()), tmp_path / "short.txt"
        if text is not None:
            place.write_text(text)
        status, out, err = dsv4("train", place, "--recipe", file, "--out", tmp_path / "run")
        assert (status, out) == (2, "")
        assert is_one_line(err)
        assert not (tmp_path / "run").exists()

    def test_a_text_called_plot(self, tmp_path, texts, dsv4, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "plot").write_bytes(texts[0].read_bytes())
        file = self.write(tmp_path, short(1))
        status, _, _ = dsv4("train", "./plot", "--recipe", file, "--out", "run")
        assert status == 0 and [*RunDirectory("run").read_json("texts.json")] == ["plot"]

    def test_what_is_missing(self, tmp_path, texts, dsv4):
        file = self.write(tmp_path, recipe())
        for arguments, message in (
            ([*texts, "--out", tmp_path / "run"], "--recipe"),
            ([*texts, "--recipe", file], "--out"),
            (["plot", tmp_path], "log.jsonl: expected the log of a run, found no such file"),
            (["plot"], "expected the directory of one run and nothing else, found []"),
            (["plot", "a", "b"], "found ['a', 'b']"),
            (["plot", "a", "--resume", "--out", "b"], "found ['a'] and --out and --resume"),
        ):
            status, _, err = dsv4("train", *arguments)
            assert status == 2
            assert is_one_line(err)
            assert message in err
