"""What a step of reinforcement learns from: where β = 0, the answers that were better or worse than their group."""

import numpy as np
import pytest

from dsv4.checkpoint import Checkpoint
from dsv4.learn.post.efforts import Effort
from dsv4.learn.post.reinforcement import Reinforcement
from dsv4.learn.post.trainer import PostTrainer
from dsv4.learn.trainable import Trainable
from dsv4.ops import Ops
from dsv4.text.tokenizer import Tokenizer
from learn.post.stages import REWARDED, checkpoint, starting

SAME, MIXED, DIFFERENT = (0.5, 0.5, 0.5), (0.0, 1.0, 0.5), (1.0, 0.0, 0.0)
"""Rewards of a group: of the second, the last answer is as good as the mean."""


@pytest.fixture(scope="module")
def start(tmp_path_factory, tokenizer_directory):
    return checkpoint(tmp_path_factory.mktemp("start") / "model", tokenizer_directory)


def trainer_of(start, directory, rewards, monkeypatch, **changes):
    """A trainer before its first step, whose answers get these rewards."""
    changes = {"questions": len(rewards), "worlds": ("sums",), "efforts": (Effort("non-think", 5, 0.0),), **changes}
    stage = starting(REWARDED, start, **changes)
    weights = Trainable.of(Checkpoint.open(start), np.float32)
    lesson = Reinforcement(stage, weights.config, weights, Tokenizer.from_file(start), directory, Ops())
    monkeypatch.setattr(lesson, "_rewarded", lambda model, turn: [one for group in rewards for one in group])
    return PostTrainer(stage, weights.config, weights, lesson)


def first_parts(*arguments, **changes):
    trainer = trainer_of(*arguments, **changes)
    return next(trainer.lesson.parts(trainer))


@pytest.mark.parametrize("part", [1, 2, 9])
def test_only_answers_with_an_advantage_are_read_and_count_as_one_of_all(start, tmp_path, monkeypatch, part):
    rewards = SAME, MIXED, DIFFERENT
    parts = first_parts(start, tmp_path, rewards, monkeypatch, part=part, beta=0.0, indexer_weight=0.0)
    advantages = np.concatenate([one.advantage for one in parts])
    np.testing.assert_allclose(advantages, [-0.5, 0.5, 2 / 3, -1 / 3, -1 / 3])
    assert [one.share for one in parts] == pytest.approx([len(one.advantage) / 9 for one in parts])


@pytest.mark.parametrize("other_loss", [{"beta": 0.1, "indexer_weight": 0.0}, {"beta": 0.0, "indexer_weight": 0.1}])
def test_where_another_loss_counts_all_answers_are_read(start, tmp_path, monkeypatch, other_loss):
    parts = first_parts(start, tmp_path, (SAME, MIXED), monkeypatch, part=6, **other_loss)
    assert [len(one.advantage) for one in parts] == [6]


def test_the_step_is_that_of_all_answers(start, tmp_path, monkeypatch):
    """A β far too small to count makes the same step learn from all of them."""
    norms = []
    for beta in (0.0, 1e-30):
        directory = tmp_path / str(beta)
        trainer = trainer_of(start, directory, (SAME, MIXED), monkeypatch, part=6, beta=beta, indexer_weight=0.0)
        report = trainer.advance()
        assert report.losses["policy"] == pytest.approx(0, abs=1e-7)
        norms.append(report.gradient_norm)
    assert norms[0] > 1e-3
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)


def test_where_all_are_equal_a_step_learns_nothing_and_the_run_goes_on(start, tmp_path, monkeypatch):
    trainer = trainer_of(start, tmp_path, (SAME, SAME), monkeypatch, part=6, beta=0.0, indexer_weight=0.0)
    report = trainer.advance()
    assert (report.verdict, report.gradient_norm, report.losses["policy"]) == ("go on", 0, 0)
    assert report.measures["left out"] == 0
