"""Runs of post-training: each stage changes what it should, and a killed run ends with the same bits."""

import re
from dataclasses import replace

import numpy as np
import pytest

from dsv4.checkpoint import Checkpoint
from dsv4.errors import PromptError, SettingError, TrainingError
from dsv4.learn import Trainable
from dsv4.learn.post import fine_tuning, reinforcement
from dsv4.learn.post.efforts import Effort
from dsv4.learn.post.recording import RecordingSampler
from dsv4.learn.post.run import distill, grpo, posttrain, sft, train_stage
from dsv4.learn.run_directory import RunDirectory
from learn.post.stages import (
    FINE,
    MODEL,
    RECIPE,
    REWARDED,
    TAUGHT,
    assert_same_stage,
    checkpoint,
    killed_after,
    starting,
)
from learn.runs import KilledError

STAGES = ("tuned", "rewarded", "student")

NEVER_USED = ("layers.2.attn.compressor.ape",)
"""Starts at zero, and no answer here is long enough for an entry of HCA."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A run of all stages."""
    out = tmp_path_factory.mktemp("run") / "out"
    posttrain(RECIPE, out)
    return out


@pytest.fixture(scope="module")
def start(tmp_path_factory, tokenizer_directory):
    return checkpoint(tmp_path_factory.mktemp("start") / "model", tokenizer_directory)


def weights(directory):
    return dict(Trainable.of(Checkpoint.open(directory)).items())


def test_a_recipe_trains_its_stages_one_after_another(undisturbed):
    tuned, rewarded, student = (RunDirectory(undisturbed / name) for name in STAGES)
    assert [len(run.log.read()) for run in (tuned, rewarded, student)] == [3, 3, 3]
    assert [set(run.log.read()[0]["losses"]) for run in (tuned, rewarded, student)] == [
        {"sft", "indexer"},
        {"policy", "kl", "indexer"},
        {"opd", "indexer"},
    ]
    first = rewarded.log.read()[0]
    assert set(first["measures"]) == {"reward", "tokens", "ended", "left out"}
    assert abs(first["losses"]["kl"]) < 1e-6  # the reference is the start
    after = [weights(run.model) for run in (tuned, rewarded, student)]
    for name, array in after[0].items():
        is_the_same = all((one[name] == array).all() for one in after[1:])
        is_left_alone = name.startswith("mtp.") or name.endswith(("gate.bias", "tid2eid"))
        assert is_the_same == (is_left_alone or name in NEVER_USED), name


