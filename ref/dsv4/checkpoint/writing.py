"""Writing a checkpoint: official names, one file or shards with an index, whole or not at all.

Files are written in their own layout of the safetensors format and not by the safetensors library, whose function for
raw bytes changed its arguments between versions and lacks the FP8 scale dtype in older ones.
"""

import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import ml_dtypes
import numpy as np
import numpy.typing as npt

from dsv4.checkpoint.config41_json import config41_as_json
from dsv4.checkpoint.config_json import config_as_json
from dsv4.checkpoint.files import INDEX_FILE, SINGLE_FILE
from dsv4.checkpoint.parts import InParts, Rows
from dsv4.checkpoint.target import built_beside
from dsv4.config import Config
from dsv4.config41 import Config41
from dsv4.errors import CheckpointError, reason
from dsv4.ops.quantise import Fp4Weight, Fp8Weight, Weight
from dsv4.parameters import Parameter, parameters
from dsv4.parameters41 import parameters41

DEFAULT_SHARD_BYTES = 5 * 10**9

STORED_DTYPES = {
    np.dtype(np.float32): "F32",
    np.dtype(ml_dtypes.bfloat16): "BF16",
    np.dtype(np.float16): "F16",
    np.dtype(np.int64): "I64",
    np.dtype(np.int32): "I32",
}
"""The safetensors dtype in which a dense array is written."""

Stored = tuple[str, npt.NDArray[Any] | Rows]
"""A safetensors dtype and the array with its bytes."""


def write_checkpoint(
    directory: str | Path,
    config: Config | Config41,
    tensors: Iterable[tuple[str, Weight | InParts]],
    max_shard_bytes: int = DEFAULT_SHARD_BYTES,
    extra_files: Iterable[str | Path] = (),
    overwrite: bool = False,
) -> None:
    """Write config.json, safetensors files and copies of `extra_files` (a tokenizer's, say) into a new directory.

    tensors: every parameter of the configuration by official name, in any order, MTP layers all or not at all; a
    dense array (float32, bfloat16, float16; int64 or int32 for tid2eid), Fp8Weight or Fp4Weight, or one of these in
    parts. They are taken one by one, and at most one file's tensors, `max_shard_bytes`, are held at a time.
    The directory appears under its name when it is whole: it is built beside it under a hidden name, which is removed
    on failure. It must be new or empty; `overwrite` allows one that holds what dsv4 has written, unchanged, and
    nothing else, and that stays until the new one is whole. Raises CheckpointError where the target may not be replaced
    (see `built_beside`) or cannot be written to, or the tensors are not those of the configuration.
    """
    copies = [Path(file) for file in extra_files]
    for file in copies:
        if not file.is_file():
            raise CheckpointError(f"{file}: expected a file to copy, found none")
    with built_beside(Path(directory), overwrite) as partial:
        with _writing(directory):
            for file in copies:
                shutil.copyfile(file, partial / file.name)
            _write_json(partial / "config.json", _as_json(config))
        shards = []
        for shard in _shards(_stored(config, tensors), max_shard_bytes):
            with _writing(directory):
                shards.append(_write_shard(partial, shard))
        with _writing(directory):
            _name_shards(partial, shards)


def parameters_of(config: Config | Config41) -> dict[str, Parameter]:
    """Every parameter of a model of V4 or V4.1 by its official name."""
    return parameters41(config) if isinstance(config, Config41) else parameters(config)


def _as_json(config: Config | Config41) -> dict[str, Any]:
    return config41_as_json(config) if isinstance(config, Config41) else config_as_json(config)


@contextmanager
def _writing(directory: str | Path) -> Iterator[None]:
    """A full disk, or whatever else keeps a file from being written, as an error that names the target."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{directory}: expected files that can be written, found: {reason(error)}") from error


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_safetensors(file: Path, tensors: dict[str, Stored]) -> None:
    """Write one safetensors file. tensors: dtype in safetensors' spelling and array, by name."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, array) in tensors.items():
        start, end = end, end + array.nbytes
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the tensors' bytes start at a multiple of eight
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for _, array in tensors.values():
            for part in array.parts() if isinstance(array, Rows) else [array]:
                stream.write(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)


