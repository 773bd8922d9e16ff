"""Answers: in groups by question, each effort in its own window, and files that go when nobody needs them any more."""

import numpy as np
import pytest

from dsv4.learn import new_model
from dsv4.learn.post.actor import actor
from dsv4.learn.post.answers import Asker, drawing_seed
from dsv4.learn.post.efforts import Effort
from dsv4.ops import Ops
from learn.post.stages import MODEL, REWARDED, starting

STAGE = starting(REWARDED, "x", questions=4, worlds=("sums", "strings"), updates=2)


@pytest.fixture(scope="module")
def model():
    weights = new_model(MODEL, 0, hc_scale=0.5).weights
    return actor(weights, weights.config, Ops(), quantise=False)


def test_groups_and_windows(model, tokenizer, tmp_path):
    asker = Asker(STAGE, tokenizer, tmp_path, group=3)
    found = asker.answers(model, turn=0)
    assert len(found) == 12
    assert [one.question.world.name for one in found[::3]] == ["sums", "strings", "sums", "strings"]
    assert [one.question.effort.mode for one in found[::3]] == ["non-think", "non-think", "high", "high"]
    for place, one in enumerate(found):
        assert one.question == found[place - place % 3].question
        np.testing.assert_array_equal(one.rollout.prompt, one.question.prompt(tokenizer))
        length = len(one.rollout.answer)
        assert length == one.question.effort.window or one.ended
        assert one.ended == (one.rollout.answer[-1] == model.config.eos_token_id)
    answers = {tuple(one.rollout.answer) for one in found[:3]}
    assert len(answers) > 1  # the members of a group are drawn by themselves
    assert [len(one.rollout.answer) for one in asker.answers(model, 0)] == [len(one.rollout.answer) for one in found]


def test_two_efforts_of_one_mode(model, tokenizer, tmp_path):
    """Each has its window and its file."""
    efforts = (Effort("non-think", 2, 0.3), Effort("non-think", 5, 0.0))
    asker = Asker(starting(STAGE, "x", efforts=efforts), tokenizer, tmp_path, group=2)
    found = asker.answers(model, turn=0)
    assert [one.question.effort.window for one in found] == [2] * 4 + [5] * 4
    assert max(len(one.rollout.answer) for one in found[:4]) <= 2 < max(len(one.rollout.answer) for one in found[4:])
    assert len(list(tmp_path.iterdir())) == 2


def test_files_that_nobody_goes_back_to_are_deleted(tokenizer, tmp_path):
    asker = Asker(STAGE, tokenizer, tmp_path / "rollouts", 3)
    for turn in range(4):
        asker.file(turn, "high").write_text("")
    asker.forget(5)  # of turn 2, since two steps share a turn
    assert sorted(file.name for file in (tmp_path / "rollouts").iterdir()) == [
        "00000002-high.jsonl",
        "00000003-high.jsonl",
    ]


def test_each_turn_and_effort_has_a_seed_of_its_own():
    seeds = {drawing_seed(seed, turn, effort) for seed in range(3) for turn in range(3) for effort in range(3)}
    assert len(seeds) == 27
