"""The two spellings of config.json, the released one and the one that transformers writes, and back.

transformers writes layer_types and compress_rates for compress_ratios, mlp_layer_types for num_hash_layers,
partial_rotary_factor for qk_rope_head_dim, rope_parameters for rope_scaling, and dtype for torch_dtype. Where a file
holds both spellings of a value, the two must agree.
"""

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from dsv4.checkpoint.config_values import list_of, require_equal, required, section_of, yarn_of
from dsv4.checkpoint.input_files import is_directory, read_json
from dsv4.config import CSA_RATIO, HCA_RATIO, Config, DSpark, Yarn, token_ids, typed
from dsv4.errors import ConfigError, quoted

RATIO_OF_LAYER_TYPE = {
    "sliding_attention": 0,
    "compressed_sparse_attention": CSA_RATIO,
    "heavily_compressed_attention": HCA_RATIO,
}

FIXED = {"model_type": "deepseek_v4", "hidden_act": "silu", "attention_bias": False, "num_key_value_heads": 1}
"""Keys that every file has, and the one value that V4 knows for each."""

QUANTISATION = {
    "activation_scheme": "dynamic",
    "fmt": "e4m3",
    "quant_method": "fp8",
    "scale_fmt": "ue8m0",
    "weight_block_size": [128, 128],
}
"""The quantization_config of every released V4 checkpoint."""

OTHER_QUANTISATIONS = ("compression_config", "quantization")
"""Sections in which other tools describe formats of their own."""

SUPPORTED = "no quantisation, or quantization_config with quant_method 'fp8' (FP8 and FP4 as released)"

OF_THEIR_OWN = (
    *("num_hash_layers", "qk_rope_head_dim", "compress_ratios", "rope_theta", "compress_rope_theta", "rope_scaling"),
    *("topk_method", "eos_token_id", "torch_dtype", "quantised", "expert_dtype", "dspark", "source"),
)
"""Fields of a Config that the two spellings write differently, or that a file need not have as they are."""

PLAIN = tuple(entry.name for entry in fields(Config) if entry.name not in OF_THEIR_OWN)
"""Keys that both spellings share and every file must have."""

OTHER_MODELS = {
    "deepseek_v41": "DeepSeek-V4.1, which dsv4 loads, inspects and runs, but cannot use here",
}
"""Models that are no V4 though they look like it, by their model_type: the name, and what is to be done with them."""

VISION = "DeepSeek-V4-Flash-Vision-Exp, whose vision encoder and aligner are missing here"
"""The model whose config.json has settings that start with `vision_`."""


def read_config(path: str | Path) -> Config:
    """Read config.json, given itself or its directory.

    Raises ConfigError where the file is missing, is not JSON, lacks a key, or holds a value that V4 does not know.
    """
    file = Path(path)
    if is_directory(file):
        file = file / "config.json"
    return config_from_json(read_json(file, ConfigError, "a config.json"), source=str(file))


def config_from_json(raw: Any, source: str = "config.json") -> Config:
    """The configuration in a parsed config.json, in the official or in transformers' spelling.

    Keys that do not shape the model are ignored. Raises ConfigError, with `source` as the file's name, for a missing
    key, a wrong JSON type, and a value that V4 does not know.
    """
    values = _official(raw, source)
    for entry in fields(Config):
        if isinstance(entry.type, type) and entry.name in values:
            values[entry.name] = typed(values[entry.name], entry.type, source, entry.name)
    yarn = values["rope_scaling"]
    return Config(**values | {"rope_scaling": None if yarn is None else Yarn(**yarn), "source": source})


def config_as_json(config: Config) -> dict[str, Any]:
    """The configuration as a config.json in the official spelling, readable by transformers and by `read_config`."""
    values = asdict(config)
    result: dict[str, Any] = {"architectures": ["DeepseekV4ForCausalLM"]} | FIXED
    of_their_own = ("quantised", "expert_dtype", "dspark", "source")
    result |= {key: value for key, value in values.items() if key not in of_their_own}
    result |= {key: list(value) for key, value in values.items() if isinstance(value, tuple)}
    yarn = values["rope_scaling"]
    result["rope_scaling"] = None if yarn is None else {"type": "yarn"} | yarn
    if config.dspark is not None:
        dspark = asdict(config.dspark) | {"target_layer_ids": list(config.dspark.target_layer_ids)}
        result |= {f"dspark_{key}": value for key, value in dspark.items()}
    if config.quantised:
        result |= {"quantization_config": QUANTISATION, "expert_dtype": config.expert_dtype}
    return result


