"""Steps of training: that they learn, that parts add up, and what a spike leads to."""

import numpy as np
import pytest

import tiny
from dsv4.config import Config
from dsv4.errors import CheckpointError, TrainingError
from dsv4.learn import trainer as trainers
from dsv4.learn.anticipatory import SpikeRule
from dsv4.learn.gradients import step
from dsv4.learn.optimiser import Optimiser
from dsv4.learn.qat import StoredOps, stored_values
from dsv4.learn.recipe import Recipe, Stage
from dsv4.learn.tape import DerivedOps, untaped
from dsv4.learn.trainable import Trainable, TrainableModel, new_model
from dsv4.learn.trainer import Trainer
from dsv4.learn.vjp import VJPS
from dsv4.model.model import Model
from dsv4.ops import Ops
from learn.runs import Drawn

SPIKES = SpikeRule(window=4, deviations=3.0, rollback=2, period=4, delay=2)


def small_recipe(*stages: Stage, model: Config | None = None, **changes) -> Recipe:
    settings = {"learning_rate": 0.02, "final_learning_rate": 0.002, "warmup_steps": 5, "checkpoint_interval": 2}
    settings |= {"bias_speed": 0.01} | changes
    return Recipe(model=model or tiny.config(), stages=stages, **settings)


def made(recipe: Recipe, feed=None, dtype=np.float32) -> Trainer:
    return Trainer(recipe, new_model(recipe.model, recipe.seed, dtype=dtype).weights, feed or Drawn())


def advanced(trainer: Trainer, steps: int) -> list[float]:
    return [trainer.advance().losses["next_token"] for _ in range(steps)]


class TestLearning:
    """Sixty steps lower the loss by a margin that runs which cannot learn do not reach."""

    steps = 60

    def gain(self, feed=None, held_out=None, **changes) -> float:
        """How far the loss of sequences that were not trained on goes down, in nats."""
        recipe = small_recipe(Stage("dense", self.steps, 24, 4), **changes)
        trainer = made(recipe, feed)
        batch = (held_out or Drawn()).batch(10**6)
        before, after = [], []
        for losses in (before, after):
            model = TrainableModel(trainer.weights, DerivedOps(VJPS))
            losses.append(step(model, batch.ids, batch.mask, {"next_token": 1.0}).losses["next_token"])
            if losses is before:
                advanced(trainer, self.steps)
        return before[0] - after[0]

    def test_it_learns(self):
        assert self.gain() > 1.8

    def test_frozen_weights_do_not(self, monkeypatch):
        monkeypatch.setattr(Optimiser, "step", lambda self, gradients, learning_rate: None)
        assert abs(self.gain()) < 0.05

    def test_gradients_with_the_other_sign_do_not(self, monkeypatch):
        original = trainers.clip_gradients

        def negated(gradients, clip_norm):
            found = original(gradients, clip_norm)
            return found._replace(gradients={name: -one for name, one in found.gradients.items()})

        monkeypatch.setattr(trainers, "clip_gradients", negated)
        assert self.gain() < 0

    def test_shuffled_labels_teach_the_frequencies_alone(self):
        assert self.gain(Drawn(shuffled=True)) < 1.1


class TestStages:
    def test_what_learns_in_each(self):
        recipe = small_recipe(Stage("dense", 1, 24, 4), Stage("indexer", 1, 24, 4), Stage("sparse", 1, 24, 4))
        trainer = made(recipe)
        for moved_indexer, moved_rest in ((False, True), (True, False), (True, True)):
            before = dict(trainer.weights.parameters)
            trainer.advance()
            moved = {
                name for name, array in trainer.weights.parameters.items() if not np.array_equal(array, before[name])
            }
            assert any(".indexer." in name for name in moved) == moved_indexer
            assert any(".indexer." not in name for name in moved) == moved_rest

    def test_the_bias_moves_by_its_speed_towards_an_even_load(self):
        trainer = made(small_recipe(Stage("dense", 1, 24, 4)))
        trainer.advance()
        moved = {name: bias for name, bias in trainer.weights.others.items() if name.endswith("gate.bias")}
        assert {name.split(".ffn")[0] for name in moved} == {"layers.1", "layers.2", "layers.3", "mtp.0"}
        for bias in moved.values():
            assert set(np.round(np.abs(bias), 6)) <= {0, np.float32(0.01)}
            assert bias.min() < 0 < bias.max()

    def test_before_the_sparse_stages_all_entries_are_read(self):
        recipe = small_recipe(Stage("dense", 1, 40, 2), Stage("sparse", 1, 40, 2))
        trainer, widths = made(recipe, Drawn(2, 40)), []
        for number in range(2):
            models = trainer._models_for(trainers.moment(recipe, number))
            widths.append(models[0].config.index_topk)
            trainer.advance()
        assert widths == [10, recipe.model.index_topk]


