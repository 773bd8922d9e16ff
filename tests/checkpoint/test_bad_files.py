"""No bad checkpoint passes: every damage is a CheckpointError that names file, tensor, expected and found."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4.checkpoint import Checkpoint, reading, write_checkpoint
from dsv4.checkpoint.header import read_header
from dsv4.checkpoint.writing import write_safetensors
from dsv4.errors import CheckpointError, ConfigError
from tiny_checkpoint import FILE, INDEX, edit_header, poke, random_tensors, rename, stored, tiny_config, write_released

FP4 = "layers.0.ffn.experts.1.w1.weight"
FP8 = "layers.1.attn.wq_b.weight"
TABLE = "layers.0.ffn.gate.tid2eid"


@pytest.fixture
def model(tmp_path):
    """A released tiny checkpoint in one file, to be damaged."""
    return write_released(tmp_path / "model")


def test_missing_pieces(model, tmp_path):
    with pytest.raises(CheckpointError, match="absent: expected a directory with a checkpoint, found no such file"):
        Checkpoint.open(tmp_path / "absent")
    with pytest.raises(
        CheckpointError, match=r"model\.safetensors: expected a directory with a checkpoint, found a file"
    ):
        Checkpoint.open(model / FILE)
    (model / FILE).rename(tmp_path / FILE)
    with pytest.raises(CheckpointError, match=r"expected model\.safetensors .* found no safetensors file"):
        Checkpoint.open(model)
    (model / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"config\.json: expected a config\.json, found no such file"):
        Checkpoint.open(model)


def huge_length(content):
    return (10**15).to_bytes(8, "little") + content[8:]


DAMAGES = {
    "empty file": (lambda content: b"", "truncated: expected a header length of 8 bytes, found 0 bytes"),
    "truncated header": (lambda content: content[:100], "truncated header: expected .* bytes of header, found 92"),
    "truncated data": (lambda content: content[:-1], "truncated data: expected a file of .* bytes, found"),
    "more data": (lambda content: content + b"0", "expected .* bytes as the header says, found"),
    "foreign file": (lambda content: b"PK\x03\x04 a zip archive" * 9, "not a safetensors file: expected a header of"),
    "absurd length": (huge_length, "at most 25000000 bytes, found 1000000000000000"),
    "no JSON": (lambda content: content[:8] + b"[" + content[9:], "not a safetensors file: expected a JSON header"),
    "a list": (lambda content: (2).to_bytes(8, "little") + b"[]", "expected a JSON object, found list"),
    "deep JSON": (lambda content: (90_000).to_bytes(8, "little") + b"[" * 90_000, "expected a JSON header"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_file_is_named(model, damage):
    change, message = DAMAGES[damage]
    (model / FILE).write_bytes(change((model / FILE).read_bytes()))
    with pytest.raises(CheckpointError, match=rf"model\.safetensors: .*{message}"):
        Checkpoint.open(model)


BAD_FIELDS = [
    ("dtype", "F7", "dtype: expected one of .*, found 'F7'"),
    ("dtype", ["F32"], "dtype: expected one of"),
    ("dtype", "F32", "expected 256 bytes for F32 .64., found 128"),
    ("shape", [63], "expected 126 bytes for BF16 .63., found 128"),
    ("shape", [-64], "shape: expected a list of at most 8 integers of at least 0"),
    ("shape", [64] + 8 * [1], "shape: expected a list of at most 8 integers"),
    ("shape", [2**63], "shape: expected a list .* below 2.63, found .9223372036854775808."),
    ("shape", [64.0], "shape: expected a list of at most 8 integers"),
    ("shape", None, "shape: expected a list of at most 8 integers"),
    ("data_offsets", [128, 0], "data_offsets: expected a rising pair"),
    ("data_offsets", [0], "data_offsets: expected a rising pair"),
    ("data_offsets", [0, 128], "overlaps the tensor before it"),
    ("data_offsets", [10**12, 10**12 + 128], "leaves a gap before it|truncated data"),
]


@pytest.mark.parametrize(("field", "value", "message"), BAD_FIELDS)
def test_bad_header_fields_are_named(model, field, value, message):
    edit_header(model / FILE, lambda header: header["norm.weight"].update({field: value}))
    with pytest.raises(CheckpointError, match=rf"model\.safetensors: tensor .*({message})"):
        Checkpoint.open(model)


def test_name_that_occurs_twice_in_a_header(tmp_path):
    one = b'"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    text = b"{" + one + b"," + one + b"}"
    (tmp_path / FILE).write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(CheckpointError, match="found no valid JSON: the name 'a' twice"):
        read_header(tmp_path / FILE)


def test_bad_index(tmp_path):
    config = tiny_config()
    write_checkpoint(tmp_path / "model", config, random_tensors(config).items(), max_shard_bytes=100_000)
    file = tmp_path / "model" / INDEX
    good = json.loads(file.read_text())
    first = good["weight_map"]["embed.weight"]
    other = good["weight_map"]["head.weight"]
    for change, message in (
        ({"embed.weight": "absent.safetensors"}, "found no file 'absent.safetensors'"),
        ({"embed.weight": f"../model/{first}"}, "found no file '../model/"),
        ({"embed.weight": other}, f"expected tensor 'embed.weight' in {other}"),
        ({"unheard.weight": first}, f"expected tensor 'unheard.weight' in {first}"),
        ({"embed.weight": 3}, "a JSON object of file names"),
    ):
        file.write_text(json.dumps(good | {"weight_map": good["weight_map"] | change}))
        with pytest.raises(CheckpointError, match=message):
            Checkpoint.open(tmp_path / "model")
    for text, message in (
        ("{", "a JSON file, found no valid JSON"),
        ("[]", "of file names"),
        ('{"weight_map": {}}', "found none"),
    ):
        file.write_text(text)
        with pytest.raises(CheckpointError, match=message):
            Checkpoint.open(tmp_path / "model")
    file.unlink()
    (tmp_path / "model" / first).unlink()
    with pytest.raises(CheckpointError, match=f"shards, found no {first}"):
        Checkpoint.open(tmp_path / "model")


def test_missing_and_unknown_tensors_are_named(model):
    rename(model / FILE, {"norm.weight": "norm.wait", "layers.0.attn.wq_a.weight": "w1", "hc_head_fn": "w2"})
    checkpoint = Checkpoint.open(model)
    with pytest.raises(CheckpointError, match=r"found none named layers.0.attn.wq_a.weight, norm.weight, hc_head_fn"):
        checkpoint.validate()
    with pytest.raises(CheckpointError, match=r"expected tensor 'norm.weight', found none of this name"):
        checkpoint.weight("norm.weight")
    with pytest.raises(CheckpointError, match=r"expected a parameter of .*, found 'w1'"):
        checkpoint.weight("w1")
    rename(model / FILE, {"norm.wait": "norm.weight", "w1": "layers.0.attn.wq_a.weight", "w2": "hc_head_fn"})
    contents = stored(model)
    for number in range(7):
        contents[f"model.extra.{number}"] = ("F32", np.ones(1, np.float32))
    write_safetensors(model / FILE, contents)
    with pytest.raises(CheckpointError, match=r"found 'model.extra.0', .*'model.extra.4' and 2 more"):
        Checkpoint.open(model).validate()


def test_part_of_an_mtp_layer_is_missing(model):
    rename(model / FILE, {"mtp.0.enorm.weight": "model.x"})
    with pytest.raises(CheckpointError, match=r"found none named mtp.0.enorm.weight"):
        Checkpoint.open(model).validate()


BYTES = np.zeros((32, 16), np.uint8)
MISFITS = [
    ("norm.weight", "F8_E4M3", (64,), "expected dtype F32 or BF16 or F16, found F8_E4M3"),
    ("norm.weight", "F32", (65,), r"expected shape \[64\], found \[65\]"),
    ("norm.weight", "F32", (64, 1), r"expected shape \[64\], found \[64, 1\]"),
    (TABLE, "F32", (24, 2), "expected dtype I64 or I32, found F32"),
    (FP8, "I8", (128, 16), "expected dtype F8_E4M3 or F32 or BF16 or F16, found I8"),
    (FP8, "F8_E4M3", (128, 31), r"expected shape \[128, 32\], found \[128, 31\]"),
    (FP4, "I8", (32, 64), r"expected shape \[32, 32\], found \[32, 64\]"),
    (FP4, "F8_E4M3", (32, 64), "expected dtype I8 or U8 or F32"),
    ("layers.1.attn.wq_b.scale", "F8_E8M0", (2, 1), r"expected shape \[1, 1\], found \[2, 1\]"),
    ("layers.1.attn.wq_b.scale", "BF16", (1, 1), "expected dtype F8_E8M0 or U8 or F32, found BF16"),
    ("layers.0.ffn.experts.1.w1.scale", "F8_E8M0", (32, 1), r"expected shape \[32, 2\], found \[32, 1\]"),
]


@pytest.mark.parametrize(("name", "dtype", "shape", "message"), MISFITS)
def test_misfit_is_named_from_the_header(model, monkeypatch, name, dtype, shape, message):
    contents = stored(model)
    size = {"F32": 4, "BF16": 2}.get(dtype, 1)
    contents[name] = (dtype, np.zeros((*shape, size), np.uint8).view(f"V{size}").reshape(shape))
    write_safetensors(model / FILE, contents)
    checkpoint = Checkpoint.open(model)
    monkeypatch.setattr(reading, "MappedFile", lambda file: pytest.fail("a file was mapped"))
    weight = name.replace(".scale", ".weight")
    for check in (checkpoint.validate, lambda: checkpoint.weight(weight), lambda: checkpoint.check_values(weight)):
        with pytest.raises(CheckpointError, match=rf"{name}'.*: {message}"):
            check()


def test_weight_without_scales(model):
    contents = stored(model)
    del contents["layers.1.attn.wq_b.scale"]
    write_safetensors(model / FILE, contents)
    with pytest.raises(CheckpointError, match=r"wq_b.weight': expected scales 'layers.1.attn.wq_b.scale' beside it"):
        Checkpoint.open(model).validate()


def test_packed_width_that_fills_no_block(tmp_path):
    """A model whose experts are 24 wide cannot store w2 in FP4."""
    config = tiny_config(moe_intermediate_size=24)
    write_checkpoint(tmp_path, config, random_tensors(config).items())
    contents = stored(tmp_path)
    name = "layers.0.ffn.experts.0.w2"
    contents[f"{name}.weight"] = ("I8", np.zeros((64, 12), np.uint8))
    contents[f"{name}.scale"] = ("F8_E8M0", np.zeros((64, 1), np.uint8))
    write_safetensors(tmp_path / FILE, contents)
    with pytest.raises(CheckpointError, match=r"w2.weight': expected a width that is a multiple of 32, found 24"):
        Checkpoint.open(tmp_path).validate()


BAD_VALUES = [
    ("norm.weight", (7,), np.nan, "norm.weight", "expected a finite number, found nan"),
    ("norm.weight", (7,), -np.inf, "norm.weight", "expected a finite number, found -inf"),
    ("layers.1.attn.attn_sink", (2,), np.inf, "layers.1.attn.attn_sink", "expected a finite number, found inf"),
    (FP8, (5, 31), 0xFF, FP8, r"expected an FP8 number, found NaN \(code 255\)"),
    (FP8, (5, 31), 0x7F, FP8, r"expected an FP8 number, found NaN \(code 127\)"),
    ("layers.1.attn.wq_b.scale", (0, 0), 255, FP8, r"expected a power of two up to 2\^119, found NaN \(byte 255\)"),
    ("layers.1.attn.wq_b.scale", (0, 0), 247, FP8, r"expected a power of two up to 2\^119, found 2\^120"),
    ("layers.0.ffn.experts.1.w1.scale", (31, 1), 253, FP4, r"expected a power of two up to 2\^125, found 2\^126"),
    (TABLE, (23, 1), 3, TABLE, "expected an expert from 0 to 2, found 3"),
    (TABLE, (0, 0), -1, TABLE, "expected an expert from 0 to 2, found -1"),
]


@pytest.mark.parametrize(("tensor", "position", "value", "parameter", "message"), BAD_VALUES)
def test_bad_value_is_named_with_its_position(model, tensor, position, value, parameter, message):
    poke(model, tensor, position, value)
    checkpoint = Checkpoint.open(model)
    checkpoint.validate()
    place = rf"model\.safetensors: tensor '{tensor}' at \[{', '.join(map(str, position))}\]"
    with pytest.raises(CheckpointError, match=f"{place}: {message}"):
        checkpoint.check_values(parameter)


def test_largest_scales_give_finite_numbers(model):
    poke(model, "layers.1.attn.wq_b.scale", (0, 0), 246)
    poke(model, "layers.0.ffn.experts.1.w1.scale", (0, 0), 252)
    checkpoint = Checkpoint.open(model)
    checkpoint.check_values(FP8)
    checkpoint.check_values(FP4)
    assert np.isfinite(np.float32(448) * np.float32(2.0**119)) and np.isfinite(np.float32(6) * np.float32(2.0**125))


def test_values_of_a_large_tensor_are_looked_at_in_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr("dsv4.checkpoint.values.CHUNK", 100)
    config = tiny_config()
    tensors = random_tensors(config)
    tensors["head.weight"][17, 33] = np.nan
    write_checkpoint(tmp_path / "model", config, tensors.items())
    with pytest.raises(CheckpointError, match=r"'head.weight' at \[17, 33\]"):
        Checkpoint.open(tmp_path / "model").check_values("head.weight")


SMALL_CONFIG = tiny_config(num_hidden_layers=1, num_nextn_predict_layers=0, compress_ratios=[0])


@pytest.fixture(scope="module")
def small_model(tmp_path_factory):
    directory = tmp_path_factory.mktemp("corrupt") / "model"
    write_checkpoint(directory, SMALL_CONFIG, random_tensors(SMALL_CONFIG).items())
    content = (directory / FILE).read_bytes()
    return directory, content, 8 + int.from_bytes(content[:8], "little")


@given(data=st.data())
def test_corruption_is_an_error_or_harmless(small_model, data):
    """Flipped bytes in the length and the header, or a cut: CheckpointError, or a file that still reads."""
    directory, content, start = small_model
    damaged = bytearray(content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))])
    for place, value in data.draw(st.lists(st.tuples(st.integers(0, start - 1), st.integers(0, 255)), max_size=4)):
        if place < len(damaged):
            damaged[place] = value
    (directory / FILE).write_bytes(damaged)
    try:
        checkpoint = Checkpoint.open(directory)
        for name in checkpoint.names:
            assert checkpoint.tensor(name).shape == checkpoint.entries[name].shape
        checkpoint.validate()
    except CheckpointError as error:
        assert "\n" not in str(error)


@given(data=st.data())
def test_random_header_fields_are_an_error_or_harmless(small_model, data):
    directory, content, _ = small_model
    numbers = st.integers(-2, 200) | st.just(2**63) | st.floats() | st.booleans() | st.none() | st.text(max_size=2)
    values = numbers | st.lists(numbers, max_size=3) | st.dictionaries(st.text(max_size=2), numbers, max_size=2)
    (directory / FILE).write_bytes(content)
    field = data.draw(st.sampled_from(["dtype", "shape", "data_offsets"]))
    value = data.draw(values)
    edit_header(directory / FILE, lambda header: header["norm.weight"].update({field: value}))
    with pytest.raises(CheckpointError):
        Checkpoint.open(directory).validate()