def _official(raw: Any, source: str) -> dict[str, Any]:
    """The values of a parsed config.json under the official names, as the fields of `Config` take them.

    `compress_ratios` is a tuple, `rope_scaling` a dictionary with the fields of `Yarn` or None; other values are as
    they stand in the file, their types not yet checked.
    """
    if not isinstance(raw, dict):
        raise ConfigError(f"{source}: expected a JSON object, found {type(raw).__name__}")
    _refuse_other_models(raw, source)
    for key, expected in FIXED.items():
        require_equal(required(raw, key, source), expected, source, key)
    require_equal(raw.get("mlp_bias", False), False, source, "mlp_bias")
    values = {key: required(raw, key, source) for key in PLAIN}
    values["eos_token_id"] = token_ids(required(raw, "eos_token_id", source), source, "eos_token_id")
    values["topk_method"] = raw.get("topk_method", "noaux_tc")
    values["torch_dtype"] = raw.get("torch_dtype") or raw.get("dtype") or "bfloat16"
    values["num_hash_layers"] = _hash_layers(raw, source)
    values["qk_rope_head_dim"] = _rope_width(raw, source)
    values["compress_ratios"] = _ratios(raw, source)
    values["dspark"] = _dspark(raw, source)
    return values | _rope(raw, source) | _quantisation(raw, source)


def _refuse_other_models(raw: dict[str, Any], source: str) -> None:
    """Raises ConfigError that says which model it is."""
    for model_type, name in OTHER_MODELS.items():
        if raw.get("model_type") == model_type:
            raise ConfigError(f"{source}: model_type: expected 'deepseek_v4', found {quoted(model_type)}: {name}")
    vision = [key for key in raw if key.startswith("vision_") and raw[key]]
    if vision:
        raise ConfigError(f"{source}: {min(vision)}: expected no such key, found that of {VISION}")


def _dspark(raw: dict[str, Any], source: str) -> DSpark | None:
    """The settings of a DSpark drafter; None where dspark_block_size is absent or 0, as in the first releases."""
    if not typed(raw.get("dspark_block_size") or 0, int, source, "dspark_block_size"):
        return None
    numbers = {
        name: typed(required(raw, f"dspark_{name}", source), int, source, f"dspark_{name}")
        for name in ("block_size", "noise_token_id", "markov_rank")
    }
    targets = list_of(raw, "dspark_target_layer_ids", source)
    layers = tuple(typed(layer, int, source, "dspark_target_layer_ids") for layer in targets)
    return DSpark(**numbers, target_layer_ids=layers)


def _hash_layers(raw: dict[str, Any], source: str) -> Any:
    """num_hash_layers, which transformers spells as one mlp_layer_types entry per layer."""
    if raw.get("mlp_layer_types") is None:
        return required(raw, "num_hash_layers", source)
    types = list_of(raw, "mlp_layer_types", source)
    layers = typed(raw["num_hidden_layers"], int, source, "num_hidden_layers")
    count = types.count("hash_moe")
    if types != ["hash_moe"] * count + ["moe"] * (len(types) - count) or len(types) != layers:
        expected = f"{layers} entries, 'hash_moe' first, then 'moe'"
        raise ConfigError(f"{source}: mlp_layer_types: expected {expected}, found {len(types)}: {quoted(types)}")
    require_equal(raw.get("num_hash_layers", count), count, source, "num_hash_layers")
    return count


def _rope_width(raw: dict[str, Any], source: str) -> Any:
    """qk_rope_head_dim, which transformers also spells as a fraction of head_dim."""
    if "qk_rope_head_dim" in raw or "partial_rotary_factor" not in raw:
        return required(raw, "qk_rope_head_dim", source)
    factor = typed(raw["partial_rotary_factor"], float, source, "partial_rotary_factor")
    width = factor * typed(raw["head_dim"], int, source, "head_dim")
    if not (0 <= factor <= 1 and abs(width - round(width)) <= 1e-6):
        raise ConfigError(f"{source}: partial_rotary_factor: expected a whole number of channels, found {width}")
    return round(width)


