"""V4.1's nested config.json, every way in which it can be wrong, and the table of parameters against released files."""

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from dsv4.checkpoint.config41_json import config41_from_json, read_config41
from dsv4.checkpoint.header import read_header
from dsv4.config import Yarn
from dsv4.config41 import DSpark41, Engram
from dsv4.errors import ConfigError
from dsv4.parameters41 import count_by_part41, count_drafter41, parameters41

DATA = Path(__file__).parent / "data"
RELEASED = DATA / "configs/deepseek-v4.1-flash.json"
SETTINGS = json.loads((DATA / "golden/v41_quant/config.json").read_text())
STORED_AS = {"fp4": "I8", "fp8": "F8_E4M3", "bf16": "BF16", "f32": "F32"}


def changed(**text):
    """The small model's config.json with other settings of the text path; None: without the key."""
    section = SETTINGS["text_config"] | text
    return SETTINGS | {"text_config": {key: value for key, value in section.items() if value is not None}}


def test_the_released_config():
    config = read_config41(RELEASED)
    kinds = [config.layer_kind(layer) for layer in range(43)]
    assert kinds[:3] == ["SWA", "SWA", "Full"] and kinds[40:] == ["SWA"] * 3
    assert [layer for layer, kind in enumerate(kinds) if kind == "Full"] == [2, 8, 14, 20]
    assert [layer for layer, kind in enumerate(kinds) if kind == "Reindex"] == [24, 28, 32, 36]
    assert Counter(kinds)["Reuse"] == 30
    assert [config.kv_source(layer) for layer in (2, 7, 8, 19, 20, 39)] == [2, 2, 8, 14, 20, 20]
    assert [config.has_candidates(layer) for layer in (14, 20, 24)] == [False, False, True]
    assert (config.draft_layers, config.rms_norm_eps, config.rope_scaling) == (3, 1e-20, Yarn(16, 65536, 32, 1))
    assert config.engram == Engram((1, 14), (384006168, 384016682), 4, 16000000, 8, 256, 2, 99092)
    assert config.dspark == DSpark41(5, 128799, (37, 38, 39), 256, 128, 3)
    assert config.quantised and config.expert_dtype == "fp4"


def test_settings_are_those_of_the_text_path():
    """A key of the same name at top level is another part's."""
    config = config41_from_json(changed() | {"hidden_size": 7, "rms_norm_eps": 1e-6, "swiglu_limit": 3.0})
    assert (config.hidden_size, config.rms_norm_eps, config.swiglu_limit) == (96, 1e-20, 2.0)


def test_models_without_engram_drafter_or_candidates():
    config = config41_from_json(
        changed(
            engram_layer_ids=[],
            dspark_block_size=None,
            num_nextn_predict_layers=0,
            compress_ratios=[0, 0, 2, 2, 2, 2, 1, 1, 1, 1],
            candidate_source_layer_id=None,
        )
    )
    assert (config.engram, config.dspark, config.candidate_source_layer_id) == (None, None, None)
    assert not any(config.has_candidates(layer) for layer in range(10))
    names = parameters41(config)
    assert not any("engram" in name or name.startswith("mtp.") for name in names)
    assert config == replace(
        config41_from_json(SETTINGS).without_draft_layers(), engram=None, candidate_source_layer_id=None
    )


BAD = [
    ("hidden_size", None, "a value, found no such key"),
    ("hidden_size", "96", "an integer"),
    ("rms_norm_eps", 0, "a positive number"),
    ("model_type", "deepseek_v41_vision", "'deepseek_v41_text'"),
    ("gate_temp", 2.0, "1.0"),
    ("compress_ratios", [0, 0, 2, 2, 2, 2, 1, 1, 1, 1], "10 entries for num_hidden_layers and 3 for num_nextn"),
    ("compress_ratios", [0, 0, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 2], "ratios of 0 behind 10 layers"),
    ("compress_ratios", [0, 0, 2, 2, 2, 2, 1, 1, 1, 129, 0, 0, 0], "ratios from 0 to 128"),
    ("kv_source_layer_ids", [4, 6], "for layer 2 of ratio 2 a source of this ratio"),
    ("kv_source_layer_ids", [2, 4], "for layer 6 of ratio 1 a source of this ratio"),
    ("kv_source_layer_ids", [1, 2, 4, 6], "layers of a ratio above 0, below 10 and in rising order"),
    ("kv_source_layer_ids", [2, 6, 4], "layers of a ratio above 0, below 10 and in rising order"),
    ("kv_source_layer_ids", [2, 4, 5, 6], "layers that are among index_source_layer_ids"),
    ("index_source_layer_ids", [2, 4, 6, 10], "layers of a ratio above 0, below 10 and in rising order"),
    ("candidate_source_layer_id", 8, "a layer that is among kv_source_layer_ids"),
    ("candidate_source_layer_id", "6", "an integer"),
    ("candidate_source_layer_id", 4, "one ratio of all index sources from it on"),
    ("engram_layer_ids", [4, 1], "layers from 0 and below 10, in rising order"),
    ("engram_layer_ids", [1, 10], "layers from 0 and below 10, in rising order"),
    ("engram_num_embeddings", [304], "one number of rows for each of 2 layers"),
    ("engram_num_embeddings", [304, 463], "(304, 462), the sums of each layer's primes"),
    ("engram_n_heads", 1000, "at most 1024 moduli in all"),
    ("engram_max_ngram_size", 1, "an integer from 2 to 64"),
    ("engram_pad_token_id", 128, "below vocab_size 128"),
    ("engram_compressed_vocab_size", 129, "from 1 to vocab_size 128"),
    ("engram_n_heads", None, "a value, found no such key"),
    ("dspark_n_routed_experts", None, "a value, found no such key"),
    ("dspark_num_experts_per_tok", 5, "an integer from 1 to 4"),
    ("dspark_target_layer_ids", [7, 10], "layers from 0 and below 10, in rising order"),
    ("dspark_block_size", 257, "an integer from 1 to 256"),
]


