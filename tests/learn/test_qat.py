"""Weights as a file stores them, and masters that a straight gradient reaches through the rounding."""

import numpy as np
import pytest

from dsv4.checkpoint import Checkpoint, write_checkpoint
from dsv4.checkpoint.convert import convert
from dsv4.learn.qat import rounded, stored_value, stored_values
from dsv4.learn.who_learns import has_gradient
from dsv4.ops.formats import FP8_MAGNITUDES
from dsv4.ops.quantise import dequantise, fake_quant_fp8
from dsv4.parameters import parameters
from tiny_checkpoint import random_tensors, tiny_config

CONFIG = tiny_config()
TABLE = parameters(CONFIG)
EXPERT = TABLE["layers.1.ffn.experts.0.w1.weight"]


def masters():
    """Random float32 values of every parameter that learns."""
    return {name: array for name, array in random_tensors(CONFIG).items() if has_gradient(TABLE[name])}


def test_values_are_those_of_a_converted_checkpoint(tmp_path):
    write_checkpoint(tmp_path / "float32", CONFIG, random_tensors(CONFIG).items())
    convert(tmp_path / "float32", tmp_path / "released")
    released = Checkpoint.open(tmp_path / "released")
    found = stored_values(CONFIG, masters())
    for name, array in found.items():
        np.testing.assert_array_equal(array, dequantise(released.weight(name)), err_msg=name)
        assert array.dtype == np.float32
    changed = {TABLE[name].format for name, array in masters().items() if not np.array_equal(array, found[name])}
    assert changed == {"fp4", "fp8", "bf16"}


def test_what_is_stored_is_stored_as_it_is():
    once = stored_values(CONFIG, masters())
    for name, array in stored_values(CONFIG, once).items():
        np.testing.assert_array_equal(array, once[name], err_msg=name)


def test_experts_are_fp8_where_the_configuration_says_so():
    fp8 = parameters(tiny_config(True, expert_dtype="fp8"))[EXPERT.name]
    master = np.random.default_rng(0).standard_normal(EXPERT.shape).astype(np.float32)
    errors = [np.abs(stored_value(parameter, master) - master).max() for parameter in (EXPERT, fp8)]
    assert 0 < 2 * errors[1] < errors[0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_dtype_is_kept_and_the_master_untouched(dtype):
    master = np.random.default_rng(0).standard_normal(EXPERT.shape).astype(dtype)
    copy = master.copy()
    assert stored_value(EXPERT, master).dtype == dtype
    np.testing.assert_array_equal(master, copy)


def test_many_small_steps_move_a_stored_value():
    """Each is too small for FP4; without a master, or without the straight gradient, nothing would ever move."""
    wanted = np.full(EXPERT.shape, 3.0, np.float32)
    master = np.full(EXPERT.shape, 2.0, np.float32)
    master[:, 0] = wanted[:, 0] = 6.0  # it holds the block's scale where it is
    first = stored_value(EXPERT, master)
    rate = 0.01
    assert (stored_value(EXPERT, first - rate * (first - wanted)) == first).all()
    for _ in range(100):
        master = master - rate * (stored_value(EXPERT, master) - wanted)
    np.testing.assert_array_equal(stored_value(EXPERT, master), wanted)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("width", [1, 127, 128, 200, 384])
def test_inputs_are_rounded_as_the_reference_rounds_them(width, dtype):
    generator = np.random.default_rng(width)
    x = (generator.standard_normal((6, 5, width)) * 2.0 ** generator.integers(-40, 40, (6, 5, 1))).astype(dtype)
    ties = (FP8_MAGNITUDES[:-1] + FP8_MAGNITUDES[1:]) / 2
    flat = np.concatenate([ties, -ties, np.nextafter(ties, 0), np.nextafter(ties, 500), [0, -0.0, 1e-30, 3e38]])
    x = np.concatenate([x.reshape(-1), flat.astype(dtype)])
    x = np.resize(x, (-(-x.size // width), width))
    x[3, width // 2], x[5, 0] = np.nan, np.inf
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(rounded(x), fake_quant_fp8(x, 128))
    assert rounded(x).dtype == dtype
    np.testing.assert_array_equal(np.signbit(rounded(x[6:])), np.signbit(fake_quant_fp8(x[6:], 128)))
