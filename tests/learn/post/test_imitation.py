"""Fine-tuning on the teachers' answers: each teacher answers for its worlds, and what it said is learnt."""

import numpy as np
import pytest

from dsv4.checkpoint import Checkpoint
from dsv4.errors import SettingError
from dsv4.learn.losses.sft import sft
from dsv4.learn.post.answers import Asker
from dsv4.learn.post.imitation import Imitating
from dsv4.learn.post.questions import questions
from dsv4.learn.post.recipe import Teacher
from dsv4.learn.post.run import imitate, train_stage
from dsv4.learn.post.teachers import TeacherModel
from dsv4.learn.post.trainer import PostTrainer
from dsv4.learn.run_directory import RunDirectory
from dsv4.learn.trainable import Trainable, TrainableModel
from dsv4.ops import Ops
from learn.post.stages import IMITATING, TAUGHT, assert_same_stage, checkpoint, killed_after, starting
from learn.runs import KilledError


@pytest.fixture(scope="module")
def models(tmp_path_factory, tokenizer_directory):
    """A student and two teachers."""
    place = tmp_path_factory.mktemp("models")
    return [checkpoint(place / str(seed), tokenizer_directory, seed) for seed in range(3)]


def stage_of(models, **changes):
    teachers = tuple(
        Teacher(str(path), (world,), weight)
        for path, world, weight in zip(models[1:], IMITATING.worlds, (0.5, 2.0), strict=True)
    )
    return starting(IMITATING, models[0], teachers=teachers, **changes)


def lesson(models, tokenizer, directory, **changes):
    stage = stage_of(models, **changes)
    weights = Trainable.of(Checkpoint.open(models[0]))
    found = Imitating(stage, weights.config, tokenizer, models[1:], directory, Ops())
    return found, PostTrainer(stage, weights.config, weights, found)


def test_each_teacher_answers_the_questions_of_its_worlds(models, tokenizer, tmp_path):
    """The same answers as it draws by itself, and the same questions as in every other stage with these settings."""
    found, trainer = lesson(models, tokenizer, tmp_path / "rollouts")
    asked = questions(found.stage, 0, 4)
    for number, (parts, world) in enumerate(zip(found.parts(trainer), IMITATING.worlds, strict=True)):
        model = TeacherModel(models[1 + number], tokenizer, 768).actor(Ops())
        answered = Asker(found.stage, tokenizer, tmp_path / "own", 1).answers(model, 0, (world,))
        assert [one.question.task for one in answered] == [one.task for one in asked if one.world.name == world]
        rows = {tuple(part.ids[row][part.mask[row]]) for part in parts for row in range(len(part.ids))}
        assert rows == {(*one.rollout.prompt, *one.rollout.answer) for one in answered}
        for part in parts:
            assert part.tokens == part.said.sum()
        assert sum(part.tokens for part in parts) == sum(len(one.rollout.answer) for one in answered)
        np.testing.assert_allclose(sum(part.share for part in parts), (0.5, 2.0)[number])
        for file in (tmp_path / "own").glob("*"):
            file.unlink()


def test_the_loss_is_that_of_fine_tuning_on_what_was_drawn(models, tokenizer, tmp_path):
    found, trainer = lesson(models, tokenizer, tmp_path / "rollouts", indexer_weight=0.0)
    model = TrainableModel(trainer.weights)
    [part, *_] = next(found.parts(trainer))
    expected = sft(model(part.ids, mask=part.mask), part.ids, part.mask, part.said)
    assert float(part.losses(model)["sft"].data) == pytest.approx(float(expected.data), rel=1e-6)


def test_a_killed_run_ends_with_the_same_bits(models, tmp_path):
    stage = stage_of(models, updates=2)
    imitate(stage, tmp_path / "whole")
    with pytest.raises(KilledError):
        train_stage(stage, tmp_path / "killed", watch=killed_after(1))
    train_stage(stage, tmp_path / "killed", resume=True)
    assert_same_stage(tmp_path / "killed", tmp_path / "whole")
    names = {line["losses"].keys() == {"sft", "indexer"} for line in RunDirectory(tmp_path / "whole").log.read()}
    assert names == {True}


def test_another_kind_of_stage_is_refused(tmp_path):
    with pytest.raises(SettingError, match=r"^stage: expected one of the kind imitation, found OPD"):
        imitate(TAUGHT, tmp_path / "out")
