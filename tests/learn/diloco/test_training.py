"""Real models in virtual time, small: from texts to a checkpoint, killed and resumed."""

from dataclasses import replace

import numpy as np
import pytest

import tiny
from dsv4 import Checkpoint
from dsv4.errors import SettingError, TrainingError
from dsv4.learn.anticipatory import SpikeRule
from dsv4.learn.diloco import training
from dsv4.learn.diloco import warm_start as module
from dsv4.learn.diloco.chaos import Chaos, Kill
from dsv4.learn.diloco.replay import replayed
from dsv4.learn.diloco.settings import Settings
from dsv4.learn.diloco.warm_start import together
from dsv4.learn.pretrain import pretrain
from dsv4.learn.recipe import Recipe, Stage
from dsv4.learn.run_directory import RunDirectory
from dsv4.learn.trainable import new_model
from dsv4.learn.trainer import Trainer
from learn.diloco.toys import same_weights
from learn.runs import Drawn, KilledError, killed, model_bytes, short, write_texts

SETTINGS = Settings(learners=2, fragments=2, inner_steps=2)
CHAOS = Chaos(kills=(Kill(1, 2, 1.5),))


def from_texts(directory, **changes):
    texts = directory / "texts"
    texts.mkdir(exist_ok=True)
    return training.train(short(4), write_texts(texts), directory / "run", SETTINGS, CHAOS, **changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing interrupts."""
    directory = tmp_path_factory.mktemp("whole")
    from_texts(directory)
    return directory / "run"


class TestFromTexts:
    def test_the_model_is_an_ordinary_checkpoint_that_has_learnt(self, whole):
        found, first = Checkpoint.open(whole / "model"), new_model(short(4).model, 0, short(4).hc_scale).weights
        name = "layers.0.attn.wq_a.weight"
        assert found.weight(name).shape == first.weight(name).shape
        assert not np.array_equal(found.weight(name), first.weight(name))
        np.testing.assert_array_equal(
            found.weight("layers.0.ffn.gate.tid2eid"), first.weight("layers.0.ffn.gate.tid2eid")
        )

    def test_its_tape_has_everything(self, whole):
        events = {line["event"] for line in training.tape_of(whole)}
        assert {"step", "answered", "merged", "received", "killed", "copied", "returned"} <= events

    def test_a_run_that_is_killed_is_resumed_to_the_same_bits(self, whole, tmp_path):
        def killed(world, line):
            if line["event"] == "returned":
                raise KilledError

        with pytest.raises(KilledError):
            from_texts(tmp_path, watch=killed)
        assert training.tape_of(tmp_path / "run")[-1]["event"] == "returned"
        from_texts(tmp_path, resume=True)
        assert training.tape_of(tmp_path / "run") == training.tape_of(whole)
        assert model_bytes(tmp_path / "run") == model_bytes(whole)

    def test_another_run_is_not_gone_on_with(self, whole, tmp_path):
        texts = write_texts(tmp_path)
        with pytest.raises(TrainingError, match="expected a run with the same seed"):
            training.train(short(4), texts, whole, SETTINGS, CHAOS, seed=1, resume=True)


class TestWarmStart:
    SETTINGS = replace(SETTINGS, warm_start=3)

    def run(self, directory, **changes):
        texts = write_texts(directory)
        training.train(short(6), texts, directory / "run", self.SETTINGS, **changes)
        return texts

    def test_learners_go_on_where_one_with_the_batches_of_all_has_come_to(self, tmp_path):
        texts = self.run(tmp_path)
        begin_at = RunDirectory(tmp_path / "run").load_state(3)[0]
        whole = pretrain(together(short(3, checkpoint_interval=1), 2), texts, tmp_path / "one")
        same_weights(begin_at, RunDirectory(whole.parent).load_state(3)[0])
        steps = [line["step"] for line in training.tape_of(tmp_path / "run") if line["event"] == "step"]
        assert sorted(steps) == [3, 3, 4, 4, 5, 5]

    def test_they_have_its_optimiser(self):
        recipe = short(6)
        trainer = Trainer(recipe, new_model(recipe.model, 0).weights, Drawn(batch=2))
        trainer.advance()
        start = training.Start(recipe, trainer.weights, Drawn, SETTINGS, trainer.state())
        same_weights(start.learner(1).trainer.state(), trainer.state())
        assert start.syncer().clock == 1

    def test_one_that_is_killed_is_resumed_to_the_same_bits(self, tmp_path, monkeypatch):
        (tmp_path / "whole").mkdir()
        self.run(tmp_path / "whole")
        with monkeypatch.context() as patch:
            patch.setattr(module, "keep", lambda directory, one: killed())
            with pytest.raises(KilledError):
                self.run(tmp_path)
        self.run(tmp_path, resume=True)
        assert training.tape_of(tmp_path / "run") == training.tape_of(tmp_path / "whole/run")
        assert model_bytes(tmp_path / "run") == model_bytes(tmp_path / "whole/run")


def test_learners_have_data_of_their_own_and_the_tape_makes_the_same_bits(tmp_path):
    recipe = Recipe(
        model=tiny.config(),
        stages=(Stage("dense", 4, 24, 2),),
        learning_rate=0.02,
        final_learning_rate=0.002,
        warmup_steps=1,
        checkpoint_interval=2,
    )

    class Own(Drawn):
        def __init__(self, number):
            super().__init__(batch=2)
            self.number = number

        def batch(self, step):
            return super().batch(100 * self.number + step)

    start = training.Start(recipe, new_model(recipe.model, 0).weights, Own, SETTINGS)
    tape = []
    world = start.world(Chaos(), 0, tape.append)
    while not world.is_over:
        world.advance()
    syncer, _ = replayed(tape, start.learner, start.syncer())
    same_weights(syncer.state(), world.syncer.state())
    losses = {m: [line["loss"] for line in tape if line["event"] == "step" and line["learner"] == m] for m in (0, 1)}
    assert losses[0][0] != losses[1][0]


@pytest.mark.parametrize(
    ("recipe", "settings", "message"),
    [
        (short(4, spikes=SpikeRule(4, 3.0, 2, 4, 2)), SETTINGS, "spikes: expected null"),
        (short(4), Settings(fragments=2000, inner_steps=2000), "fragments: expected at most one"),
        (short(4), replace(SETTINGS, warm_start=4), "warm_start: expected fewer than the 4 steps"),
    ],
    ids=["spikes", "fragments", "warm start"],
)
def test_what_does_not_fit_is_refused(recipe, settings, message):
    with pytest.raises(SettingError, match=message):
        training.fragments_of(recipe, settings)
