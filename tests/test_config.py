"""config.json in both spellings, and every way in which it can be wrong."""

import json
import re
from dataclasses import fields, replace
from pathlib import Path

import pytest

from dsv4.checkpoint import config_as_json, config_from_json, read_config
from dsv4.config import MOST, MOST_EXPERTS, Config, DSpark, Yarn
from dsv4.errors import ConfigError
from tiny_checkpoint import SETTINGS, tiny_config

CONFIGS = Path(__file__).parent / "data/configs"

YARN = SETTINGS["rope_scaling"]
QUANTISATION = SETTINGS["quantization_config"]

TRANSFORMERS = {key: value for key, value in SETTINGS.items() if key not in ("quantization_config", "topk_method")} | {
    "layer_types": ["sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"],
    "compress_rates": {"compressed_sparse_attention": 4, "heavily_compressed_attention": 128},
    "mlp_layer_types": ["hash_moe", "moe", "moe"],
    "mlp_bias": False,
    "partial_rotary_factor": 0.25,
    "dtype": "float32",
    "rope_parameters": {
        "main": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25},
        "compress": YARN | {"rope_type": "yarn", "rope_theta": 160000.0, "attention_factor": 1.0},
    },
}
for official in ("compress_ratios", "num_hash_layers", "qk_rope_head_dim", "rope_scaling", "torch_dtype"):
    del TRANSFORMERS[official]


@pytest.mark.parametrize("name", ["flash", "pro"])
def test_released_configs(name):
    config = read_config(CONFIGS / f"deepseek-v4-{name}.json")
    kinds = [config.layer_kind(layer) for layer in range(config.num_hidden_layers)]
    assert kinds[:2] == (["SWA", "SWA"] if name == "flash" else ["HCA", "HCA"])
    assert kinds[2::2] == ["CSA"] * len(kinds[2::2])
    assert kinds[3::2] == ["HCA"] * len(kinds[3::2])
    assert config.layer_kind(config.num_hidden_layers) == "SWA"  # the MTP layer
    assert [layer for layer in range(10) if config.is_hash_layer(layer)] == [0, 1, 2]
    assert config.rope_scaling == Yarn(16, 65536, 32, 1)
    assert (config.swiglu_limit, config.hc_sinkhorn_iters, config.sliding_window) == (10, 20, 128)
    assert config.quantised and config.expert_dtype == "fp4"


@pytest.mark.parametrize(
    ("name", "dspark", "stages"),
    [("flash-0731", DSpark(5, 128799, (40, 41, 42), 256), 3), ("pro-0813", DSpark(5, 128799, (58, 59, 60), 512), 3)],
)
def test_released_configs_with_a_dspark_drafter(name, dspark, stages):
    """The main model is the first release's; num_nextn_predict_layers is 1 although there are three stages."""
    config = read_config(CONFIGS / f"deepseek-v4-{name}.json")
    assert (config.dspark, config.draft_layers, config.num_nextn_predict_layers) == (dspark, stages, 1)
    assert [config.layer_kind(config.num_hidden_layers + stage) for stage in range(stages)] == ["SWA"] * stages
    first_release = read_config(CONFIGS / f"deepseek-v4-{name.split('-')[0]}.json")
    assert first_release.dspark is None and first_release.draft_layers == 1
    assert config.without_draft_layers() == first_release.without_draft_layers()
    assert config_from_json(json.loads(json.dumps(config_as_json(config)))) == config


DSPARK = {
    "dspark_block_size": 5,
    "dspark_noise_token_id": 23,
    "dspark_target_layer_ids": [1, 2],
    "dspark_markov_rank": 16,
    "compress_ratios": [0, 4, 128, 0, 0, 0],
}
"""What the tiny model's config.json would have with a drafter of three stages."""


def test_no_block_means_no_dspark_drafter():
    """As the released code takes it."""
    for block in (0, None):
        settings = SETTINGS | DSPARK | {"dspark_block_size": block, "compress_ratios": SETTINGS["compress_ratios"]}
        assert config_from_json(settings) == config_from_json(SETTINGS)


