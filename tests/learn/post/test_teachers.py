"""Teachers: their logits come back from their last hidden states, and there is never more than one in memory."""

import gc
import weakref

import numpy as np
import pytest

from dsv4.checkpoint import Checkpoint
from dsv4.learn.post import teachers
from dsv4.learn.post.actor import actor
from dsv4.learn.post.distillation import Distillation
from dsv4.learn.post.recipe import Teacher
from dsv4.learn.post.replay import replay_of
from dsv4.learn.post.teachers import TeacherModel
from dsv4.learn.post.trainer import PostTrainer
from dsv4.learn.trainable import Trainable
from dsv4.model.model import Model
from dsv4.ops import Ops
from learn.post.stages import TAUGHT, checkpoint, starting

WORLDS = ("sums", "strings", "rules", "calculator")


@pytest.fixture(scope="module")
def models(tmp_path_factory, tokenizer_directory):
    """A student and four teachers."""
    place = tmp_path_factory.mktemp("models")
    return [checkpoint(place / str(seed), tokenizer_directory, seed) for seed in range(5)]


def lesson(models, tokenizer, directory, **changes):
    """A distillation from four teachers, and its student."""
    names = [Teacher(str(path), (world,), 0.5) for path, world in zip(models[1:], WORLDS, strict=True)]
    stage = starting(TAUGHT, models[0], worlds=WORLDS, teachers=tuple(names), questions=8, **changes)
    weights = Trainable.of(Checkpoint.open(models[0]))
    directory.mkdir(exist_ok=True)
    found = Distillation(stage, weights.config, tokenizer, models[1:], directory, Ops())
    return found, PostTrainer(stage, weights.config, weights, found)


def test_logits_come_back_from_hidden_states(models, tokenizer, tmp_path):
    found, trainer = lesson(models, tokenizer, tmp_path / "rollouts")
    answered = found.asker.answers(actor(trainer.weights, trainer.config, Ops(), False), 0)
    some = [one.rollout for one in answered]
    teacher = TeacherModel(models[2], tokenizer, 768)
    file = tmp_path / "hidden.npy"
    hidden = teacher.hidden(some, 3, Ops(), file)
    assert hidden.shape == (sum(len(one.answer) for one in some), 32) and hidden.dtype == np.float32
    source = Checkpoint.open(models[2])
    batch = replay_of(some, source.config)
    expected = Model(source, Ops(), False)(batch.ids, mask=batch.mask)[batch.drawn]
    np.testing.assert_allclose(hidden @ teacher.head().T, expected, rtol=0, atol=2e-5)
    before = file.stat().st_mtime_ns
    np.testing.assert_array_equal(teacher.hidden(some, 3, Ops(), file), hidden)
    assert file.stat().st_mtime_ns == before


def test_one_teacher_at_a_time(models, tokenizer, tmp_path, monkeypatch):
    """Of models and of heads, whatever the number of teachers; the samples come ordered by teacher."""
    held, most, order = [], [], []

    def count(one):
        held.append(weakref.ref(one))
        gc.collect()
        most.append(sum(reference() is not None for reference in held))

    class Counted(Model):
        def __init__(self, *arguments, **named):
            super().__init__(*arguments, **named)
            count(self)

    class Head(np.ndarray):
        pass

    original = TeacherModel.head

    def head(self):
        found = original(self).view(Head)
        count(found)
        order.append(self.path.name)
        return found

    monkeypatch.setattr(teachers, "Model", Counted)
    monkeypatch.setattr(TeacherModel, "head", head)
    _, trainer = lesson(models, tokenizer, tmp_path / "rollouts")
    report = trainer.advance()
    assert report.verdict == "go on"
    assert most == [1] * 8 and order == ["1", "2", "3", "4"]


def test_the_weights_of_the_teachers_and_their_worlds(models, tokenizer, tmp_path):
    """Each teacher's answers count w_i together, however many there are, and no other teacher judges them."""
    found, trainer = lesson(models, tokenizer, tmp_path / "rollouts")
    shares = []
    for parts in found.parts(trainer):
        shares.append(sum(part.share for part in parts))
        assert sum(len(part.replay.ids) for part in parts) == 2
        assert all(part.tokens == part.replay.drawn.sum() for part in parts)
    np.testing.assert_allclose(shares, [0.5] * 4)


def test_a_student_that_is_its_teacher_has_nothing_to_learn(models, tokenizer, tmp_path):
    same = [models[0]] * 5
    _, trainer = lesson(same, tokenizer, tmp_path / "rollouts", indexer_weight=0.0)
    report = trainer.advance()
    assert abs(report.losses["opd"]) < 1e-6 and report.gradient_norm < 1e-3
