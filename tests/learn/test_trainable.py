"""Weights that change: how they start, how they are read, and how they become an ordinary checkpoint."""

import copy

import numpy as np
import pytest

import dsv4
import tiny
from dsv4.errors import CheckpointError, SettingError
from dsv4.learn import Trainable, TrainableModel, new_model, tape
from dsv4.learn.gradients import gradients
from dsv4.model.model import Model
from dsv4.ops import Ops, dequantise
from dsv4.parameters import parameters
from tiny_checkpoint import listing, tiny_config

CONFIG = tiny_config()


def of_width(name, width):
    """All weights of a model whose names end so, in one array."""
    values = new_model(tiny.config(hidden_size=width, vocab_size=400), seed=1).parameters
    return np.concatenate([value.reshape(-1) for other, value in values.items() if other.endswith(name)])


class TestNewModel:
    def test_the_seed_decides(self):
        first, same, other = (new_model(CONFIG, seed).weights for seed in (1, 1, 2))
        for name, value in first.items():
            np.testing.assert_array_equal(same.weight(name), value)
        assert (first.weight("embed.weight") != other.weight("embed.weight")).all()
        assert (first.weight("layers.0.ffn.gate.tid2eid") != other.weight("layers.0.ffn.gate.tid2eid")).any()

    def test_every_parameter_of_the_configuration(self):
        weights = new_model(CONFIG).weights
        table = parameters(CONFIG)
        assert [name for name, _ in weights.items()] == list(table)
        assert {name: value.shape for name, value in weights.items()} == {
            name: one.shape for name, one in table.items()
        }
        assert weights.has_mtp

    @pytest.mark.parametrize(("name", "width"), [("embed.weight", 256), ("head.weight", 64), ("wq_a.weight", 256)])
    def test_matrices_have_v3s_spread_at_any_width(self, name, width):
        """.006 at a width of 7168."""
        expected = 0.006 * np.sqrt(7168 / width)
        found = of_width(name, width)
        assert abs(found.std() / expected - 1) < 0.05
        assert abs(found.mean()) < 0.05 * expected

    def test_what_starts_at_a_number(self):
        for name, value in new_model(CONFIG, hc_scale=0.25).weights.items():
            if name.endswith("norm.weight"):
                assert (value == 1).all()
            elif name.endswith("_scale"):
                assert (value == 0.25).all()
            elif name.endswith(("_base", "ape", "attn_sink", "gate.bias")):
                assert not value.any()
            elif value.dtype.kind == "f":
                assert value.all()
        assert (new_model(CONFIG).parameters["layers.1.hc_attn_scale"] == np.float32(0.01)).all()

    def test_settings(self):
        whole = new_model(CONFIG, hc_scale=1).parameters["layers.1.hc_attn_scale"]
        np.testing.assert_array_equal(whole, np.ones(3, np.float32), strict=True)
        with pytest.raises(SettingError, match="seed: expected an integer of at least 0, found -1"):
            new_model(CONFIG, seed=-1)
        with pytest.raises(SettingError, match="hc_scale: expected a finite number"):
            new_model(CONFIG, hc_scale="small")

    def test_each_token_of_a_hash_layer_has_distinct_experts(self):
        table = new_model(CONFIG).weights.weight("layers.0.ffn.gate.tid2eid")
        assert table.dtype == np.int64
        assert all(len(set(row)) == CONFIG.num_experts_per_tok for row in table.tolist())
        assert set(table.flat) == set(range(CONFIG.n_routed_experts))

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_it_can_be_called_and_differentiated(self, dtype):
        model = new_model(CONFIG, dtype=dtype)
        ids = tiny.tokens(1, 2, 20, vocab=CONFIG.vocab_size)
        logits = model(ids)
        assert isinstance(logits, tape.Tensor)
        assert logits.dtype == dtype
        loss, found = gradients(model, ids)
        assert abs(loss - np.log(CONFIG.vocab_size)) < 0.3  # it knows nothing yet
        assert all(gradient.dtype == dtype for gradient in found.values())

    def test_a_released_configuration_gives_weights_that_are_not_quantised(self):
        assert not new_model(tiny_config(quantised=True)).config.quantised


class TestSaving:
    def test_an_ordinary_checkpoint(self, tmp_path):
        model = new_model(CONFIG, seed=3)
        model.save(tmp_path / "a")
        loaded = dsv4.load(tmp_path / "a", backend="numpy")
        ids = tiny.tokens(1, 2, 20, vocab=CONFIG.vocab_size)
        np.testing.assert_array_equal(loaded(ids), TrainableModel(model.weights, tape.TapeOps())(ids).data)
        assert listing(tmp_path / "a") == [".dsv4.json", "config.json", "model.safetensors"]

    def test_weights_as_they_are_now(self, tmp_path):
        model = new_model(CONFIG, dtype=np.float64)
        model.parameters["norm.weight"] = np.full(CONFIG.hidden_size, 2.0)
        model.save(tmp_path / "a")
        assert (dsv4.Checkpoint.open(tmp_path / "a").weight("norm.weight") == 2).all()
        with pytest.raises(CheckpointError, match="expected"):
            model.save(tmp_path / "a")
        model.parameters["norm.weight"][:] = 3
        model.save(tmp_path / "a", overwrite=True)
        assert (dsv4.Checkpoint.open(tmp_path / "a").weight("norm.weight") == 3).all()

    def test_from_a_checkpoint_and_back(self, tmp_path):
        source = tiny.quantised(tiny.checkpoint(1, **tiny.WIDE))
        weights = Trainable.of(source)
        assert not weights.config.quantised
        for name, value in weights.items():
            expected = source.weight(name)
            np.testing.assert_array_equal(value, expected if value.dtype.kind == "i" else dequantise(expected))
        weights.save(tmp_path / "a")
        again = Trainable.of(dsv4.Checkpoint.open(tmp_path / "a"))
        for name, value in weights.items():
            np.testing.assert_array_equal(again.weight(name), value, strict=True)