BAD_DSPARK = [
    ("dspark_block_size", 257, "an integer from 1 to 256"),
    ("dspark_block_size", -1, "an integer from 1 to 256"),
    ("dspark_block_size", "5", "an integer"),
    ("dspark_markov_rank", 0, "an integer from 1 to 16384"),
    ("dspark_markov_rank", 10**400, "below 2^63"),
    ("dspark_noise_token_id", 24, "below vocab_size 24"),
    ("dspark_noise_token_id", -1, "below vocab_size 24"),
    ("dspark_target_layer_ids", [], "layers from 0 and below 3, in rising order"),
    ("dspark_target_layer_ids", [2, 3], "layers from 0 and below 3, in rising order"),
    ("dspark_target_layer_ids", [2, 1], "layers from 0 and below 3, in rising order"),
    ("dspark_target_layer_ids", [1, 1], "layers from 0 and below 3, in rising order"),
    ("dspark_target_layer_ids", [1, 2.0], "an integer"),
    ("dspark_target_layer_ids", 2, "a list"),
    ("dspark_target_layer_ids", [2] * 10**6, "at most 2048 entries"),
    ("compress_ratios", [0, 4, 128], "entries of 0 for the stages of a DSpark drafter behind 3 for num_hidden_layers"),
    ("compress_ratios", [0, 4, 128, 0, 4, 0], "entries of 0 for the stages"),
    ("compress_ratios", [0, 4], "entries of 0 for the stages"),
]


@pytest.mark.parametrize(
    ("key", "value", "expected"), BAD_DSPARK, ids=[f"{key}={str(value)[:20]}" for key, value, _ in BAD_DSPARK]
)
def test_bad_setting_of_a_dspark_drafter_is_named(key, value, expected):
    with pytest.raises(ConfigError, match=rf"^model/config\.json: {key}: expected .*{re.escape(expected)}") as caught:
        config_from_json(SETTINGS | DSPARK | {key: value}, source="model/config.json")
    message = str(caught.value)
    assert "found" in message and "\n" not in message and len(message) < 300


@pytest.mark.parametrize("key", [key for key in DSPARK if key.startswith("dspark") and "block" not in key])
def test_missing_setting_of_a_dspark_drafter_is_named(key):
    settings = {name: value for name, value in (SETTINGS | DSPARK).items() if name != key}
    with pytest.raises(ConfigError, match=f"{key}: expected a value, found no such key"):
        config_from_json(settings)


def test_v4_1_is_refused_by_name():
    with pytest.raises(ConfigError) as caught:
        read_config(CONFIGS / "deepseek-v4.1-flash.json")
    message = str(caught.value)
    assert "model_type: expected 'deepseek_v4', found 'deepseek_v41': DeepSeek-V4.1, which " in message
    assert message.endswith("but cannot use here") and "\n" not in message


def test_vision_exp_is_refused_by_name():
    """It says that it is a deepseek_v4, too: only the settings of its vision encoder tell it apart."""
    with pytest.raises(ConfigError) as caught:
        config_from_json(SETTINGS | DSPARK | {"vision_n_layers": 32, "vision_dim": 1024}, source="model/config.json")
    assert str(caught.value) == (
        "model/config.json: vision_dim: expected no such key, found that of DeepSeek-V4-Flash-Vision-Exp, whose vision "
        "encoder and aligner are missing here"
    )


@pytest.mark.parametrize("quantised", [False, True])
def test_to_dict_is_read_back(quantised):
    config = tiny_config(quantised)
    written = json.loads(json.dumps(config_as_json(config)))
    assert config_from_json(written) == config
    assert ("quantization_config" in written) == ("expert_dtype" in written) == quantised
    assert written["model_type"] == "deepseek_v4"
    assert "source" not in written and "quantised" not in written


def test_load_takes_a_file_and_its_directory(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(SETTINGS))
    assert read_config(tmp_path) == read_config(str(tmp_path / "config.json")) == tiny_config(quantised=True)


def test_rope_scaling_may_be_absent_or_null():
    settings = {key: value for key, value in SETTINGS.items() if key != "rope_scaling"}
    assert config_from_json(settings).rope_scaling is None
    assert config_from_json(settings | {"rope_scaling": None}).rope_scaling is None


def test_spelling_of_transformers_means_the_same():
    read = config_from_json(TRANSFORMERS)
    assert read == tiny_config(torch_dtype="float32")
    assert read.compress_ratios == (0, 4, 128, 0)  # transformers writes no entry for the MTP layer


def test_compress_ratios_without_entries_for_mtp_layers():
    assert tiny_config(compress_ratios=[0, 4, 128], num_nextn_predict_layers=1).compress_ratios == (0, 4, 128, 0)


