"""The trap of tests that are too short to compress anything: the suite's own inputs reach every mechanism.

A prompt must be longer than an HCA block and windows shorter, the indexer must have to choose, and decoding must cross
the ends of blocks of both kinds.
"""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import tiny
from dsv4.checkpoint import read_config
from model import test_causality, test_forward

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
FILES = [
    ("small", "expected"),
    ("small", "expected_fake_quant"),
    ("quantized", "expected"),
]


def check_config(config, length):
    """Every kind of layer is there and does what it does only on long prompts."""
    assert set(config.compress_ratios) >= {0, 4, 128}
    assert 1 <= config.sliding_window < 128 < length
    assert config.index_topk < length // 4


@pytest.mark.parametrize("folder", ["small", "quantized"])
def test_golden_models_use_every_mechanism(folder):
    config = read_config(GOLDEN / folder)
    check_config(config, length=250)
    assert 0 < config.num_hash_layers < config.num_hidden_layers
    assert config.hc_mult > 1
    assert config.o_groups > 1


@pytest.mark.parametrize(("folder", "file"), FILES)
def test_golden_outputs_hold_entries_of_both_kinds(folder, file):
    expected = load_file(GOLDEN / folder / f"{file}.safetensors")
    counts = {part.shape[1] for name, part in expected.items() if name.endswith("attn.compressor.out")}
    assert counts == {250 // 4, 250 // 128}
    [*choices] = (part for name, part in expected.items() if name.endswith("topk"))
    assert choices
    for chosen in choices:
        read = (chosen[0] >= 0).sum(axis=-1)
        visible = (np.arange(250) + 1) // 4
        assert (read == np.minimum(visible, chosen.shape[-1])).all()
        assert (read < visible).mean() > 0.3


@pytest.mark.parametrize(("folder", "file"), FILES)
def test_golden_decoding_crosses_the_ends_of_blocks(folder, file):
    expected = load_file(GOLDEN / folder / f"{file}.safetensors")
    steps = expected["decode.logits"].shape[1]
    read = set(range(250, 250 + steps))
    assert {256 - 1, 256} <= read
    assert len([position for position in read if position % 4 == 3]) >= 4


def test_tiny_models_use_every_mechanism():
    check_config(tiny.CONFIG, len(test_forward.IDS))
    assert test_causality.LENGTH > 256
    assert {ratio for ratios in test_forward.MODELS for ratio in ratios} == {0, 4, 128}