@pytest.mark.parametrize(("key", "value", "expected"), BAD, ids=[f"{key}={value}" for key, value, _ in BAD])
def test_a_bad_setting_is_named(key, value, expected):
    with pytest.raises(ConfigError, match=rf"^model/config\.json: {key}: expected .*{re.escape(expected)}") as caught:
        config41_from_json(changed(**{key: value}), source="model/config.json")
    message = str(caught.value)
    assert "found" in message and "\n" not in message and len(message) < 300


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ([], "a JSON object, found list"),
        (SETTINGS | {"model_type": "deepseek_v4"}, "model_type: expected 'deepseek_v41', found 'deepseek_v4'"),
        ({**SETTINGS, "text_config": {}}, "text_config: expected the settings of the text path, found no such section"),
        (
            {**SETTINGS, "quantization_config": SETTINGS["quantization_config"] | {"weight_block_size": [128, 128]}},
            r"quantization_config weight_block_size: expected \[32, 32\], found \[128, 128\]",
        ),
        (
            {**SETTINGS, "quantization_config": {"quant_method": "fp8"}},
            "quantization_config activation_scheme: expected",
        ),
        ({key: value for key, value in SETTINGS.items() if key != "eos_token_id"}, "eos_token_id: expected a value"),
    ],
)
def test_a_bad_file_is_named(raw, expected):
    with pytest.raises(ConfigError, match=expected):
        config41_from_json(raw)


def test_a_drafter_and_its_stages_come_together():
    with pytest.raises(
        ConfigError, match="num_nextn_predict_layers: expected at least 1 with a DSpark drafter, 0 without"
    ):
        config41_from_json(changed(dspark_block_size=0))


@pytest.mark.parametrize("name", ["v41_float", "v41_quant"])
def test_the_table_is_what_official_files_hold(name):
    stored = read_header(DATA / f"golden/{name}/model.safetensors")
    config = read_config41(DATA / "golden" / name)
    for parameter in parameters41(config).values():
        entry = stored.pop(parameter.name)
        shape = list(entry.shape)
        if entry.dtype == "I8":
            shape[1] *= 2
        assert tuple(shape) == parameter.shape
        if config.quantised:
            assert entry.dtype == STORED_AS[parameter.format]
        if config.quantised and parameter.scale_shape is not None:
            scale = stored.pop(parameter.scale_name)
            assert (scale.dtype, scale.shape) == ("F8_E8M0", parameter.scale_shape)
    assert not stored


def test_the_released_tables():
    """As many tensors of the text path as the released headers have, and the scales of an Engram by row."""
    table = parameters41(read_config41(RELEASED))
    assert sum(1 + (one.scale_shape is not None) for one in table.values()) == 95819
    assert table["layers.14.engram.embed.weight"].scale_shape == (384016682, 8)
    assert table["layers.0.attn.wq_b.weight"].scale_shape == (1024, 40)
    assert {one.part for name, one in table.items() if name.startswith("mtp.")} == {"mtp"}


def test_counts_of_the_released_model():
    counts = count_by_part41(read_config41(RELEASED))
    assert counts["engram"].total - counts["engram"].active == (384006168 + 384016682 - 2 * 24) * 256
    assert counts["routed experts"].active * 64 == counts["routed experts"].total
    assert round(sum(one.active for one in counts.values()) / 1e9) == 16
    drafter = count_drafter41(read_config41(RELEASED))
    assert (round(drafter.total / 1e9, 1), round(drafter.active / 1e9, 1)) == (14.2, 0.9)