def test_expert_dtype_inside_quantization_config():
    assert tiny_config(True, quantization_config=QUANTISATION | {"expert_dtype": "fp8"}).expert_dtype == "fp8"


def test_unknown_keys_are_ignored():
    assert tiny_config(router_jitter_noise=0.5, initializer_range=1) == tiny_config()


BAD = [
    ("model_type", "deepseek_v3", "'deepseek_v4'"),
    ("hidden_act", "gelu", "'silu'"),
    ("attention_bias", True, "False"),
    ("num_key_value_heads", 8, "1"),
    ("mlp_bias", True, "False"),
    ("n_shared_experts", 2, "1"),
    ("scoring_func", "tanh", "sqrtsoftplus"),
    ("norm_topk_prob", False, "true"),
    ("topk_method", "greedy", "noaux_tc"),
    ("tie_word_embeddings", True, "false"),
    ("vocab_size", 0, "at least 1"),
    ("hidden_size", -64, "at least 1"),
    ("hidden_size", 64.5, "an integer"),
    ("hidden_size", True, "an integer"),
    ("hidden_size", "64", "an integer"),
    ("num_hidden_layers", None, "an integer"),
    ("swiglu_limit", 0, "a positive number"),
    ("swiglu_limit", float("inf"), "a finite number"),
    ("swiglu_limit", 10**400, "a finite number"),
    ("rope_theta", 1, "above 1"),
    ("rms_norm_eps", -1e-6, "a positive number"),
    ("norm_topk_prob", 1, "true or false"),
    ("scoring_func", 3, "a string"),
    ("eos_token_id", 24, "below vocab_size 24"),
    ("eos_token_id", [1, 24], "below vocab_size 24"),
    ("eos_token_id", [1, -1], "below vocab_size 24"),
    ("eos_token_id", [1, "2"], "an integer"),
    ("eos_token_id", [1, True], "an integer"),
    ("eos_token_id", [], "from 1 to 2048 token ids"),
    ("eos_token_id", [1] * 10**6, "from 1 to 2048 token ids"),
    ("eos_token_id", None, "an integer"),
    ("num_experts_per_tok", 4, "at most n_routed_experts 3"),
    ("qk_rope_head_dim", 7, "an even number"),
    ("head_dim", 6, "at least qk_rope_head_dim 8"),
    ("index_head_dim", 4, "at least qk_rope_head_dim 8"),
    ("index_head_dim", 24, "a power of two"),
    ("o_groups", 3, "a divisor of num_attention_heads 4"),
    ("num_hash_layers", 4, "at most num_hidden_layers 3"),
    ("compress_ratios", [0, 4, 64, 0], "0, 4 or 128"),
    ("compress_ratios", [0, 4, 128, 0, 0], "3 entries for num_hidden_layers and 1"),
    ("compress_ratios", [0, 4, "128", 0], "an integer"),
    ("compress_ratios", 4, "a list"),
    ("layer_types", ["full_attention"] * 3, "sliding_attention"),
    ("layer_types", ["sliding_attention"] * 3, "[0, 0, 0]"),  # compress_ratios says otherwise
    ("mlp_layer_types", ["moe", "hash_moe", "moe"], "'hash_moe' first"),
    ("compress_rates", {"compressed_sparse_attention": 8}, "4"),
    ("compress_rate_hca", 64, "128"),
    ("rope_scaling", YARN | {"type": "linear"}, "'yarn'"),
    ("rope_scaling", YARN | {"factor": 0.5}, "a factor of at least 1"),
    ("rope_scaling", YARN | {"beta_fast": 1}, "beta_fast > beta_slow"),
    ("rope_scaling", YARN | {"original_max_position_embeddings": 0}, "at least 1"),
    ("rope_scaling", YARN | {"attention_factor": 1.3}, "1.0"),
    ("rope_scaling", "yarn", "a JSON object"),
    ("rope_parameters", {"main": {"rope_theta": 500.0}, "compress": YARN}, "500.0"),
    ("quantization_config", QUANTISATION | {"quant_method": "gptq"}, "'fp8'"),
    ("quantization_config", QUANTISATION | {"fmt": "e5m2"}, "'e4m3'"),
    ("quantization_config", QUANTISATION | {"scale_fmt": "float"}, "'ue8m0'"),
    ("quantization_config", QUANTISATION | {"weight_block_size": [64, 64]}, "[128, 128]"),
    ("quantization_config", [1], "a JSON object"),
    ("expert_dtype", "int4", "'fp4' or 'fp8'"),
    ("num_hidden_layers", 10**9, "at most 1024"),
    ("num_hidden_layers", 10**400, "below 2^63"),
    ("head_dim", 10**400, "below 2^63"),
    ("n_routed_experts", 10**5, "at most 16384"),
    ("num_nextn_predict_layers", 10**9, "0 or 1"),
    ("hc_sinkhorn_iters", 10**6, "at most 1024"),
    ("rope_scaling", YARN | {"factor": 1e31}, "a factor of at most 1e+30"),
    ("rope_theta", 1e31, "at most 1e+30"),
    ("compress_ratios", [0] * 10**6, "at most 2048 entries"),
    ("compress_ratios", [[0] * 10**6], "an integer"),
    ("compress_ratios", "0" * 10**6, "a list"),
    ("mlp_layer_types", ["moe"] * 10**6, "at most 2048 entries"),
    ("layer_types", ["x" * 10**6], "sliding_attention"),
    ("rope_scaling", YARN | {"x" * 10**6: 1}, "beta_fast"),
    ("scoring_func", "y" * 10**6, "sqrtsoftplus"),
    ("model_type", [["z"] * 10**6] * 10, "'deepseek_v4'"),
]