class TestSource:
    def test_it_serves_other_backends(self):
        """A copy of a checkpoint's floats computes what the checkpoint does."""
        source, ids = tiny.checkpoint(2), tiny.tokens(1, 2, 20)
        weights = Trainable.of(source)
        expected = tiny.model(Ops(), source, dtype=np.float32)(ids)
        np.testing.assert_array_equal(Model(weights, Ops(), False)(ids), expected)
        np.testing.assert_array_equal(TrainableModel(weights, tape.TapeOps())(ids).data, expected)

    def test_arrays_are_copies(self):
        source = tiny.checkpoint(2)
        weights = Trainable.of(source)
        weights.parameters["norm.weight"][:] = 7
        weights.others["layers.1.ffn.gate.bias"][:] = 7
        assert (source.weight("norm.weight") != 7).all()
        assert (source.weight("layers.1.ffn.gate.bias") != 7).all()

    def test_what_learns_and_what_does_not(self):
        weights = Trainable.of(tiny.checkpoint())
        assert {name.rpartition("gate.")[2] for name in weights.others} == {"bias", "tid2eid"}
        assert all(value.dtype == np.float32 for value in weights.parameters.values())
        assert weights.nbytes == sum(value.nbytes for _, value in weights.items())

    def test_without_an_mtp_layer(self):
        class WithoutMtp(tiny.TinyCheckpoint):
            has_mtp = False

        source = tiny.checkpoint()
        weights = Trainable.of(WithoutMtp(source.config, source.weights))
        assert not weights.has_mtp
        assert weights.config.num_nextn_predict_layers == 0
        assert not any(name.startswith("mtp.") for name, _ in weights.items())
        assert TrainableModel(weights).mtp is None

    @pytest.mark.parametrize(
        ("change", "complaint"),
        [
            (lambda arrays: arrays.pop("norm.weight"), r"'norm\.weight': expected floats \(16,\), found none"),
            (lambda arrays: arrays.pop("mtp.0.norm.weight"), r"'mtp\.0\.norm\.weight': expected floats"),
            (lambda arrays: arrays.update(more=np.ones(2)), "'more': expected none of this name, found float64"),
            (
                lambda arrays: arrays.update({"norm.weight": np.ones(3)}),
                r"'norm\.weight': expected floats \(16,\), found float64 \(3,\)",
            ),
            (
                lambda arrays: arrays.update({"norm.weight": np.ones(16, np.int64)}),
                r"expected floats \(16,\), found int64 \(16,\)",
            ),
            (
                lambda arrays: arrays.update({"layers.0.ffn.gate.tid2eid": np.ones((40, 2))}),
                r"tid2eid': expected integers \(40, 2\), found float64 \(40, 2\)",
            ),
        ],
    )
    def test_arrays_that_are_not_the_configurations(self, change, complaint):
        source = tiny.checkpoint()
        arrays = dict(source.weights)
        change(arrays)
        with pytest.raises(CheckpointError, match=complaint):
            Trainable.from_arrays(source.config, arrays)

    def test_errors(self):
        weights = Trainable.of(tiny.checkpoint())
        with pytest.raises(CheckpointError, match="expected tensor 'norm', found none of this name"):
            weights.weight("norm")
        weights.parameters["norm.weight"][1] = np.nan
        with pytest.raises(CheckpointError, match=r"tensor 'norm\.weight': expected finite numbers"):
            weights.check_values("norm.weight")
        with pytest.raises(CheckpointError, match="expected finite numbers"):
            TrainableModel(weights)

    def test_a_leaf_shows_the_array_of_the_moment_and_is_not_written_to(self):
        weights = Trainable.of(tiny.checkpoint())
        leaf = TrainableModel(weights).leaves["norm.weight"]
        weights.parameters["norm.weight"] = np.zeros(16, np.float32)
        assert not leaf.data.any()
        with pytest.raises(AttributeError):
            leaf.data = np.ones(16)
        with pytest.raises(TypeError, match=r"norm\.weight: a weight is not assigned to on the tape"):
            leaf[0] = 1.0

    def test_a_copy_of_a_model_has_weights_of_its_own_that_learn(self):
        model, ids = new_model(CONFIG), tiny.tokens(1, 1, 9, vocab=CONFIG.vocab_size)
        other = copy.deepcopy(model)
        before = gradients(model, ids)
        first = gradients(other, ids)
        assert first[0] == before[0]
        np.testing.assert_array_equal(first[1]["embed.weight"], before[1]["embed.weight"])
        for name, array in other.parameters.items():
            other.parameters[name] = array - 0.1 * first[1][name]
        assert gradients(other, ids)[0] < before[0]
        assert gradients(model, ids)[0] == before[0]
        assert not tape.gradients(model(ids).sum(), [other.leaves["embed.weight"]])[0].any()

    def test_a_model_to_be_trained_is_not_copied(self):
        model = new_model(CONFIG)
        assert TrainableModel.of(model) is model
