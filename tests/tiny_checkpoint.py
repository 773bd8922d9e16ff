"""A model of every layer kind that is small enough to be written anew for each test."""

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from dsv4.checkpoint import Checkpoint, config_from_json, write_checkpoint
from dsv4.config import Config
from dsv4.ops.quantise import Fp4Weight, Fp8Weight, Weight, quantise_fp4, quantise_fp8
from dsv4.parameters import Parameter, parameters

FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"

RELEASED = json.loads((Path(__file__).parent / "data/configs/deepseek-v4-flash.json").read_text())

SETTINGS: dict[str, Any] = RELEASED | {
    "vocab_size": 24,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_hash_layers": 1,
    "num_nextn_predict_layers": 1,
    "num_attention_heads": 4,
    "head_dim": 32,
    "qk_rope_head_dim": 8,
    "q_lora_rank": 32,
    "o_lora_rank": 16,
    "o_groups": 2,
    "sliding_window": 4,
    "compress_ratios": [0, 4, 128, 0],
    "index_n_heads": 2,
    "index_head_dim": 16,
    "index_topk": 4,
    "n_routed_experts": 3,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "max_position_embeddings": 512,
}
"""config.json of the tiny model: one layer each of SWA with hash routing, CSA and HCA, and one MTP layer."""


def tiny_config(quantised: bool = False, **changes: Any) -> Config:
    """The tiny model's configuration with some keys changed; with quantization_config only where `quantised`."""
    settings = SETTINGS | changes
    if not quantised:
        settings = {key: value for key, value in settings.items() if key != "quantization_config"}
    return config_from_json(settings, source="tiny/config.json")


def random_tensors(config: Config, seed: int = 0, include_mtp: bool = True) -> dict[str, Weight]:
    """Random values for every parameter: float32, or in the released formats where the configuration is quantised."""
    generator = np.random.default_rng(seed)
    table = parameters(config, include_mtp)
    return {name: _random(parameter, config, generator) for name, parameter in table.items()}


def _random(parameter: Parameter, config: Config, generator: np.random.Generator) -> Weight:
    if parameter.format == "i64":
        return generator.integers(0, config.n_routed_experts, parameter.shape)
    values = generator.standard_normal(parameter.shape, dtype=np.float32)
    if not config.quantised or parameter.format == "f32":
        return values
    convert = {"fp4": quantise_fp4, "fp8": quantise_fp8, "bf16": lambda x: x.astype(ml_dtypes.bfloat16)}
    return convert[parameter.format](values)


def listing(directory):
    """The names in a directory, sorted."""
    return sorted(path.name for path in directory.iterdir())


def assert_holds(checkpoint, tensors):
    """The checkpoint gives exactly these weights, bit for bit."""
    checkpoint.validate()
    assert list(checkpoint.parameters) == list(tensors)
    for name, expected in tensors.items():
        checkpoint.check_values(name)
        found = checkpoint.weight(name)
        assert type(found) is type(expected)
        for ours, theirs in zip(arrays(found), arrays(expected), strict=True):
            assert (ours.dtype, ours.shape, ours.tobytes()) == (theirs.dtype, theirs.shape, theirs.tobytes())


def arrays(weight):
    match weight:
        case Fp8Weight(codes, scales) | Fp4Weight(codes, scales):
            return [codes, scales]
        case _:
            return [weight]


def edit_header(file, change):
    """Rewrite the header of a file by `change`, which takes its dictionary; the data stay as they are."""
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


def rename(file, names):
    """Give tensors of a file other names."""
    edit_header(file, lambda header: [header.__setitem__(new, header.pop(old)) for old, new in names.items()])


def stored(directory):
    """Dtype and array of every tensor of a checkpoint, ready to be written again."""
    checkpoint = Checkpoint.open(directory)
    return {name: (entry.dtype, np.array(checkpoint.tensor(name))) for name, entry in checkpoint.entries.items()}


def poke(directory, name, position, value):
    """Overwrite one value of a tensor."""
    checkpoint = Checkpoint.open(directory)
    entry, array = checkpoint.entries[name], checkpoint.tensor(name)
    offset = entry.start + int(np.ravel_multi_index(position, array.shape)) * array.dtype.itemsize
    with entry.file.open("r+b") as stream:
        stream.seek(offset)
        stream.write(np.array(value, array.dtype).tobytes())


def write_released(directory: Path) -> Path:
    """Write a released tiny checkpoint in one file, and return its directory."""
    config = tiny_config(quantised=True)
    write_checkpoint(directory, config, random_tensors(config).items())
    return directory