@pytest.mark.parametrize(("key", "value", "expected"), BAD, ids=[f"{key}={str(value)[:30]}" for key, value, _ in BAD])
def test_bad_value_is_named(key, value, expected):
    with pytest.raises(ConfigError) as caught:
        config_from_json(SETTINGS | {key: value}, source="model/config.json")
    message = str(caught.value)
    assert message.startswith("model/config.json: ")
    assert key in message
    assert "expected" in message and expected in message
    assert "found" in message and "\n" not in message
    assert len(message) < 300


NUMBERS = [entry.name for entry in fields(Config) if entry.type in (int, float)]


@pytest.mark.parametrize("key", NUMBERS)
@pytest.mark.parametrize("power", [14, 40, 400, 4000])
def test_every_number_has_a_bound(key, power):
    """Of sizes that only loops feel, a file could otherwise ask for loops without an end. Floats end at 1e30."""
    if type(getattr(tiny_config(), key)) is float and power < 30:
        assert getattr(config_from_json(SETTINGS | {key: 10**power}), key) == 10.0**power
        return
    with pytest.raises(ConfigError, match=f"{key}: expected ") as caught:
        config_from_json(SETTINGS | {key: 10**power})
    assert len(str(caught.value)) < 200


def test_bounds_are_far_above_the_largest_released_model():
    pro = read_config(CONFIGS / "deepseek-v4-pro.json")
    for key, most in MOST.items():
        assert most >= 16 * getattr(pro, key), key
    assert 8 * pro.n_routed_experts * pro.num_hidden_layers <= MOST_EXPERTS


def test_the_experts_of_all_layers_together_have_a_bound():
    """Each number alone is within its own: the table of parameters would have millions of rows."""
    layers = 1000
    many = {"num_hidden_layers": layers, "compress_ratios": [0] * (layers + 1), "n_routed_experts": 10**4}
    with pytest.raises(ConfigError, match="n_routed_experts: expected at most 262 for 1000 layers, found 10000"):
        config_from_json(SETTINGS | many)


@pytest.mark.parametrize("value", [[1, 5], [3], 2])
def test_end_tokens_may_be_one_or_several(value):
    """transformers 5.24 saves a list where its configuration has one."""
    config = config_from_json(SETTINGS | {"eos_token_id": value})
    assert list(config.eos_token_ids) == (value if isinstance(value, list) else [value])
    written = json.loads(json.dumps(config_as_json(config)))
    assert written["eos_token_id"] == value
    assert config_from_json(written) == config
    assert hash(config) == hash(config_from_json(written))


