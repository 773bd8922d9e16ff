"""The config.json of DeepSeek-V4.1, whose settings of the text path stand in a section of their own, `text_config`.

Token ids and quantization_config stand at top level. The section of the vision encoder is not read.
"""

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

from dsv4.checkpoint.config_values import list_of, require_equal, required, section_of, yarn_of
from dsv4.checkpoint.input_files import is_directory, read_json
from dsv4.config import Yarn, token_ids, typed
from dsv4.config41 import Config41, DSpark41, Engram
from dsv4.errors import ConfigError, quoted

MODEL_TYPE, TEXT_MODEL_TYPE = "deepseek_v41", "deepseek_v41_text"

FIXED = {"model_type": TEXT_MODEL_TYPE, "hidden_act": "silu", "attention_bias": False, "num_key_value_heads": 1}
"""Keys that every text_config has, and the one value that V4.1 knows for each."""

QUANTISATION = {
    "quant_method": "fp8",
    "activation_scheme": "dynamic",
    "weight_block_size": [32, 32],
    "scale_fmt": "ue8m0",
}
"""The quantization_config of the released checkpoint; its expert_dtype is a field of `Config41`."""

LISTS = ("compress_ratios", "kv_source_layer_ids", "index_source_layer_ids")

Section = TypeVar("Section", Engram, DSpark41)


def read_config41(path: str | Path) -> Config41:
    """Read the config.json of a V4.1 model, given itself or its directory.

    Raises ConfigError where the file is missing, is not JSON, lacks a key, or holds a value that V4.1 does not know.
    """
    file = _file(path)
    return config41_from_json(read_json(file, ConfigError, "a config.json"), source=str(file))


def is_config41(path: str | Path) -> bool:
    """Whether a config.json, given itself or its directory, says that it is a V4.1 model's.

    Raises ConfigError where the file is missing or is not JSON.
    """
    raw = read_json(_file(path), ConfigError, "a config.json")
    return isinstance(raw, dict) and raw.get("model_type") == MODEL_TYPE


def _file(path: str | Path) -> Path:
    return Path(path) / "config.json" if is_directory(Path(path)) else Path(path)


def config41_from_json(raw: Any, source: str = "config.json") -> Config41:
    """The configuration of the text path in a parsed config.json.

    Keys that do not shape the model are ignored. Raises ConfigError, with `source` as the file's name, for a missing
    key, a wrong JSON type, and a value that V4.1 does not know.
    """
    if not isinstance(raw, dict):
        raise ConfigError(f"{source}: expected a JSON object, found {type(raw).__name__}")
    require_equal(required(raw, "model_type", source), MODEL_TYPE, source, "model_type")
    text = section_of(raw, "text_config", source)
    if not text:
        raise ConfigError(f"{source}: text_config: expected the settings of the text path, found no such section")
    for key, expected in FIXED.items():
        require_equal(required(text, key, source), expected, source, key)
    require_equal(typed(text.get("gate_temp", 1.0), float, source, "gate_temp"), 1.0, source, "gate_temp")
    values = {
        entry.name: typed(required(text, entry.name, source), entry.type, source, entry.name)
        for entry in fields(Config41)
        if entry.type in (int, float, bool) and entry.name not in ("bos_token_id", "quantised")
    }
    values |= {key: _integers(text, key, source) for key in LISTS}
    values |= {key: typed(required(text, key, source), str, source, key) for key in ("scoring_func", "topk_method")}
    return Config41(**values | _special(raw, text, source) | _quantisation(raw, source), source=source)


def config41_as_json(config: Config41) -> dict[str, Any]:
    """The configuration as a config.json of the released form, as `read_config41` reads it; without vision."""
    values = asdict(config)
    elsewhere = "bos_token_id", "eos_token_id", "torch_dtype", "quantised", "expert_dtype", "source"
    own = {key: value for key, value in values.items() if key not in (*elsewhere, "engram", "dspark")}
    text: dict[str, Any] = FIXED | own
    yarn = values["rope_scaling"]
    text["rope_scaling"] = None if yarn is None else {"rope_type": "yarn"} | yarn
    for prefix in ("engram", "dspark"):
        text |= {f"{prefix}_{key}": value for key, value in (values[prefix] or {}).items()}
    text = {key: list(value) if isinstance(value, tuple) else value for key, value in text.items()}
    result: dict[str, Any] = {
        "architectures": ["DeepseekV41ForCausalLM"],
        "model_type": MODEL_TYPE,
        "dtype": config.torch_dtype,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": values["eos_token_id"],
        "text_config": text,
    }
    if config.quantised:
        result["quantization_config"] = QUANTISATION | {"expert_dtype": config.expert_dtype}
    return result


def _special(raw: dict[str, Any], text: dict[str, Any], source: str) -> dict[str, Any]:
    """What may be absent, or does not stand in text_config under its own name."""
    yarn = yarn_of(section_of(text, "rope_scaling", source), source, "rope_scaling")
    candidates = text.get("candidate_source_layer_id")
    if candidates is not None:
        typed(candidates, int, source, "candidate_source_layer_id")
    return {
        "bos_token_id": typed(required(raw, "bos_token_id", source), int, source, "bos_token_id"),
        "eos_token_id": token_ids(required(raw, "eos_token_id", source), source, "eos_token_id"),
        "torch_dtype": typed(raw.get("dtype") or "bfloat16", str, source, "dtype"),
        "rope_scaling": None if yarn is None else Yarn(**yarn),
        "candidate_source_layer_id": candidates,
        "engram": _settings(Engram, text, "engram_", source) if text.get("engram_layer_ids") else None,
        "dspark": _settings(DSpark41, text, "dspark_", source) if text.get("dspark_block_size") else None,
    }


def _settings(kind: type[Section], text: dict[str, Any], prefix: str, source: str) -> Section:
    """The settings whose keys begin with a prefix: integers, and lists of them."""
    values: dict[str, Any] = {
        entry.name: typed(required(text, prefix + entry.name, source), int, source, prefix + entry.name)
        if entry.type is int
        else _integers(text, prefix + entry.name, source)
        for entry in fields(kind)
    }
    return kind(**values)


def _integers(text: dict[str, Any], key: str, source: str) -> tuple[int, ...]:
    return tuple(typed(one, int, source, key) for one in list_of(text, key, source))


def _quantisation(raw: dict[str, Any], source: str) -> dict[str, Any]:
    """quantised and expert_dtype."""
    section = section_of(raw, "quantization_config", source)
    for key, expected in QUANTISATION.items() if section else ():
        if key not in section:
            expectation = f"{quoted(expected)}, as the released checkpoint has it"
            raise ConfigError(f"{source}: quantization_config {key}: expected {expectation}, found no such key")
        require_equal(section[key], expected, source, f"quantization_config {key}")
    return {"quantised": bool(section), "expert_dtype": section.get("expert_dtype") or "fp4"}
