"""Checkpoint files: what is written is what is read, under every known spelling, by others too."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from dsv4.checkpoint import Checkpoint, reading, write_checkpoint
from dsv4.checkpoint.header import read_header
from dsv4.checkpoint.record import RECORD
from dsv4.checkpoint.writing import write_safetensors
from dsv4.errors import CheckpointError
from dsv4.ops.quantise import Fp4Weight, Fp8Weight
from tiny_checkpoint import (
    FILE,
    INDEX,
    assert_holds,
    edit_header,
    listing,
    random_tensors,
    rename,
    stored,
    tiny_config,
    write_released,
)

GOLDEN = Path(__file__).parents[1] / "data/golden"
FP8 = "layers.1.attn.wq_b.weight"
TABLE = "layers.0.ffn.gate.tid2eid"


@pytest.fixture
def model(tmp_path):
    """A released tiny checkpoint in one file, to be damaged."""
    return write_released(tmp_path / "model")


@pytest.fixture(params=[False, True], ids=["float32", "released"])
def config(request):
    return tiny_config(quantised=request.param)


@pytest.mark.parametrize("max_shard_bytes", [10**9, 20_000, 1], ids=["one file", "shards", "a shard each"])
@pytest.mark.parametrize("index", [True, False])
def test_round_trip_is_exact(tmp_path, config, max_shard_bytes, index):
    tensors = random_tensors(config)
    write_checkpoint(tmp_path / "model", config, tensors.items(), max_shard_bytes)
    if not index:
        (tmp_path / "model" / INDEX).unlink(missing_ok=True)
    checkpoint = Checkpoint.open(tmp_path / "model")
    assert checkpoint.config == config
    assert checkpoint.has_mtp
    assert_holds(checkpoint, tensors)


def test_one_file_has_no_index_and_shards_have_one(tmp_path, config):
    tensors = random_tensors(config)
    write_checkpoint(tmp_path / "one", config, tensors.items())
    assert listing(tmp_path / "one") == [RECORD, "config.json", FILE]
    write_checkpoint(tmp_path / "many", config, tensors.items(), max_shard_bytes=60_000)
    files = sorted(file.name for file in (tmp_path / "many").glob("*.safetensors"))
    assert files == [f"model-{n:05}-of-{len(files):05}.safetensors" for n in range(1, len(files) + 1)]
    index = json.loads((tmp_path / "many" / INDEX).read_text())
    assert set(index["weight_map"].values()) == set(files)
    sizes = [read_header(tmp_path / "many" / name) for name in files]
    assert index["metadata"]["total_size"] == sum(entry.size for shard in sizes for entry in shard.values())
    assert all(sum(entry.size for entry in shard.values()) <= 60_000 for shard in sizes)


def test_safetensors_library_reads_what_we_write(tmp_path, config):
    tensors = random_tensors(config)
    write_checkpoint(tmp_path / "model", config, tensors.items())
    entries = Checkpoint.open(tmp_path / "model").entries
    with safetensors.safe_open(tmp_path / "model" / FILE, framework="numpy") as file:
        assert file.metadata() == {"format": "pt"}
        assert set(file.keys()) == set(entries)
        for name, entry in entries.items():
            part = file.get_slice(name)
            assert (part.get_dtype(), tuple(part.get_shape())) == (entry.dtype, entry.shape)
        for name in ("layers.1.attn.attn_sink", TABLE):
            np.testing.assert_array_equal(file.get_tensor(name), tensors[name])


def test_we_read_what_the_safetensors_library_writes(tmp_path):
    generator = np.random.default_rng(0)
    arrays = {
        "float": generator.standard_normal((3, 5), dtype=np.float32),
        "bfloat": generator.standard_normal((4, 2), dtype=np.float32).astype(ml_dtypes.bfloat16),
        "int": generator.integers(-9, 9, (2, 2)),
        "byte": generator.integers(-128, 127, (5, 3), dtype=np.int8),
        "scalar": np.array(2.5, np.float32),
        "empty": np.zeros((0, 4), np.float32),
    }
    safetensors.numpy.save_file(arrays, tmp_path / FILE)
    entries = read_header(tmp_path / FILE)
    checkpoint = Checkpoint(tmp_path, tiny_config(), entries)
    assert {name: entry.dtype for name, entry in entries.items()} == {
        **{"float": "F32", "bfloat": "BF16", "int": "I64", "byte": "I8", "scalar": "F32", "empty": "F32"}
    }
    for name, expected in arrays.items():
        found = checkpoint.tensor(name)
        assert found.shape == expected.shape
        assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", ["small", "quantized"])
def test_official_files_are_sound(name):
    checkpoint = Checkpoint.open(GOLDEN / name)
    checkpoint.validate()
    for parameter in checkpoint.parameters:
        checkpoint.check_values(parameter)
    experts = checkpoint.weight("layers.0.ffn.experts.0.w1.weight")
    assert isinstance(experts, Fp4Weight) == (name == "quantized")
    assert isinstance(checkpoint.weight("mtp.0.attn.wo_a.weight"), Fp8Weight) == (name == "quantized")


def test_tensors_are_read_only(model):
    with pytest.raises(ValueError, match="read-only"):
        Checkpoint.open(model).tensor("norm.weight")[0] = 1


def test_opening_touches_no_tensor(model, monkeypatch):
    """The data part becomes a hole of many gigabytes, and no file is mapped before a tensor is asked for."""
    shape = [1 << 17, 1 << 15]
    edit_header(model / FILE, lambda header: header.clear() or header.update(huge=entry_of(shape)))
    start = 8 + int.from_bytes((model / FILE).read_bytes()[:8], "little")
    with (model / FILE).open("r+b") as stream:
        stream.truncate(start)
        stream.truncate(start + 4 * shape[0] * shape[1])
    monkeypatch.setattr(reading, "MappedFile", lambda file: pytest.fail("a file was mapped"))
    before = bytes_read()
    checkpoint = Checkpoint.open(model)
    with pytest.raises(CheckpointError, match=r"found none named embed.weight"):
        checkpoint.validate()
    assert bytes_read() - before < 100_000
    monkeypatch.undo()
    assert checkpoint.tensor("huge")[-1, -1] == 0


def entry_of(shape):
    return {"dtype": "F32", "shape": shape, "data_offsets": [0, 4 * int(np.prod(shape))]}


def bytes_read():
    """How many bytes this process has read by read calls; mapped pages do not count."""
    counters = Path("/proc/self/io")
    return int(counters.read_text().split()[1]) if counters.exists() else 0


ALIASES = {
    "embed.weight": "model.embed_tokens.weight",
    "head.weight": "lm_head.weight",
    "norm.weight": "model.norm.weight",
    "hc_head_fn": "model.hc_head.hc_fn",
    "hc_head_base": "model.hc_head.hc_base",
    "hc_head_scale": "model.hc_head.hc_scale",
    "layers.1.attn.kv_norm.weight": "model.layers.1.attn.norm.weight",
    "layers.1.ffn.gate.bias": "model.layers.1.ffn.gate.e_score_correction_bias",
    "layers.1.attn.wq_a.scale": "model.layers.1.attn.wq_a.weight_scale_inv",
    "layers.1.hc_attn_scale": "model.layers.1.attn_hc.scale",
    "layers.1.attn.attn_sink": "model.layers.1.self_attn.sinks",
    "layers.1.attn.compressor.norm.weight": "model.layers.1.self_attn.compressor.kv_norm.weight",
    "layers.1.attn.compressor.wgate.weight": "model.layers.1.self_attn.compressor.gate_proj.weight",
    "layers.1.attn.indexer.wq_b.weight": "model.layers.1.self_attn.compressor.indexer.q_b_proj.weight",
    "layers.1.attn.indexer.weights_proj.weight": (
        "model.layers.1.self_attn.compressor.indexer.scorer.weights_proj.weight"
    ),
    "layers.1.attn.indexer.compressor.ape": "model.layers.1.self_attn.compressor.indexer.position_bias",
    "layers.1.attn.wq_b.weight": "model.layers.1.self_attn.q_b_proj.weight",
    "layers.1.attn_norm.weight": "model.layers.1.input_layernorm.weight",
    "layers.1.ffn.shared_experts.w2.weight": "model.layers.1.mlp.shared_experts.down_proj.weight",
}


def test_names_of_transformers_are_understood(model):
    expected = stored(model)
    rename(model / FILE, ALIASES)
    checkpoint = Checkpoint.open(model)
    checkpoint.validate()
    assert checkpoint.entries["embed.weight"].stored_name == "model.embed_tokens.weight"
    for name, (_, array) in expected.items():
        assert checkpoint.tensor(name).tobytes() == array.tobytes()


def test_fused_experts_are_taken_apart(tmp_path):
    config = tiny_config()
    tensors = random_tensors(config)
    write_checkpoint(tmp_path, config, tensors.items())
    contents = stored(tmp_path)
    for layer in range(config.num_hidden_layers):
        prefix = f"layers.{layer}.ffn.experts"
        w1, w2, w3 = (
            np.stack([contents.pop(f"{prefix}.{expert}.w{n}.weight")[1] for expert in range(config.n_routed_experts)])
            for n in (1, 2, 3)
        )
        contents[f"model.layers.{layer}.mlp.experts.gate_up_proj"] = ("F32", np.concatenate([w1, w3], axis=1))
        contents[f"model.layers.{layer}.mlp.experts.down_proj"] = ("F32", w2)
    write_safetensors(tmp_path / FILE, contents)
    assert_holds(Checkpoint.open(tmp_path), tensors)


def test_two_tensors_for_one_name_are_an_error(model):
    contents = stored(model)
    contents["lm_head.weight"] = contents["head.weight"]
    write_safetensors(model / FILE, contents)
    with pytest.raises(CheckpointError, match=r"'lm_head.weight': expected one tensor for 'head.weight', found also"):
        Checkpoint.open(model)


def test_rotary_tables_are_ignored(model):
    contents = stored(model)
    contents["model.rotary_emb.inv_freq"] = ("F32", np.ones(4, np.float32))
    write_safetensors(model / FILE, contents)
    Checkpoint.open(model).validate()


def test_floats_may_stand_for_released_formats(tmp_path):
    """bf16 everywhere and int32 expert numbers, as other programs save them."""
    config = tiny_config()
    tensors = {
        name: values.astype(np.int32 if values.dtype == np.int64 else ml_dtypes.bfloat16)
        for name, values in random_tensors(config).items()
    }
    write_checkpoint(tmp_path / "model", config, tensors.items())
    assert_holds(Checkpoint.open(tmp_path / "model"), tensors)


def test_float32_scales_and_unsigned_bytes(model):
    """Base models store scales in float32; other programs store packed FP4 and scales as U8."""
    contents = stored(model)
    scale, packed = "layers.1.attn.wq_b.scale", "layers.0.ffn.experts.1.w1.weight"
    expected = contents[scale][1]
    contents[scale] = ("F32", np.ldexp(np.float32(1), expected.astype(int) - 127))
    contents[packed] = ("U8", contents[packed][1])
    write_safetensors(model / FILE, contents)
    checkpoint = Checkpoint.open(model)
    checkpoint.validate()
    checkpoint.check_values(FP8)
    np.testing.assert_array_equal(checkpoint.weight(FP8).scales, expected)
    assert isinstance(checkpoint.weight(packed), Fp4Weight)
    contents[scale][1][0, 0] = 0.75
    write_safetensors(model / FILE, contents)
    with pytest.raises(CheckpointError, match=r"wq_b.scale' at \[0, 0\]: expected a power of two .*, found 0.75"):
        Checkpoint.open(model).weight(FP8)


def test_experts_of_base_models(tmp_path):
    """FP8 experts are found in the files where config.json does not tell."""
    config = tiny_config(True, expert_dtype="fp8")
    tensors = random_tensors(config)
    write_checkpoint(tmp_path / "model", config, tensors.items())
    content = json.loads((tmp_path / "model/config.json").read_text())
    del content["expert_dtype"]
    (tmp_path / "model/config.json").write_text(json.dumps(content))
    checkpoint = Checkpoint.open(tmp_path / "model")
    assert checkpoint.config == config
    assert_holds(checkpoint, tensors)


def test_mtp_tensors_may_be_absent_altogether(tmp_path):
    config = tiny_config()
    tensors = random_tensors(config, include_mtp=False)
    write_checkpoint(tmp_path / "model", config, tensors.items())
    checkpoint = Checkpoint.open(tmp_path / "model")
    assert not checkpoint.has_mtp
    assert_holds(checkpoint, tensors)