def test_parts_of_a_batch_add_up_to_the_whole():
    """Rows of different lengths: each part counts by the tokens that it predicts."""
    recipe = small_recipe(Stage("dense", 1, 24, 5), balance_weight=0.0)
    trainer, batch = made(recipe, dtype=np.float64), Drawn(5).batch(0)
    mask = np.arange(24) < np.array([24, 9, 24, 3, 15])[:, None]
    trainer.feed = type("Once", (), {"batch": lambda self, step: batch._replace(mask=mask)})()
    [model, *_] = trainer._models_for(trainers.moment(recipe, 0))
    whole = step(model, batch.ids, mask, {"next_token": 1.0})
    parts = trainer._gradients(trainers.moment(recipe, 0)._replace(mtp_weight=0.0), 0)
    assert parts.losses["next_token"] == pytest.approx(whole.losses["next_token"], rel=1e-12)
    assert parts.tokens == (mask.sum(axis=1) - 1).sum()
    for name, gradient in parts.gradients.items():
        scale = np.abs(whole.gradients[name]).max()
        np.testing.assert_allclose(gradient, whole.gradients[name], rtol=0, atol=1e-10 * scale + 1e-15, err_msg=name)


def test_training_computes_with_what_will_be_stored():
    """The logits of a step with stored weights are those of the released model, with its rounding."""
    config = tiny.config(**tiny.WIDE, quantised=True, swiglu_limit=10.0)
    weights = new_model(config, hc_scale=1.0).weights
    stored = Trainable(weights.config, stored_values(config, weights.parameters), weights.others)
    ids = tiny.tokens(3, 2, 150)
    ours = untaped(TrainableModel(stored, StoredOps(), fake_quant=True)(ids))
    released = tiny.quantised(tiny.TinyCheckpoint(config, dict(stored.items())))
    theirs = Model(released, Ops(), True, np.float32)(ids)
    rounded_less = untaped(TrainableModel(stored, DerivedOps(VJPS), fake_quant=True)(ids))

    def distance(logits):
        """Of the median token: a value on a boundary may be tipped, and moves the tokens that read it."""
        return np.median(np.abs(logits - theirs).max(axis=-1)) / theirs.std()

    assert distance(ours) < 1e-5
    assert distance(rounded_less) > 1e-3


class TestSpikes:
    def trained(self, poison: int, until: int, restore=None):
        """A trainer whose batch of step `poison` is out of all order the first time; the reports."""
        recipe, done = small_recipe(Stage("dense", 40, 24, 4), spikes=SPIKES), []

        def poisoned():
            trainer = made(recipe)
            original = trainer._gradients

            def spiked(now, number):
                found = original(now, number)
                if number == poison and not done:
                    done.append(number)
                    return found._replace(losses=found.losses | {"next_token": 100.0})
                return found

            trainer._gradients = spiked
            return trainer

        trainer = poisoned()
        states, reports = {0: trainer.state()}, []
        while trainer.step < until:
            report = trainer.advance()
            reports.append(report)
            if report.verdict == "roll back":
                before = max(step for step in states if step <= report.step - SPIKES.rollback)
                trainer.load_state(states[before])
                trainer.begin_anticipatory(report.step)
            elif trainer.step % 2 == 0:
                states[trainer.step] = trainer.state()
            if restore == trainer.step:
                state, trainer = trainer.state(), poisoned()
                trainer.load_state({name: np.array(array) for name, array in state.items()})
        return trainer, reports

    def test_training_goes_back_and_on_with_the_experts_that_older_weights_choose(self):
        trainer, reports = self.trained(poison=9, until=20)
        steps = [report.step for report in reports]
        assert steps == [*range(10), *range(6, 20)]
        assert [report.verdict for report in reports].count("roll back") == 1
        assert [r.step for r in reports if r.anticipatory] == [6, 7, 8, 9]
        assert all(np.isfinite(array).all() for array in trainer.weights.parameters.values())

    def test_older_weights_choose_other_experts(self):
        """The same steps without the period end elsewhere."""
        recipe = small_recipe(Stage("dense", 40, 24, 4), spikes=SPIKES)
        plain, routed = made(recipe), made(recipe)
        for trainer in (plain, routed):
            advanced(trainer, 6)
        routed.begin_anticipatory(spiked_at=9)
        for trainer in (plain, routed):
            advanced(trainer, 4)
        names = [name for name in plain.weights.parameters if ".experts." in name]
        assert any(
            not np.array_equal(plain.weights.parameters[name], routed.weights.parameters[name]) for name in names
        )

    @pytest.mark.parametrize("at", [8, 11])
    def test_a_run_that_is_resumed_in_the_period_has_the_same_bits(self, at):
        (whole, _), (resumed, _) = self.trained(9, 16), self.trained(9, 16, restore=at)
        for name, array in whole.weights.parameters.items():
            np.testing.assert_array_equal(array, resumed.weights.parameters[name], err_msg=name)

    def test_a_spike_in_the_period_ends_the_run(self):
        recipe = small_recipe(Stage("dense", 40, 24, 4), spikes=SPIKES)
        trainer = made(recipe)
        advanced(trainer, 6)
        trainer.begin_anticipatory(spiked_at=9)
        original = trainer._gradients
        trainer._gradients = lambda now, number: original(now, number)._replace(losses={"next_token": np.nan})
        assert trainer.advance().verdict == "stop"

    def test_in_a_new_stage_losses_are_measured_by_themselves(self):
        """Longer sequences and other attention have other losses: that is no spike."""
        recipe = small_recipe(Stage("dense", 5, 24, 4), Stage("sparse", 3, 24, 4), spikes=SPIKES)
        trainer = made(recipe)
        original = trainer._gradients

        def sized(now, number):
            loss = {"dense": 5.0, "sparse": 50.0}[now.stage.kind]
            return original(now, number)._replace(losses={"next_token": loss})

        trainer._gradients = sized
        assert [trainer.advance().verdict for _ in range(8)] == ["go on"] * 8

    def test_without_a_rule_there_is_no_way_back(self):
        trainer = made(small_recipe(Stage("dense", 4, 24, 4)))
        with pytest.raises(TrainingError, match="expected a rule"):
            trainer.begin_anticipatory(spiked_at=2)


