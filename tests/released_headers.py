"""A released checkpoint as far as its headers go: every tensor has its name, dtype, shape and place, and no bytes.

The files are as long as real ones, but sparse: they take next to no room on a disk.
"""

import json
import os
from collections.abc import Iterable
from math import prod
from pathlib import Path

import numpy as np

from dsv4.checkpoint.header import DTYPES
from dsv4.parameters import Parameter

STORED_AS = {"fp4": "I8", "fp8": "F8_E4M3", "bf16": "BF16", "f32": "F32", "i64": "I64"}
"""The dtype of each format in the released files. FP4 is packed, two numbers in a byte."""

SHARDS = 46

Tensors = dict[str, tuple[str, list[int]]]
"""The dtype and the shape of each tensor, as stored."""


def stored_tensors(table: Iterable[Parameter]) -> Tensors:
    """Every tensor of a released checkpoint with these parameters, scales included."""
    tensors = {}
    for parameter in table:
        shape = list(parameter.shape)
        if parameter.format == "fp4":
            shape[-1] //= 2
        tensors[parameter.name] = STORED_AS[parameter.format], shape
        if parameter.scale_shape is not None:
            tensors[parameter.scale_name] = "F8_E8M0", list(parameter.scale_shape)
    return tensors


def write_headers(directory: Path, config_file: Path, tensors: Tensors) -> None:
    """Write config.json, an index and the shards."""
    (directory / "config.json").write_bytes(config_file.read_bytes())
    weight_map = {}
    names = list(tensors)
    for shard in range(SHARDS):
        file = directory / f"model-{shard + 1:05}-of-{SHARDS:05}.safetensors"
        here = names[shard * len(names) // SHARDS : (shard + 1) * len(names) // SHARDS]
        _write_file(file, {name: tensors[name] for name in here})
        weight_map |= dict.fromkeys(here, file.name)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")


def _write_file(file: Path, tensors: Tensors) -> None:
    header, place = {}, 0
    for name, (dtype, shape) in tensors.items():
        end = place + prod(shape) * np.dtype(DTYPES[dtype]).itemsize
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [place, end]}
        place = end
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(file, 8 + len(text) + place)
