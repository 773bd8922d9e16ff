"""Runs whose loss leaps: back, on with other experts, killed in between; and their end where that does not help."""

import shutil

import numpy as np
import pytest

from dsv4 import Checkpoint
from dsv4.errors import TrainingError
from dsv4.learn import repair, snapshots
from dsv4.learn.anticipatory import SpikeRule
from dsv4.learn.optimiser import Optimiser
from dsv4.learn.pretrain import pretrain
from dsv4.learn.recipe import Stage
from dsv4.learn.run_directory import RunDirectory
from dsv4.learn.trainer import Trainer
from learn.runs import (
    KilledError,
    assert_same_run,
    killed,
    killed_after,
    leap,
    log_of,
    recipe,
    short,
    write_texts,
)

RULE = SpikeRule(window=3, deviations=50.0, rollback=4, period=2, delay=1)
SETTINGS = short(12, spikes=RULE)
"""A state every second step: from a spike at step 9, training goes back to that after 4 steps."""


def once(trainer, step):
    """A leap at step 9, unless older weights choose the experts."""
    return 100.0 if step == 9 and not trainer.watch.is_anticipatory(9) else None


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    return write_texts(tmp_path_factory.mktemp("texts"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory, texts):
    """A run that leaps once, whole; and killed when it had found that out, but done nothing about it."""
    place = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        leap(patch, once)
        pretrain(SETTINGS, texts, place / "whole")
        with pytest.raises(KilledError):
            pretrain(SETTINGS, texts, place / "leapt", watch=killed_after(9))
    return place


@pytest.fixture
def leapt(runs, tmp_path):
    shutil.copytree(runs / "leapt", tmp_path / "run")
    return tmp_path / "run"


def test_a_run_goes_back_once_and_on_with_experts_that_older_weights_choose(runs):
    log = log_of(runs / "whole")
    assert [line["step"] for line in log] == [*range(10), *range(4, 12)]
    assert [place for place, line in enumerate(log) if line["verdict"] != "go on"] == [9]
    assert [line["step"] for line in log if line["anticipatory"]] == [*range(4, 10)]


def delete_one_and_die(directory, step):
    directory.state_file(directory.newest()).unlink()
    raise KilledError


MOMENTS = {
    "before the way back": (repair, "load", killed),
    "when one state is deleted": (RunDirectory, "forget_after", delete_one_and_die),
    "when all are deleted": (Trainer, "begin_anticipatory", killed),
    "before the state is replaced": (repair, "keep", killed),
    "between state and model": (snapshots, "write_model", killed),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_that_is_killed_in_the_repair_ends_with_the_same_bits(runs, leapt, texts, monkeypatch, moment):
    leap(monkeypatch, once)
    where, name, fatal = MOMENTS[moment]

    def from_the_spike_on(report, seconds):
        if report.verdict == "roll back":
            patch.setattr(where, name, fatal)

    with monkeypatch.context() as patch, pytest.raises(KilledError):
        pretrain(SETTINGS, texts, leapt, resume=True, watch=from_the_spike_on)
    pretrain(SETTINGS, texts, leapt, resume=True)
    assert_same_run(leapt, runs / "whole")


def test_a_run_that_is_killed_after_the_repair_goes_on_there(runs, leapt, texts, monkeypatch):
    """And not from the steps that were given up."""
    leap(monkeypatch, once)
    with pytest.raises(KilledError):
        pretrain(SETTINGS, texts, leapt, resume=True, watch=killed_after(5))
    assert RunDirectory(leapt).steps() == [2, 4]
    assert len(log_of(leapt)) == 12
    seen = []
    with pytest.raises(KilledError):
        pretrain(SETTINGS, texts, leapt, resume=True, watch=killed_after(7, seen))
    assert seen == [4, 5, 6, 7]
    assert len(log_of(leapt)) == 14 and all(line["anticipatory"] for line in log_of(leapt)[10:])
    pretrain(SETTINGS, texts, leapt, resume=True)
    assert_same_run(leapt, runs / "whole")


@pytest.mark.parametrize("second", [7, 9])
def test_a_loss_that_leaps_in_the_period_ends_the_run(tmp_path, texts, monkeypatch, second):
    """At the step of the first leap, or at one that was done without a leap before: never back again and again."""

    def loss(trainer, step):
        leaps = step == second if trainer.watch.is_anticipatory(step) else step == 9
        return 100.0 if leaps else None

    leap(monkeypatch, loss)
    with pytest.raises(TrainingError, match=rf"step {second}: expected a loss like those before, found 100; "):
        pretrain(SETTINGS, texts, tmp_path / "run")
    found = [(line["step"], line["verdict"]) for line in log_of(tmp_path / "run") if line["verdict"] != "go on"]
    assert found == [(9, "roll back"), (second, "stop")]


def test_a_leap_behind_the_period_is_gone_back_from_too(tmp_path, texts, monkeypatch):
    leap(monkeypatch, lambda t, step: 100.0 if step in (9, 11) and not t.watch.is_anticipatory(step) else None)
    pretrain(SETTINGS, texts, tmp_path / "run")
    steps = [line["step"] for line in log_of(tmp_path / "run")]
    assert steps == [*range(10), *range(4, 12), *range(6, 12)]


class TestEnd:
    @pytest.mark.parametrize(("at", "good"), [(0, 0), (1, 0), (3, 2), (4, 2), (5, 4)])
    def test_the_model_is_the_last_whose_loss_was_good(self, tmp_path, texts, monkeypatch, at, good):
        """That a state is bad shows in the step after it."""
        leap(monkeypatch, lambda trainer, step: np.nan if step == at else None)
        run = tmp_path / "run"
        for resume in (False, True):
            with pytest.raises(TrainingError) as caught:
                pretrain(short(6), texts, run, resume=resume)
            words = f"step {at}: expected a loss like those before, found nan; {run / 'model'} is the model after"
            assert str(caught.value) == f"{words} {good} steps"
            directory = RunDirectory(run)
            assert directory.newest() == good
            found, _ = directory.load_state(good)
            model = Checkpoint.open(run / "model")
            model.validate()
            np.testing.assert_array_equal(model.weight("head.weight"), found["weights.head.weight"])
        assert log_of(run)[-1]["losses"]["next_token"] is None

    def test_gradients_that_are_not_finite_are_named(self, tmp_path, texts, monkeypatch):
        original = Trainer._gradients

        def endless(self, now, number):
            found = original(self, now, number)
            return found._replace(gradients={name: one + np.float32(np.inf) for name, one in found.gradients.items()})

        monkeypatch.setattr(Trainer, "_gradients", endless)
        with pytest.raises(TrainingError, match=r"^step 0: expected gradients with a finite norm, found (inf|nan); "):
            pretrain(short(), texts, tmp_path / "run")

    def test_weights_that_are_not_finite(self, tmp_path, texts, monkeypatch):
        """They are found when the next stage's model reads them."""
        original = Optimiser.step

        def too_far(self, gradients, learning_rate):
            original(self, gradients, learning_rate)
            self.parameters["norm.weight"] = np.full_like(self.parameters["norm.weight"], np.inf)

        monkeypatch.setattr(Optimiser, "step", too_far)
        stages = (Stage("dense", 1, 16, 2), Stage("sparse", 3, 48, 2))
        with pytest.raises(TrainingError, match=r"^step 1: .*'norm.weight': expected finite .*; .* after 0 steps$"):
            pretrain(recipe(stages=stages, checkpoint_interval=1), texts, tmp_path / "run")

    def test_weights_that_cannot_be_stored(self, tmp_path, texts, monkeypatch):
        """In the decay, FP4 holds no number that is larger than 2.55e38."""
        original, steps = Optimiser.step, []

        def too_far(self, gradients, learning_rate):
            original(self, gradients, learning_rate)
            steps.append(learning_rate)
            if len(steps) == 3:
                name = "layers.1.ffn.experts.0.w1.weight"
                self.parameters[name] = np.full_like(self.parameters[name], 3e38)

        monkeypatch.setattr(Optimiser, "step", too_far)
        expected = r"^step 3: weights that are to be stored: layers\.\d\.ffn\.experts\.\d\.w\d\.weight: "
        with pytest.raises(TrainingError, match=expected) as caught:
            pretrain(recipe(stages=(Stage("decay", 5, 16, 2),)), texts, tmp_path / "run")
        assert str(caught.value).endswith(f"; {tmp_path / 'run' / 'model'} is the model after 2 steps")
        assert "\n" not in str(caught.value)


def test_a_spike_in_the_decay_with_a_run_that_is_resumed(tmp_path, texts, monkeypatch):
    """Computation with stored weights, older weights that choose, and a process that is killed."""
    rule = SpikeRule(window=2, deviations=50.0, rollback=2, period=2, delay=1)
    settings = recipe(stages=(Stage("dense", 2, 16, 2), Stage("decay", 3, 16, 2)), spikes=rule)
    leap(monkeypatch, lambda trainer, step: 100.0 if step == 4 and not trainer.watch.is_anticipatory(4) else None)
    pretrain(settings, texts, tmp_path / "whole")
    with pytest.raises(KilledError):
        pretrain(settings, texts, tmp_path / "run", watch=killed_after(4))
    pretrain(settings, texts, tmp_path / "run", resume=True)
    assert [line["step"] for line in log_of(tmp_path / "run")] == [0, 1, 2, 3, 4, 2, 3, 4]
    assert_same_run(tmp_path / "run", tmp_path / "whole")
