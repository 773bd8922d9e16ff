"""Conversion between plain floats and the released storage."""

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from dsv4.checkpoint import Checkpoint, write_checkpoint
from dsv4.checkpoint.convert import convert
from dsv4.checkpoint.record import RECORD
from dsv4.errors import CheckpointError
from dsv4.ops import formats
from dsv4.ops.quantise import Fp4Weight, Fp8Weight, dequantise, quantise_fp4, quantise_fp8
from tiny_checkpoint import listing, random_tensors, tiny_config

GOLDEN = Path(__file__).parents[1] / "data/golden"


@pytest.fixture
def float_model(tmp_path):
    config = tiny_config(torch_dtype="float32")
    write_checkpoint(tmp_path / "source", config, random_tensors(config).items())
    return tmp_path / "source"


def bytes_of(directory):
    checkpoint = Checkpoint.open(directory)
    return {name: (entry.dtype, checkpoint.tensor(name).tobytes()) for name, entry in checkpoint.entries.items()}


def values_of(directory):
    checkpoint = Checkpoint.open(directory)
    return {name: dequantise(checkpoint.weight(name), np.float64) for name in checkpoint.parameters}


def assert_same_values(first, second):
    first, second = values_of(first), values_of(second)
    assert first.keys() == second.keys()
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name], err_msg=name)


def test_float_to_released_stores_what_the_quantisers_give(float_model, tmp_path):
    convert(float_model, tmp_path / "target")
    source, target = Checkpoint.open(float_model), Checkpoint.open(tmp_path / "target")
    target.validate()
    assert target.config.quantised and target.config.torch_dtype == "bfloat16"
    stored = {"fp4": "I8", "fp8": "F8_E4M3", "bf16": "BF16", "f32": "F32", "i64": "I64"}
    for name, parameter in target.parameters.items():
        assert target.entries[name].dtype == stored[parameter.format]
        found, values = target.weight(name), np.asarray(source.weight(name))
        match found:
            case Fp4Weight(packed, scales):
                expected = quantise_fp4(values)
                assert (packed.tobytes(), scales.tobytes()) == (expected.packed.tobytes(), expected.scales.tobytes())
            case Fp8Weight(codes, scales):
                expected = quantise_fp8(values)
                assert (codes.tobytes(), scales.tobytes()) == (expected.codes.tobytes(), expected.scales.tobytes())
            case _:
                np.testing.assert_array_equal(found, values.astype(found.dtype))


@pytest.mark.parametrize("name", ["quantized", "dspark_quant"])
@pytest.mark.parametrize("wide", ["float32", "bfloat16"])
def test_released_numbers_survive_as_floats(wide, name, tmp_path):
    convert(GOLDEN / name, tmp_path / "wide", wide)
    convert(tmp_path / "wide", tmp_path / "again", "released")
    checkpoint = Checkpoint.open(tmp_path / "wide")
    assert checkpoint.config.dspark == Checkpoint.open(GOLDEN / name).config.dspark
    assert not checkpoint.config.quantised and checkpoint.config.torch_dtype == wide
    dtypes = {checkpoint.weight(name).dtype for name in checkpoint.parameters}
    assert dtypes == {np.dtype(np.int64), np.dtype(np.float32)} | (
        {np.dtype(ml_dtypes.bfloat16)} if wide == "bfloat16" else set()
    )
    assert_same_values(GOLDEN / name, tmp_path / "wide")
    assert_same_values(GOLDEN / name, tmp_path / "again")


def test_bytes_come_back_where_the_codes_are_canonical(tmp_path):
    """A block whose largest code lies in the upper half of the format's range has the smallest scale that serves.

    Where rounding took the largest magnitude down to 3 (224), the next smaller scale serves as well, and is chosen
    when the numbers are quantised anew; the numbers are the same.
    """
    convert(GOLDEN / "quantized", tmp_path / "wide", "float32")
    convert(tmp_path / "wide", tmp_path / "again", "released")
    before, after = Checkpoint.open(GOLDEN / "quantized"), Checkpoint.open(tmp_path / "again")
    seen = 0
    for name in before.parameters:
        match before.weight(name), after.weight(name):
            case Fp4Weight() as old, Fp4Weight() as new:
                codes = np.abs(formats.fp4_unpack(old.packed)).reshape(*old.scales.shape, 32)
                canonical = codes.max(axis=-1) > 3
                assert canonical.any()
                np.testing.assert_array_equal(old.scales[canonical], new.scales[canonical])
                rows = [weight.packed.reshape(*old.scales.shape, 16)[canonical] for weight in (old, new)]
                np.testing.assert_array_equal(*rows)
                seen += not canonical.all()
            case old, new if old.shape == new.shape and not isinstance(old, Fp8Weight):
                np.testing.assert_array_equal(old, new)
    assert seen  # the file has blocks of the other kind, too
    convert(tmp_path / "again", tmp_path / "wide again", "float32")
    convert(tmp_path / "wide again", tmp_path / "third", "released")
    assert bytes_of(tmp_path / "again") == bytes_of(tmp_path / "third")  # now every block is canonical


def test_what_is_released_already_is_copied(tmp_path):
    convert(GOLDEN / "quantized", tmp_path / "copy", "released", max_shard_bytes=300_000)
    assert bytes_of(tmp_path / "copy") == bytes_of(GOLDEN / "quantized")
    assert (tmp_path / "copy/model.safetensors.index.json").is_file()
    convert(GOLDEN / "small", tmp_path / "float", "float32")
    assert bytes_of(tmp_path / "float") == bytes_of(GOLDEN / "small")


