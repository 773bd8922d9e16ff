"""Checkpoints of random weights: of any configuration, the same for a seed, and no degenerate model."""

import tracemalloc

import numpy as np
import pytest

import tiny
from dsv4 import load
from dsv4.checkpoint import Checkpoint, random_weights
from dsv4.checkpoint.random_weights import smaller, write_random
from dsv4.errors import CheckpointError, ConfigError, SettingError
from dsv4.ops.quantise import dequantise
from dsv4.presets import preset
from full_disk import full_disk
from tiny_checkpoint import listing, tiny_config

WIDTHS = {"hidden_size": 128, "moe_intermediate_size": 64, "vocab_size": 300, "n_routed_experts": 6}


def config(quantised=True):
    return tiny_config(quantised, **WIDTHS)


@pytest.mark.parametrize("quantised", [True, False], ids=["released", "float"])
def test_the_files_hold_what_the_configuration_says_in_finite_numbers(tmp_path, quantised):
    write_random(tmp_path / "m", config(quantised), max_shard_bytes=200_000)
    checkpoint = Checkpoint.open(tmp_path / "m")
    checkpoint.validate()
    assert checkpoint.config == config(quantised)
    for name, parameter in checkpoint.parameters.items():
        checkpoint.check_values(name)
        stored = checkpoint.entries[name].dtype
        released = {"fp4": "I8", "fp8": "F8_E4M3", "bf16": "BF16", "f32": "F32", "i64": "I64"}[parameter.format]
        assert stored == (released if quantised or parameter.format == "i64" else "F32")
    assert len(listing(tmp_path / "m")) > 5, "in several shards"


def test_a_matrix_has_the_size_that_keeps_the_size_of_its_input(tmp_path):
    """In every storage alike, and no number is left out: the codes lie as normal numbers do."""
    write_random(tmp_path / "m", tiny_config(True, hidden_size=1024, q_lora_rank=1024))
    checkpoint = Checkpoint.open(tmp_path / "m")
    for name in ("attn.wq_a.weight", "ffn.experts.2.w1.weight", "attn.compressor.wkv.weight"):
        numbers = dequantise(checkpoint.weight(f"layers.1.{name}"), np.float32).astype(np.float64)
        assert numbers.std() * np.sqrt(numbers.shape[1]) == pytest.approx(1.25, rel=0.15)
        assert abs(numbers.mean()) < 0.1 * numbers.std()
        assert len(np.unique(np.abs(numbers))) > 8


def test_the_seed_decides(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_random(tmp_path / name, config(), seed)
    first, again, other = (file_bytes(tmp_path / name) for name in "abc")
    assert first == again
    assert first != other


def file_bytes(directory):
    return (directory / "model.safetensors").read_bytes()


@pytest.mark.parametrize("quantised", [True, False], ids=["released", "float"])
def test_logits_and_routing_have_something_to_choose_from(tmp_path, quantised):
    write_random(tmp_path / "m", config(quantised))
    model = load(tmp_path / "m", "numpy")
    shares, ids = {}, tiny.tokens(0, 1, 200, vocab=300)

    def observe(name, value):
        if name.endswith("gate.indices"):
            shares[name] = np.bincount(value.ravel(), minlength=6) / value.size

    logits = model(ids, observe=observe)
    assert 2 < logits.std() < 20
    assert len(np.unique(logits.argmax(-1))) > 60
    assert len(shares) == 3
    for share in shares.values():
        assert share.min() > 0
        assert share.max() < 0.5
    changed = ids.copy()
    changed[0, 0] = (ids[0, 0] + 1) % 300
    assert np.abs(model(changed) - logits)[0, -1].max() > 1e-4 * logits.std(), "the first token reaches the last"


def test_experts_of_a_token_are_distinct_in_hash_layers(tmp_path, monkeypatch):
    monkeypatch.setattr(random_weights, "ROWS_AT_ONCE", 64)  # so that a table is drawn in pieces
    write_random(tmp_path / "m", config())
    table = Checkpoint.open(tmp_path / "m").tensor("layers.0.ffn.gate.tid2eid")
    assert (np.diff(np.sort(table, axis=1), axis=1) > 0).all()
    assert len(np.unique(table, axis=0)) > 10


@pytest.mark.parametrize("name", ["flash-0731", "pro-0813"])
def test_fewer_layers_and_experts_of_a_released_model(name):
    whole = preset(name)
    some = smaller(whole, layers=3, experts=8)
    assert (some.num_hidden_layers, some.n_routed_experts, some.draft_layers) == (3, 8, 3)
    assert some.compress_ratios == (*whole.compress_ratios[:3], 0, 0, 0)
    assert some.dspark.target_layer_ids == (0, 1, 2)
    assert some.num_hash_layers == whole.num_hash_layers == 3
    assert smaller(whole) == whole
    assert smaller(whole, layers=2).dspark.target_layer_ids == (0, 1)


def test_more_than_there_is_and_too_few_are_refused():
    with pytest.raises(SettingError, match=r"^layers: expected an integer from 1 to 43, found 44$"):
        smaller(preset("flash-0731"), layers=44)
    with pytest.raises(SettingError, match=r"^experts: expected an integer from 1 to 256, found 257$"):
        smaller(preset("flash-0731"), experts=257)
    with pytest.raises(ConfigError, match=r"num_experts_per_tok: expected at most n_routed_experts 4, found 6$"):
        smaller(preset("flash-0731"), experts=4)


def test_a_disk_without_room_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(random_weights.shutil, "disk_usage", lambda place: type("", (), {"free": 10**9}))
    with pytest.raises(CheckpointError, match=r"expected 16\d.\d GB of room in .*, found 1.0 GB$") as caught:
        write_random(tmp_path / "m", preset("flash-0731"))
    assert "\n" not in str(caught.value)
    assert listing(tmp_path) == []


def test_a_disk_that_fills_up_leaves_nothing(tmp_path):
    with full_disk(), pytest.raises(CheckpointError, match="expected files that can be written, found: File too large"):
        write_random(tmp_path / "m", config())
    assert listing(tmp_path) == []


def test_memory_does_not_grow_with_the_checkpoint(tmp_path, monkeypatch):
    """It is that of a file and of what is drawn at once, however many layers and experts there are."""
    monkeypatch.setattr(random_weights, "ROWS_AT_ONCE", 10_000)
    peaks = []
    for experts in (4, 40):
        wanted = tiny_config(True, hidden_size=128, moe_intermediate_size=128, n_routed_experts=experts)
        tracemalloc.start()
        write_random(tmp_path / str(experts), wanted, max_shard_bytes=200_000)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    sizes = [Checkpoint.open(tmp_path / str(experts)).nbytes for experts in (4, 40)]
    assert sizes[1] > sizes[0] + 3_000_000
    assert peaks[1] < peaks[0] + 1_000_000
