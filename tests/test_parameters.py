"""The table of parameters against the released figures and against the files of the golden models."""

import json
from pathlib import Path

import pytest

from dsv4.checkpoint import read_config
from dsv4.parameters import count_parameters, parameters
from tiny_checkpoint import tiny_config

DATA = Path(__file__).parent / "data"


@pytest.mark.parametrize(("name", "total", "active"), [("flash", 284, 13), ("pro", 1573, 49)])
def test_counts_of_the_released_models(name, total, active):
    count = count_parameters(read_config(DATA / f"configs/deepseek-v4-{name}.json"))
    assert (round(count.total / 1e9), round(count.active / 1e9)) == (total, active)


def test_count_is_the_sum_over_the_table():
    config = tiny_config()
    table = parameters(config, include_mtp=False).values()
    total = sum(parameter.size for parameter in table if parameter.format != "i64")
    one_expert = 3 * config.moe_intermediate_size * config.hidden_size
    idle = config.num_hidden_layers * (config.n_routed_experts - config.num_experts_per_tok) * one_expert
    assert count_parameters(config) == (total, total - idle - config.vocab_size * config.hidden_size)


@pytest.mark.parametrize(("name", "tensors"), [("flash-0731", 72317), ("pro-0813", 149782)])
def test_tensors_of_the_releases_with_dspark(name, tensors):
    """As many as the released headers have, scales included, and three stages of the same layers."""
    table = parameters(read_config(DATA / f"configs/deepseek-v4-{name}.json"))
    names = [each for one in table.values() for each in ([one.name] + [one.scale_name] * (one.scale_shape is not None))]
    assert len(names) == tensors
    if name == "flash-0731":
        assert sum(each.startswith("mtp.") for each in names) == 3 * 1565 + 3 + 7
    assert {parameter.part for each, parameter in table.items() if each.startswith("mtp.")} == {"mtp"}


@pytest.mark.parametrize("name", ["small", "quantized", "dspark_float", "dspark_quant"])
def test_table_is_what_official_files_hold(name):
    stored = _header(DATA / f"golden/{name}/model.safetensors")
    config = read_config(DATA / f"golden/{name}")
    formats = {"fp8": "F8_E4M3", "fp4": "I8", "bf16": "BF16", "f32": "F32", "i64": "I64"}
    for parameter in parameters(config).values():
        entry = stored.pop(parameter.name)
        shape = entry["shape"]
        if entry["dtype"] == "I8":
            shape[1] *= 2
        assert tuple(shape) == parameter.shape
        if config.quantised:
            assert entry["dtype"] == formats[parameter.format]
        if config.quantised and parameter.scale_shape is not None:
            scale = stored.pop(parameter.scale_name)
            assert (scale["dtype"], tuple(scale["shape"])) == ("F8_E8M0", parameter.scale_shape)
    assert not stored


def test_mtp_layers_can_be_left_out():
    config = tiny_config()
    names = set(parameters(config))
    assert {name for name in names if name.startswith("mtp.")} == names - set(parameters(config, include_mtp=False))
    assert all((parameter.part == "mtp") == name.startswith("mtp.") for name, parameter in parameters(config).items())


def test_experts_of_base_models_are_fp8():
    table = parameters(tiny_config(True, expert_dtype="fp8"))
    assert table["layers.0.ffn.experts.0.w2.weight"].format == "fp8"
    assert table["layers.0.ffn.experts.0.w2.weight"].scale_shape == (1, 1)


def test_formats_of_the_report():
    table = parameters(tiny_config())
    prefix = "layers.1.attn."
    expected = {
        "wo_a.weight": "fp8",
        "indexer.wq_b.weight": "fp8",
        "indexer.weights_proj.weight": "bf16",
        "compressor.wgate.weight": "bf16",
        "compressor.ape": "f32",
        "attn_sink": "f32",
        "kv_norm.weight": "bf16",
    }
    assert {name: table[prefix + name].format for name in expected} == expected
    assert table["layers.0.ffn.gate.tid2eid"].format == "i64"
    assert "layers.0.ffn.gate.bias" not in table
    assert table["layers.1.ffn.gate.bias"].format == "f32"


def _header(file: Path) -> dict:
    content = file.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    header.pop("__metadata__", None)
    return header