def test_progress_and_tokenizer_files(float_model, tmp_path):
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "notes.txt"):
        (float_model / name).write_text(f'"{name}"')
    seen = []
    convert(float_model, tmp_path / "target", "bfloat16", progress=lambda *step: seen.append(step))
    names = list(Checkpoint.open(float_model).parameters)
    assert seen == [(number, len(names), name) for number, name in enumerate(names, start=1)]
    assert set(listing(tmp_path / "target")) == {
        *(RECORD, "config.json", "model.safetensors"),
        *("tokenizer.json", "tokenizer_config.json", "generation_config.json"),
    }
    assert (tmp_path / "target/tokenizer.json").read_text() == '"tokenizer.json"'


def test_stages_without_tensors_are_no_longer_declared(tmp_path):
    dspark = {"dspark_block_size": 5, "dspark_noise_token_id": 23, "dspark_target_layer_ids": [2]}
    config = tiny_config(True, compress_ratios=[0, 4, 128, 0, 0], dspark_markov_rank=4, **dspark)
    write_checkpoint(tmp_path / "source", config, random_tensors(config, include_mtp=False).items())
    convert(tmp_path / "source", tmp_path / "target", "float32")
    found = Checkpoint.open(tmp_path / "target").config
    assert (found.dspark, found.draft_layers) == (None, 0)


def test_mtp_layers_without_tensors_are_no_longer_declared(tmp_path):
    config = tiny_config()
    write_checkpoint(tmp_path / "source", config, random_tensors(config, include_mtp=False).items())
    convert(tmp_path / "source", tmp_path / "target")
    found = Checkpoint.open(tmp_path / "target").config
    assert (found.num_nextn_predict_layers, found.compress_ratios) == (0, (0, 4, 128))


def test_experts_of_base_models_stay_fp8(tmp_path):
    config = tiny_config(True, expert_dtype="fp8")
    write_checkpoint(tmp_path / "source", config, random_tensors(config).items())
    convert(tmp_path / "source", tmp_path / "target")
    assert bytes_of(tmp_path / "source") == bytes_of(tmp_path / "target")
    assert Checkpoint.open(tmp_path / "target").config.expert_dtype == "fp8"


def test_width_that_fp4_cannot_take(tmp_path):
    config = tiny_config(moe_intermediate_size=24)
    write_checkpoint(tmp_path / "source", config, random_tensors(config).items())
    message = r"source: tensor 'layers.0.ffn.experts.0.w2.weight': FP4 storage expected .* multiple of 32, found 24"
    with pytest.raises(CheckpointError, match=message):
        convert(tmp_path / "source", tmp_path / "target")
    assert listing(tmp_path) == ["source"]
    convert(tmp_path / "source", tmp_path / "target", "bfloat16")


def test_bad_values_are_found_on_the_way(tmp_path):
    config = tiny_config()
    for value, message in ((np.nan, r"at \[3, 5\]: expected a finite number"), (3.4e38, "values within bfloat16")):
        tensors = random_tensors(config)
        tensors["head.weight"][3, 5] = value
        write_checkpoint(tmp_path / "source", config, tensors.items(), overwrite=True)
        with pytest.raises(CheckpointError, match=f"'head.weight'.*{message}"):
            convert(tmp_path / "source", tmp_path / "target")
        assert listing(tmp_path) == ["source"]


def test_targets_in_the_way(float_model, tmp_path):
    with pytest.raises(CheckpointError, match="expected a target apart from the source"):
        convert(float_model, float_model, overwrite=True)
    with pytest.raises(CheckpointError, match="expected a target apart from the source"):
        convert(float_model, tmp_path, overwrite=True)
    convert(float_model, tmp_path / "target")
    with pytest.raises(CheckpointError, match="found a checkpoint"):
        convert(float_model, tmp_path / "target")
    convert(float_model, tmp_path / "target", "float32", overwrite=True)
    assert_same_values(float_model, tmp_path / "target")


def test_the_source_by_another_name_is_no_target(float_model, tmp_path):
    """Neither a link to it, nor the place where the files are to which its links lead."""
    (tmp_path / "link").symlink_to(float_model)
    linked = tmp_path / "linked"
    linked.mkdir()
    for file in float_model.iterdir():
        (linked / file.name).symlink_to(file)
    before = bytes_of(float_model)
    for source, target in (
        *((float_model, "link"), (tmp_path / "link", "source"), (linked, "source"), (linked, "link")),
        (linked, "source/../linked"),
    ):
        with pytest.raises(CheckpointError, match="expected a target apart from the source"):
            convert(source, tmp_path / target, overwrite=True)
    assert bytes_of(float_model) == before
    assert listing(tmp_path) == ["link", "linked", "source"]


def test_a_target_in_the_source_leaves_it_as_it_is(float_model, monkeypatch):
    monkeypatch.chdir(float_model)
    before = bytes_of(float_model)
    names = listing(float_model)
    convert(".", "copy", "float32")
    assert bytes_of("copy") == bytes_of(".") == before
    assert listing(float_model) == sorted([*names, "copy"])


def test_unknown_storage(float_model, tmp_path):
    with pytest.raises(ValueError, match=r"convert: `to` must be one of .*, found 'int4'"):
        convert(float_model, tmp_path / "target", "int4")