def _stored(
    config: Config | Config41, tensors: Iterable[tuple[str, Weight | InParts]]
) -> Iterator[tuple[str, list[tuple[str, Stored]]]]:
    """Each parameter with the tensors that store it, checked against the configuration's table."""
    expected = parameters_of(config)
    missing = dict.fromkeys(expected)
    quantised = False
    for name, weight in tensors:
        if name not in missing:
            kind = "a second one" if name in expected else "an unknown one"
            raise CheckpointError(f"{name!r}: expected each parameter of {config.source} once, found {kind}")
        del missing[name]
        stored = _stored_parameter(expected[name], weight)
        quantised |= len(stored) > 1  # scales beside codes
        yield name, stored
    absent = [name for name in missing if not name.startswith("mtp.")]
    mtp = [name for name in expected if name.startswith("mtp.")]
    if absent or 0 < sum(name in missing for name in mtp) < len(mtp):
        first = (absent or list(missing))[0]
        raise CheckpointError(f"{first!r}: expected every parameter of {config.source}, found none of this name")
    if quantised != config.quantised:
        expected_found = ("some", "none") if config.quantised else ("none, as quantization_config is not there", "some")
        raise CheckpointError("{}: quantised tensors: expected {}, found {}".format(config.source, *expected_found))


def _stored_parameter(parameter: Parameter, weight: Weight | InParts) -> list[tuple[str, Stored]]:
    """The tensors that store one parameter: itself, and scales beside quantised codes."""
    name = parameter.name
    if weight.shape != parameter.shape:
        raise CheckpointError(f"{name!r}: expected shape {list(parameter.shape)}, found {list(weight.shape)}")
    match weight:
        case InParts():
            return _stored_in_parts(parameter, weight)
        case Fp8Weight(codes, scales) if parameter.format == "fp8":
            return [(name, ("F8_E4M3", codes)), (parameter.scale_name, ("F8_E8M0", scales))]
        case Fp4Weight(packed, scales) if parameter.format == "fp4":
            return [(name, ("I8", packed)), (parameter.scale_name, ("F8_E8M0", scales))]
        case np.ndarray() if weight.dtype in STORED_DTYPES:
            dtype = STORED_DTYPES[weight.dtype]
            if (parameter.format == "i64") == dtype.startswith("I"):
                return [(name, (dtype, weight))]
    found = type(weight).__name__ if not isinstance(weight, np.ndarray) else str(weight.dtype)
    raise CheckpointError(f"{name!r}: expected values that can be stored for format {parameter.format}, found {found}")


def _stored_in_parts(parameter: Parameter, weight: InParts) -> list[tuple[str, Stored]]:
    """As `_stored_parameter`, which says by the first row what all of them are stored as."""

    def stored(rows: slice) -> list[tuple[str, Stored]]:
        made = weight.rows(rows)
        return _stored_parameter(replace(parameter, shape=made.shape), made)

    def some(number: int, rows: slice) -> npt.NDArray[Any]:
        _, (_, array) = stored(rows)[number]
        assert isinstance(array, np.ndarray)  # parts have no parts
        return array

    found = list[tuple[str, Stored]]()
    for number, (name, (dtype, first)) in enumerate(stored(slice(0, 1))):
        shape = weight.shape[0], *first.shape[1:]
        found.append((name, (dtype, Rows(shape, first.dtype, partial(some, number)))))
    return found


def _shards(
    stored: Iterable[tuple[str, list[tuple[str, Stored]]]], max_shard_bytes: int
) -> Iterator[dict[str, Stored]]:
    """Groups of tensors of at most max_shard_bytes, a weight always with its scales; a larger one stands alone."""
    shard: dict[str, Stored] = {}
    filled = 0
    for _, tensors in stored:
        size = sum(array.nbytes for _, (_, array) in tensors)
        if shard and filled + size > max_shard_bytes:
            yield shard
            shard, filled = {}, 0
        shard.update(tensors)
        filled += size
    yield shard


def _write_shard(directory: Path, shard: dict[str, Stored]) -> tuple[Path, dict[str, int]]:
    """Write one shard under a name that is not final; return it with the sizes of its tensors."""
    file = directory / f"{uuid4().hex}.partial"
    write_safetensors(file, shard)
    return file, {name: array.nbytes for name, (_, array) in shard.items()}


def _name_shards(directory: Path, shards: list[tuple[Path, dict[str, int]]]) -> None:
    """Give the files their names, which tell how many there are, and write the index if there are several."""
    if len(shards) == 1:
        shards[0][0].rename(directory / SINGLE_FILE)
        return
    weight_map = {}
    for number, (file, sizes) in enumerate(shards, start=1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        file.rename(directory / name)
        weight_map.update(dict.fromkeys(sizes, name))
    total = sum(sum(sizes.values()) for _, sizes in shards)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    _write_json(directory / INDEX_FILE, index)