def test_where_the_indexers_stand_is_measured_as_they_will_choose():
    """In the warm-up attention reads all entries, of which none is chosen; the dense stage teaches them nothing."""
    stages = Stage("dense", 1, 40, 2), Stage("indexer", 1, 40, 2), Stage("sparse", 1, 40, 2)
    trainer = made(small_recipe(*stages), Drawn(2, 40))
    found = []
    for number in range(3):
        trainer.advance()
        found.append(trainer.captures(number))
    assert found[0] == {}
    assert found[1].keys() == found[2].keys() == {"layers.1.attn.", "layers.3.attn."}
    assert all(np.isfinite(one) and one <= 1 for standing in found[1:] for one in standing.values())


@pytest.mark.parametrize(
    ("kind", "wild", "message"),
    [("dense", np.inf, "expected finite numbers"), ("decay", 3e38, "expected magnitudes of at most 2.552e[+]38")],
)
def test_weights_that_no_model_can_be_made_of(kind, wild, message):
    """Those that are not finite, and those that are beyond FP4."""
    config = tiny.config(hidden_size=32, moe_intermediate_size=32)
    trainer = made(small_recipe(Stage(kind, 2, 24, 4), model=config))
    name = "layers.1.ffn.experts.0.w1.weight"
    trainer.weights.parameters[name] = np.full_like(trainer.weights.parameters[name], wild)
    with pytest.raises(CheckpointError, match=message):
        trainer.advance()


def without(state, name):
    return {key: array for key, array in state.items() if key != name}


WRONG = {
    "lacks a weight": (
        lambda s: without(s, "weights.norm.weight"),
        "'weights.norm.weight': expected an array, found none",
    ),
    "lacks the step": (lambda s: without(s, "step"), "'step': expected an array, found none"),
    "has one more": (lambda s: s | {"other": np.zeros(1)}, "'other': expected none of this name, found one"),
    "another shape": (
        lambda s: s | {"weights.norm.weight": np.zeros(3, np.float32)},
        r"'weights.norm.weight': expected float32 \(16,\), found float32 \(3,\)",
    ),
    "another dtype": (lambda s: s | {"step": np.array(1.0)}, r"'step': expected int64 \(\), found float64 \(\)"),
    "momentum of another shape": (
        lambda s: s | {"optimiser.muon.momentum.layers.0.attn.wq_a.weight": np.zeros(3, np.float32)},
        "'optimiser.muon.momentum.layers.0.attn.wq_a.weight': expected float32",
    ),
    "losses in a table": (lambda s: s | {"spikes.losses": np.zeros((2, 2))}, "'spikes.losses': expected float64"),
    "choices that are no numbers": (
        lambda s: s | {"choices.1.0.a": np.zeros(2)},
        "'choices.1.0.a': expected numbers of",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_state_of_something_else_changes_nothing(case):
    change, message = WRONG[case]
    trainer = made(small_recipe(Stage("dense", 4, 24, 4), spikes=SPIKES))
    advanced(trainer, 1)
    before = trainer.state()
    with pytest.raises(TrainingError, match=f"^{message}"):
        trainer.load_state(change(before | {"step": np.array(3)}))
    after = trainer.state()
    assert before.keys() == after.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array, err_msg=name)


def test_a_state_is_a_snapshot_that_later_steps_leave_alone():
    trainer = made(small_recipe(Stage("dense", 4, 24, 4)))
    advanced(trainer, 2)
    state = trainer.state()
    copy = {name: np.array(array) for name, array in state.items()}
    advanced(trainer, 2)
    for name, array in copy.items():
        np.testing.assert_array_equal(state[name], array, err_msg=name)
