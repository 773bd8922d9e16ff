"""Which optimiser has which parameter, of every released configuration, and that a resumed one goes on exactly."""

from pathlib import Path

import numpy as np
import pytest

import tiny
from dsv4.checkpoint import read_config
from dsv4.errors import CheckpointError, SettingError
from dsv4.learn.adamw import adamw_step
from dsv4.learn.muon import muon_step
from dsv4.learn.optimiser import STACK, Optimiser, logical_matrices
from dsv4.learn.who_learns import has_gradient, is_indexer
from dsv4.parameters import parameters

CONFIGS = Path(__file__).parents[1] / "data/configs"
CONFIG = tiny.CONFIG
TABLE = parameters(CONFIG)
RELEASED = {name: read_config(CONFIGS / f"deepseek-v4-{name}.json") for name in ("flash", "pro")}

ADAMW = {
    *("embed.weight", "head.weight", "attn_sink", "compressor.ape", "compressor.norm.weight"),
    *("norm.weight", "attn_norm.weight", "ffn_norm.weight", "q_norm.weight", "kv_norm.weight"),
    *("enorm.weight", "hnorm.weight", "hc_attn_base", "hc_attn_scale", "hc_ffn_base", "hc_ffn_scale"),
    *("hc_head_base", "hc_head_scale"),
}
WHOLE = {
    *("wq_a.weight", "wq_b.weight", "wkv.weight", "wo_b.weight", "weights_proj.weight", "wgate.weight"),
    *("gate.weight", "w1.weight", "w2.weight", "w3.weight", "hc_head_fn", "e_proj.weight", "h_proj.weight"),
}
IN_PARTS = {"wo_a.weight", "hc_attn_fn", "hc_ffn_fn"}
NEITHER = {"gate.bias", "gate.tid2eid"}


def ending(name):
    """What kind of parameter a name stands for: its end, without layers and experts."""
    found = [one for one in ADAMW | WHOLE | IN_PARTS | NEITHER if name == one or name.endswith(f".{one}")]
    return max(found, key=len)


def random_gradients(names, seed):
    """Normally distributed float32 gradients."""
    generator = np.random.default_rng(seed)
    return {name: generator.standard_normal(TABLE[name].shape).astype(np.float32) for name in names}


def weights():
    """The weights of the tiny model that a loss can move."""
    source = tiny.checkpoint()
    return {name: weight for name, weight in source.weights.items() if has_gradient(TABLE[name])}


@pytest.mark.parametrize("config", [*RELEASED.values(), CONFIG], ids=[*RELEASED, "tiny"])
def test_every_parameter_has_one_optimiser_or_no_gradient(config):
    for name, parameter in parameters(config).items():
        kind, matrices = ending(name), logical_matrices(parameter, config)
        assert has_gradient(parameter) == (kind not in NEITHER), name
        if has_gradient(parameter):
            assert (kind in ADAMW) == (matrices == ()), name
            assert len(matrices) == {"wo_a.weight": config.o_groups}.get(kind, 3 if kind in IN_PARTS else 1) or (
                kind in ADAMW
            ), name
        covered = [row for rows in matrices for row in range(*rows.indices(parameter.shape[0]))]
        assert covered == list(range(parameter.shape[0])) * bool(matrices), name


def test_the_parts_of_a_hyper_connection_are_pre_post_and_comb():
    assert logical_matrices(TABLE["layers.0.hc_attn_fn"], CONFIG) == (slice(0, 4), slice(4, 8), slice(8, 24))


def test_what_belongs_to_an_indexer():
    found = {name for name in TABLE if is_indexer(name)}
    assert found == {name for name, parameter in TABLE.items() if "layers.1.attn.indexer." in name} | {
        name for name in TABLE if "layers.3.attn.indexer." in name
    }
    assert {TABLE[name].part for name in found} <= {"indexer", "norm"}


@pytest.mark.parametrize("stack", [1, 1000, STACK])
def test_a_step_is_that_of_each_matrix_by_itself(stack, monkeypatch):
    """Experts, groups of the output projection and parts of hyper-connections are not one matrix, however many go
    through the iteration together."""
    monkeypatch.setattr("dsv4.learn.optimiser.STACK", stack)
    before, gradients = weights(), random_gradients(weights(), 1)
    optimiser = Optimiser(CONFIG, dict(before))
    for _ in range(2):
        optimiser.step(gradients, 0.02)
    for name, weight in before.items():
        matrices = logical_matrices(TABLE[name], CONFIG)
        for rows in matrices or (slice(None),):
            expected, gradient = weight[rows], gradients[name][rows]
            state = (np.zeros_like(expected),) * (1 if matrices else 2)
            for step in (1, 2):
                if matrices:
                    expected, *state = muon_step(expected, gradient, *state, 0.02)
                else:
                    expected, *state = adamw_step(expected, gradient, *state, step, 0.02)
            np.testing.assert_allclose(optimiser.parameters[name][rows], expected, rtol=2e-4, atol=2e-5, err_msg=name)