FOREIGN = [
    ("quantization_config", {"quant_method": "modelopt", "quant_algo": "NVFP4"}, "found quant_method 'modelopt'"),
    ("quantization_config", {"quant_method": "compressed-tensors", "format": "pack"}, "'compressed-tensors'"),
    ("quantization_config", {"quant_method": "gptq", "bits": 4}, "found quant_method 'gptq'"),
    ("quantization_config", {"quant_method": None}, "found quant_method None"),
    ("quantization_config", {"bits": 4, "group_size": 64}, "found no quant_method"),
    ("compression_config", {"format": "int-quantized"}, "found another section: {'format': 'int-quantized'}"),
    ("quantization", {"group_size": 64, "bits": 4}, "found another section: {'bits': 4, 'group_size': 64}"),
]


@pytest.mark.parametrize(("section", "value", "found"), FOREIGN, ids=[found for *_, found in FOREIGN])
def test_a_foreign_quantisation_is_named_with_what_is_supported(section, value, found):
    with pytest.raises(ConfigError) as caught:
        config_from_json(SETTINGS | {section: value}, source="model/config.json")
    supported = "no quantisation, or quantization_config with quant_method 'fp8' (FP8 and FP4 as released)"
    assert str(caught.value).startswith(f"model/config.json: {section}: expected {supported}, found ")
    assert found in str(caught.value)


@pytest.mark.parametrize("key", ["activation_scheme", "fmt", "scale_fmt", "weight_block_size"])
def test_fp8_that_lacks_what_the_released_one_says_is_named(key):
    section = {name: value for name, value in QUANTISATION.items() if name != key}
    with pytest.raises(ConfigError, match=f"quantization_config {key}: expected .* released .*, found no such key"):
        config_from_json(SETTINGS | {"quantization_config": section})


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": "64"},
        {"hidden_size": 64.0},
        {"norm_topk_prob": 1},
        {"compress_ratios": [0, 4, 128, 0]},
        {"compress_ratios": (0, 4.0, 128, 0)},
        {"eos_token_id": "1"},
        {"eos_token_id": (1, 2.0)},
        {"rope_scaling": YARN},
        {"rope_scaling": Yarn("4", 64, 32, 1)},
        {"dspark": (5, 23, (1, 2), 16)},
    ],
    ids=str,
)
def test_a_config_made_from_values_has_their_types(change):
    (key,) = change
    named = "factor" if isinstance(change[key], Yarn) else key
    with pytest.raises(ConfigError, match=f"^tiny/config.json: {named}: expected .*, found "):
        replace(tiny_config(), **change)


@pytest.mark.parametrize(
    "key", sorted(set(config_as_json(tiny_config())) - {"architectures", "topk_method", "torch_dtype", "rope_scaling"})
)
def test_missing_key_is_named(key):
    settings = {name: value for name, value in SETTINGS.items() if name != key}
    with pytest.raises(ConfigError, match=rf"^model/config.json: {key}: expected a value, found no such key$"):
        config_from_json(settings, source="model/config.json")


@pytest.mark.parametrize("key", ["factor", "original_max_position_embeddings", "beta_fast", "beta_slow"])
def test_missing_key_of_yarn_is_named(key):
    yarn = {name: value for name, value in YARN.items() if name != key}
    with pytest.raises(ConfigError, match=f"{key}: expected a value, found no such key"):
        config_from_json(SETTINGS | {"rope_scaling": yarn})


def test_changed_config_is_checked_again():
    with pytest.raises(ConfigError, match=r"tiny/config.json: o_groups: expected a divisor"):
        replace(tiny_config(), o_groups=3)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000])
def test_file_that_is_no_config(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"config\.json: expected .*found"):
        read_config(tmp_path)


def test_missing_file(tmp_path):
    for path in (tmp_path, tmp_path / "config.json", tmp_path / "absent", tmp_path / "absent" / "config.json"):
        with pytest.raises(ConfigError, match="found no such file"):
            read_config(path)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"factor": 4, "original_max_position_embeddings": 64, "beta_fast": 32, "beta_slow": 1}, "type: expected"),
        ({"type": "linear", "factor": 4}, "rope_scaling type: expected 'yarn', found 'linear'"),
        ({"type": "yarn", "mscale": 1}, "found 'mscale', which V4 does not know"),
    ],
)
def test_rope_scaling_is_never_dropped_unseen(section, message):
    with pytest.raises(ConfigError, match=message):
        tiny_config(rope_scaling=section)


def test_more_than_one_mtp_layer_is_refused():
    with pytest.raises(ConfigError, match="num_nextn_predict_layers: expected 0 or 1, found 2"):
        tiny_config(compress_ratios=[0, 4, 128, 0, 4], num_nextn_predict_layers=2)
