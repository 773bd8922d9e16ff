"""Each stage makes better what it is to make better, in a few steps of a tiny model."""

import numpy as np
import pytest

from dsv4.learn.post import reinforcement
from dsv4.learn.post.efforts import Effort
from dsv4.learn.post.recipe import Teacher
from dsv4.learn.post.run import distill, grpo, sft
from dsv4.learn.run_directory import RunDirectory
from learn.post.stages import FINE, REWARDED, TAUGHT, checkpoint, starting

SHORT = (Effort("non-think", 5, 0.0),)


@pytest.fixture(scope="module")
def start(tmp_path_factory, tokenizer_directory):
    return checkpoint(tmp_path_factory.mktemp("start") / "model", tokenizer_directory)


def evenness(self, tokenizer):
    """A reward that a model without any knowledge gets half of: the share of tokens with even numbers."""
    return float(np.mean(self.rollout.answer % 2 == 0))


def learnt(model, name):
    """What each step reported under a name."""
    return [({**line, **line["losses"], **line["measures"]})[name] for line in RunDirectory(model.parent).log.read()]


@pytest.fixture(scope="module")
def rewarded(start, tmp_path_factory):
    """A stage that learns to say even tokens."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reinforcement.Answered, "score", evenness)
        stage = starting(REWARDED, start, steps=16, learning_rate=0.03, worlds=("sums",), efforts=SHORT, beta=0.0)
        stage = starting(stage, start, group=16, part=16, checkpoint_interval=16, indexer_weight=0.0)
        return grpo(stage, tmp_path_factory.mktemp("rewarded") / "out")


def test_reinforcement_raises_the_reward(rewarded):
    rewards = learnt(rewarded, "reward")
    assert 0.35 < np.mean(rewards[:3]) < 0.65
    assert np.mean(rewards[-3:]) > 0.85


def test_a_student_comes_near_its_teacher(start, rewarded, tmp_path):
    stage = starting(TAUGHT, start, steps=12, learning_rate=0.03, worlds=("sums",), efforts=SHORT, questions=8, part=8)
    teachers = (Teacher(str(rewarded), ("sums",)),)
    found = distill(starting(stage, start, teachers=teachers, checkpoint_interval=12), tmp_path / "out")
    divergences = learnt(found, "opd")
    assert divergences[0] > 0.01
    assert np.mean(divergences[-3:]) < 0.6 * divergences[0]


def test_fine_tuning_lowers_its_loss(start, tmp_path):
    stage = starting(FINE, start, steps=12, learning_rate=0.01, batch=8, part=8, checkpoint_interval=12)
    losses = learnt(sft(stage, tmp_path / "out"), "sft")
    assert np.mean(losses[-2:]) < losses[0] - 1


def test_the_part_changes_nothing_but_roundings(start, tmp_path, monkeypatch):
    monkeypatch.setattr(reinforcement.Answered, "score", evenness)
    norms = []
    for part in (1, 6):
        stage = starting(REWARDED, start, part=part, steps=1, worlds=("sums",), indexer_weight=0.0, beta=0.0)
        norms += learnt(grpo(stage, tmp_path / str(part)), "gradient_norm")
    assert norms[0] > 0.01
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)