def test_a_resumed_optimiser_goes_on_with_the_same_bits():
    """The weights and the state go through bytes, as they do in a file; some parameters rest for a while."""
    optimiser = Optimiser(CONFIG, weights())
    named = [*optimiser.parameters]
    chosen = [named, named[::2], named, [name for name in named if is_indexer(name)], named]
    gradients = [
        {name: np.asfortranarray(gradient) for name, gradient in random_gradients(names, seed).items()}
        for seed, names in enumerate(chosen)
    ]
    resumed = None
    for number, gradient in enumerate(gradients):
        optimiser.step(gradient, 0.01)
        if resumed:
            resumed.step(gradient, 0.01)
        if number == 2:
            stored = [{name: from_bytes(array) for name, array in part.items()} for part in contents(optimiser)]
            resumed = Optimiser(CONFIG, stored[0])
            resumed.load_state(stored[1])
    for found, expected in zip(contents(resumed), contents(optimiser), strict=True):
        assert found.keys() == expected.keys()
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array, err_msg=name)


def contents(optimiser):
    """The parameters and the state."""
    return optimiser.parameters, optimiser.state()


def from_bytes(array):
    """The array as a file gives it back."""
    return np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape)


def test_weights_lie_in_memory_as_a_file_holds_them():
    """A product with a transposed weight may have other bits, and gradients come in any layout."""
    optimiser = Optimiser(CONFIG, weights())
    gradients = random_gradients(optimiser.parameters, 1)
    optimiser.step({name: np.asfortranarray(gradient) for name, gradient in gradients.items()}, 0.01)
    assert all(weight.flags.c_contiguous for weight in optimiser.parameters.values())


def test_a_copy_of_the_dictionaries_is_a_snapshot():
    """The dictionary that was handed over has the new weights; arrays themselves are never written to."""
    current = weights()
    optimiser = Optimiser(CONFIG, current)
    gradients = random_gradients(optimiser.parameters, 1)
    optimiser.step(gradients, 0.01)
    kept = dict(current), optimiser.state()
    values = [{name: array.copy() for name, array in part.items()} for part in kept]
    optimiser.step(gradients, 0.01)
    for part, expected in zip(kept, values, strict=True):
        assert all(np.array_equal(part[name], array) for name, array in expected.items())
    assert all((current[name] != weight).any() for name, weight in kept[0].items())


def test_what_has_no_gradient_in_a_step_stays_as_it_is():
    """It does not even decay: an indexer before its warm-up, and all else during it."""
    optimiser = Optimiser(CONFIG, weights())
    before, state = dict(optimiser.parameters), optimiser.state()
    names = [name for name in before if is_indexer(name)]
    optimiser.step(random_gradients(names, 2), 0.01)
    changed = {name for name in before if not np.array_equal(before[name], optimiser.parameters[name])}
    assert changed == set(names)
    moved = {name for name, array in optimiser.state().items() if not np.array_equal(array, state[name])}
    assert all(is_indexer(name) for name in moved) and moved


def test_float32_weights_stay_float32_whatever_the_learning_rate_is():
    optimiser = Optimiser(CONFIG, weights())
    optimiser.step(random_gradients(optimiser.parameters, 1), np.float64(0.01))
    assert {weight.dtype for weight in optimiser.parameters.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("name", ["layers.1.ffn.gate.bias", "layers.0.ffn.gate.tid2eid", "layers.9.attn.wkv.weight"])
def test_parameters_without_a_gradient_are_in_no_optimiser(name):
    with pytest.raises(SettingError, match="expected parameters that have a gradient, found"):
        Optimiser(CONFIG, {name: np.zeros(6)})


def test_shapes_and_dtypes_must_fit():
    with pytest.raises(SettingError, match=r"wkv.weight: expected shape \(12, 16\), found \(16, 12\)"):
        Optimiser(CONFIG, {"layers.0.attn.wkv.weight": np.zeros((16, 12))})
    optimiser = Optimiser(CONFIG, weights())
    gradient = np.zeros((12, 16))
    with pytest.raises(SettingError, match=r"expected float32 \(12, 16\), found float64 \(12, 16\)"):
        optimiser.step({"layers.0.attn.wkv.weight": gradient}, 0.1)
    with pytest.raises(SettingError, match=r"gradient of 'layers.1.ffn.gate.bias': expected one of"):
        optimiser.step({"layers.1.ffn.gate.bias": gradient}, 0.1)


def test_the_state_of_another_model_is_refused():
    optimiser = Optimiser(CONFIG, weights())
    state = optimiser.state()
    first, *_ = state
    with pytest.raises(CheckpointError, match="expected an array, found none of this name"):
        optimiser.load_state({name: state[name] for name in state if name != first})
    with pytest.raises(CheckpointError, match="'other': expected nothing of this name, found it"):
        optimiser.load_state(state | {"other": np.zeros(1)})
    with pytest.raises(CheckpointError, match=r"expected float32 .* found float64"):
        optimiser.load_state(state | {first: state[first].astype(np.float64)})