def _ratios(raw: dict[str, Any], source: str) -> tuple[int, ...]:
    """compress_ratios, or transformers' layer_types, with 0 for MTP layers that have no entry."""
    _check_compress_rates(raw, source)
    if raw.get("layer_types") is None:
        ratios = [typed(ratio, int, source, "compress_ratios") for ratio in list_of(raw, "compress_ratios", source)]
    else:
        ratios = _ratios_of_types(raw, source)
    layers = typed(raw["num_hidden_layers"], int, source, "num_hidden_layers")
    mtp_layers = typed(raw["num_nextn_predict_layers"], int, source, "num_nextn_predict_layers")
    if len(ratios) == layers and 0 < mtp_layers <= layers and not raw.get("dspark_block_size"):
        ratios = ratios + [0] * mtp_layers
    return tuple(ratios)


def _ratios_of_types(raw: dict[str, Any], source: str) -> list[int]:
    types = list_of(raw, "layer_types", source)
    unknown = [found for found in types if not isinstance(found, str) or found not in RATIO_OF_LAYER_TYPE]
    if unknown:
        raise ConfigError(
            f"{source}: layer_types: expected one of {list(RATIO_OF_LAYER_TYPE)}, found {quoted(unknown[0])}"
        )
    ratios = [RATIO_OF_LAYER_TYPE[found] for found in types]
    if raw.get("compress_ratios") is not None:
        official = list_of(raw, "compress_ratios", source)
        require_equal(official[: len(ratios)], ratios, source, "compress_ratios, as layer_types says")
        return official
    return ratios


def _check_compress_rates(raw: dict[str, Any], source: str) -> None:
    """The rates that transformers writes per layer type, in either of its two ways, must be those of V4."""
    for layer_type, ratio in section_of(raw, "compress_rates", source).items():
        require_equal(ratio, RATIO_OF_LAYER_TYPE.get(layer_type), source, f"compress_rates {layer_type}")
    for key, expected in (("compress_rate_csa", CSA_RATIO), ("compress_rate_hca", HCA_RATIO)):
        require_equal(raw.get(key, expected), expected, source, key)


def _rope(raw: dict[str, Any], source: str) -> dict[str, Any]:
    """Both rotary bases and YaRN; transformers repeats the bases in rope_parameters and holds YaRN there alone."""
    parameters = section_of(raw, "rope_parameters", source)
    main, compress = section_of(parameters, "main", source), section_of(parameters, "compress", source)
    yarn = yarn_of(section_of(raw, "rope_scaling", source), source, "rope_scaling")
    other_yarn = yarn_of(compress, source, "rope_parameters")
    if parameters and raw.get("rope_scaling") is not None:
        require_equal(yarn, other_yarn, source, "rope_scaling")
    values: dict[str, Any] = {"rope_scaling": yarn or other_yarn}
    for key, section in (("rope_theta", main), ("compress_rope_theta", compress)):
        value = section["rope_theta"] if "rope_theta" in section else required(raw, key, source)
        values[key] = typed(value, float, source, key)
        other = typed(raw.get(key, value), float, source, key)
        require_equal(other, values[key], source, f"{key}, as rope_parameters says" if section else key)
    return values


def _quantisation(raw: dict[str, Any], source: str) -> dict[str, Any]:
    """quantised and expert_dtype; transformers moves the latter into quantization_config."""
    for key in OTHER_QUANTISATIONS:
        if raw.get(key):
            raise ConfigError(f"{source}: {key}: expected {SUPPORTED}, found another section: {quoted(raw[key])}")
    section = section_of(raw, "quantization_config", source)
    if section and section.get("quant_method") != QUANTISATION["quant_method"]:
        method = f"quant_method {quoted(section['quant_method'])}" if "quant_method" in section else "no quant_method"
        raise ConfigError(f"{source}: quantization_config: expected {SUPPORTED}, found {method}")
    for key, expected in QUANTISATION.items() if section else ():
        if key not in section:
            expectation = f"{quoted(expected)}, as the released checkpoints have it"
            raise ConfigError(f"{source}: quantization_config {key}: expected {expectation}, found no such key")
        require_equal(section[key], expected, source, f"quantization_config {key}")
    return {"quantised": bool(section), "expert_dtype": raw.get("expert_dtype") or section.get("expert_dtype") or "fp4"}
