"""Real models in virtual time, small: from texts to a checkpoint, killed and resumed."""

import numpy as np
import pytest

import tiny
from dsv4 import Checkpoint
from dsv4.errors import SettingError, TrainingError
from dsv4.learn.anticipatory import SpikeRule
from dsv4.learn.diloco import training
from dsv4.learn.diloco.chaos import Chaos, Kill
from dsv4.learn.diloco.replay import replayed
from dsv4.learn.diloco.settings import Settings
from dsv4.learn.recipe import Recipe, Stage
from dsv4.learn.trainable import new_model
from learn.diloco.toys import same_weights
from learn.runs import Drawn, KilledError, model_bytes, short, write_texts

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
    ],
    ids=["spikes", "fragments"],
)
def test_what_does_not_fit_is_refused(recipe, settings, message):
    with pytest.raises(SettingError, match=message):
        training.fragments_of(recipe, settings)