@pytest.mark.parametrize("count", [2, 4, 8])
def test_a_run_that_is_killed_after_a_step_ends_with_the_same_bits(count, undisturbed, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(KilledError):
        posttrain(RECIPE, out, watch=killed_after(count))
    posttrain(RECIPE, out, resume=True)
    for name in STAGES:
        assert_same_stage(out / name, undisturbed / name)


def test_a_run_that_is_killed_in_a_rollout_goes_on_with_it(undisturbed, tmp_path, monkeypatch):
    out, original, drawn = tmp_path / "out", RecordingSampler.choose, []

    def choose(self, logits):
        drawn.append(1)
        if len(drawn) == 9:
            raise KilledError
        return original(self, logits)

    monkeypatch.setattr(RecordingSampler, "choose", choose)
    with pytest.raises(KilledError):
        posttrain(RECIPE, out)
    monkeypatch.undo()
    assert any(file.read_bytes().count(b"\n") > 1 for file in (out / "rewarded" / "rollouts").iterdir())
    posttrain(RECIPE, out, resume=True)
    for name in STAGES:
        assert_same_stage(out / name, undisturbed / name)


def test_several_steps_learn_from_the_same_answers(start, tmp_path):
    """Only the first draws: the files of a turn are the same for each of its steps, and resumed in its midst."""
    stage = starting(REWARDED, start, updates=3, worlds=("sums",), checkpoint_interval=3)
    whole = grpo(stage, tmp_path / "whole")
    with pytest.raises(KilledError):
        train_stage(starting(stage, start, checkpoint_interval=3), tmp_path / "killed", watch=killed_after(2))
    found = grpo(stage, tmp_path / "killed", resume=True)
    assert_same_stage(found.parent, whole.parent)
    files = sorted(file.name for file in (tmp_path / "whole" / "rollouts").iterdir())
    assert {name[:8] for name in files} == {"00000000"}
    log = RunDirectory(tmp_path / "whole").log.read()
    assert log[0]["tokens"] + log[1]["tokens"] + log[2]["tokens"] == 6 * log[0]["measures"]["tokens"]


def test_answers_are_drawn_with_the_weights_of_release(start, tmp_path):
    """FP4 in the rollouts, and rounded weights in training: the policy is the sampler's, up to roundings."""
    stage = starting(REWARDED, start, quantise=True, steps=1, worlds=("sums",))
    grpo(stage, tmp_path / "out")
    [line] = RunDirectory(tmp_path / "out").log.read()
    assert abs(line["losses"]["kl"]) < 1e-5


def test_a_reward_that_is_no_number_ends_the_stage(start, tmp_path, monkeypatch):
    monkeypatch.setattr(reinforcement.Answered, "score", lambda self, tokenizer: float("nan"))
    with pytest.raises(TrainingError, match=r"^reward of an answer in sums: expected a finite number, found nan$"):
        grpo(starting(REWARDED, start, worlds=("sums",)), tmp_path / "out")


def test_a_loss_that_is_no_number_ends_the_stage_with_the_last_good_model(start, tmp_path, monkeypatch):
    original, calls = fine_tuning.sft, []

    def broken(*arguments):
        calls.append(1)
        return original(*arguments) * (np.float32("nan") if len(calls) > 3 else 1)

    monkeypatch.setattr(fine_tuning, "sft", broken)
    with pytest.raises(TrainingError, match=r"^step 1: expected finite numbers, found loss nan, .* after 0 steps$"):
        sft(starting(FINE, start), tmp_path / "out")
    for name, array in weights(start).items():
        np.testing.assert_array_equal(weights(tmp_path / "out" / "model")[name], array)


def test_a_window_that_does_not_fit_is_named(start, tmp_path):
    stage = starting(REWARDED, start, efforts=(Effort("high", 250, 0.0),), worlds=("sums",))
    expected = "stage rewarded, sums in mode high: prompt 0: expected at most 6 tokens, so that a window of 250 fits in"
    with pytest.raises(PromptError, match="^" + re.escape(expected)):
        grpo(stage, tmp_path / "out")


def test_a_teacher_with_another_vocabulary_is_refused(start, tmp_path, tokenizer_directory):
    other = checkpoint(tmp_path / "other", tokenizer_directory, config=replace(MODEL, vocab_size=800))
    teachers = tuple(replace(teacher, start=str(other)) for teacher in TAUGHT.teachers)
    with pytest.raises(TrainingError, match=r"other: expected a teacher with the student's 768 tokens, found 800$"):
        distill(starting(TAUGHT, start, teachers=teachers), tmp_path / "out")


def test_stages_and_kinds_do_not_mix(start, tmp_path):
    with pytest.raises(SettingError, match=r"^stage: expected one of the kind grpo, found SFT"):
        grpo(starting(FINE, start), tmp_path / "out")


def test_a_run_is_not_begun_twice_nor_resumed_as_another(undisturbed, start, tmp_path):
    with pytest.raises(TrainingError, match=r"expected a new or empty directory, found a stage; resume continues it$"):
        train_stage(starting(FINE, start), undisturbed / "tuned")
    with pytest.raises(TrainingError, match=r"tuned: expected a stage with the same settings, found others$"):
        train_stage(starting(FINE, start), undisturbed / "tuned", resume=True)
    with pytest.raises(TrainingError, match=r"nothing: expected a run to resume, found none$"):
        posttrain(RECIPE, tmp_path / "nothing", resume=True)
