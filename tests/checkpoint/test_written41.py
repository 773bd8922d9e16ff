"""Checkpoints of V4.1 that are written: config.json there and back, converted both ways, and of random weights."""

import json
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from command import is_one_line, runner
from dsv4.checkpoint import config41_as_json, config41_from_json, open_checkpoint, parts, read_config41, values
from dsv4.checkpoint.convert import convert
from dsv4.checkpoint.random_weights import write_random
from dsv4.checkpoint.smaller41 import smaller41
from dsv4.errors import SettingError
from dsv4.model41.model import Model41
from dsv4.ops import Ops
from dsv4.ops.engram import engram_moduli
from dsv4.ops.quantise import Fp8Weight, dequantise

DATA = Path(__file__).parents[1] / "data"
RELEASED = DATA / "configs" / "deepseek-v4.1-flash.json"
FLOAT, QUANT = (DATA / "golden" / name for name in ("v41_float", "v41_quant"))


@pytest.fixture
def dsv4(monkeypatch, capfd):
    """Run the command in this process: arguments -> exit status, standard output, standard error."""
    return runner(monkeypatch, capfd)


@pytest.mark.parametrize("path", [RELEASED, FLOAT, QUANT], ids=["released", "float", "quant"])
def test_a_config_is_read_as_it_was_written(path):
    config = read_config41(path)
    again = json.loads(json.dumps(config41_as_json(config)))
    assert again["text_config"].get("hidden_size") == config.hidden_size and "hidden_size" not in again
    assert config41_from_json(again) == config
    without = config.without_draft_layers()
    assert config41_from_json(json.loads(json.dumps(config41_as_json(without)))) == without


def test_stored_weights_are_converted_to_floats_and_back(tmp_path):
    convert(QUANT, tmp_path / "float", "float32")
    convert(tmp_path / "float", tmp_path / "back", "released")
    first, floats, back = map(open_checkpoint, (QUANT, tmp_path / "float", tmp_path / "back"))
    back.validate()
    assert floats.config == replace(first.config, quantised=False, torch_dtype="float32")
    for name, parameter in first.parameters.items():
        stored, wide, again = (one.weight(name) for one in (first, floats, back))
        np.testing.assert_array_equal(dequantise(stored), wide, err_msg=name)
        np.testing.assert_array_equal(dequantise(again), wide, err_msg=name)
        assert not isinstance(again, Fp8Weight) or again.block == parameter.block


def test_a_table_is_converted_in_parts_of_a_few_rows(tmp_path, monkeypatch):
    """Both ways no array is nearly as large as the table, and the values are those of the whole table."""
    config = read_config41(QUANT)
    rows = tuple(
        engram_moduli(2, config.engram.max_ngram_size, config.engram.n_heads, 20_000).sum(axis=(1, 2)).tolist()
    )
    config = replace(config, engram=replace(config.engram, vocab_size=20_000, num_embeddings=rows))
    write_random(tmp_path / "made", config, max_shard_bytes=10**5)
    monkeypatch.setattr(parts, "NUMBERS_AT_ONCE", 2**14)
    monkeypatch.setattr(values, "CHUNK", 2**14)
    name = f"layers.{config.engram.layer_ids[0]}.engram.embed.weight"
    made = dequantise(open_checkpoint(tmp_path / "made").weight(name))
    most = []

    def note(*_):
        most.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.reset_peak()

    for source, to in (("made", "float32"), ("float32", "released")):
        most.clear()
        tracemalloc.start()
        convert(tmp_path / source, tmp_path / to, to, max_shard_bytes=10**5, progress=note)
        tracemalloc.stop()
        assert max(most[1:]) < 0.6 * made.nbytes, (to, most)  # the first is of opening the checkpoint
        np.testing.assert_array_equal(dequantise(open_checkpoint(tmp_path / to).weight(name)), made)
    first, again = (open_checkpoint(tmp_path / each).weight(name) for each in ("made", "released"))
    assert isinstance(again, Fp8Weight) and again.block == (1, 32) and again.scales.shape == first.scales.shape


@pytest.mark.parametrize("options", [(), ("--float",)], ids=["released", "float"])
def test_random_weights_make_a_model_in_which_every_part_matters(tmp_path, dsv4, options):
    status, out, _ = dsv4("random", QUANT, tmp_path / "made", "--layers", 7, "--engram-vocab-size", 20, *options)
    assert status == 0 and "wrote" in out
    checkpoint = open_checkpoint(tmp_path / "made")
    checkpoint.validate()
    config = checkpoint.config
    assert (config.num_hidden_layers, config.engram.vocab_size, config.quantised) == (7, 20, not options)
    classes = np.arange(config.vocab_size) % config.engram.compressed_vocab_size
    logits = Model41(checkpoint, Ops(), config.quantised, token_classes=classes)([[5, 7, 9, 11, 5, 7, 9, 12]])
    assert np.isfinite(logits).all() and 1 < logits.std() < 20


def test_a_smaller_config_keeps_what_its_layers_have():
    config = smaller41(read_config41(RELEASED), layers=15, experts=8, engram_vocab_size=1000)
    assert (config.kv_source_layer_ids, config.index_source_layer_ids) == ((2, 8, 14), (2, 8, 14))
    assert (config.candidate_source_layer_id, config.n_routed_experts) == (None, 8)
    assert (config.dspark.target_layer_ids, config.dspark.n_routed_experts) == ((12, 13, 14), 8)
    assert smaller41(read_config41(RELEASED), experts=200).dspark.n_routed_experts == 128
    assert config.compress_ratios[-3:] == (0, 0, 0)
    moduli = engram_moduli(2, 4, 8, 1000)
    assert config.engram.num_embeddings == tuple(moduli.sum(axis=(1, 2)).tolist())
    assert smaller41(config, layers=1).engram is None
    with pytest.raises(SettingError, match=r"^engram_vocab_size: expected a model with an Engram, found none in "):
        smaller41(config, layers=1, engram_vocab_size=20)


def test_v4_has_no_engram_tables(tmp_path, dsv4):
    status, _, err = dsv4("random", "flash", tmp_path / "made", "--engram-vocab-size", 20)
    assert status == 2 and is_one_line(err) and "expected a model of V4.1" in err
