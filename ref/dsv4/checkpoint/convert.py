"""Conversion of checkpoints between plain floats and the released FP4, FP8 and bf16 storage (report §3.4)."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import ml_dtypes
import numpy as np

from dsv4.checkpoint import Checkpoint, Checkpoint41, open_checkpoint, write_checkpoint
from dsv4.checkpoint.input_files import read_json
from dsv4.checkpoint.parts import InParts, rows_of
from dsv4.checkpoint.writing import DEFAULT_SHARD_BYTES
from dsv4.config import Config
from dsv4.config41 import Config41
from dsv4.errors import CheckpointError, reason
from dsv4.ops.quantise import FP4_BLOCK, Fp4Weight, Fp8Weight, Weight, dequantise, quantise_fp4, quantise_fp8
from dsv4.parameters import Parameter
from dsv4.parameters41 import TABLE_BLOCK

Storage = Literal["released", "float32", "bfloat16"]

COPIED_FILES = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")
"""Files that go with a checkpoint and hold nothing about how it is stored."""


def convert(
    source: str | Path,
    target: str | Path,
    to: Storage = "released",
    max_shard_bytes: int = DEFAULT_SHARD_BYTES,
    progress: Callable[[int, int, str], None] | None = None,
    overwrite: bool = False,
) -> None:
    """Write a checkpoint again in another storage, under official names, one tensor at a time, of a table some rows.

    to: "released" stores each parameter as released checkpoints do: FP4 routed experts, FP8 linear maps, bf16 and
    float32 for the rest; "float32" stores all in float32, which is exact for every released format; "bfloat16" stores
    in bf16 what is not float32 in released checkpoints, which is exact for them, too. Weights that are in the wanted
    storage already are copied unchanged. tid2eid is copied. Files of the tokenizer are copied. Of V4.1 the text path is
    written.
    target, overwrite, max_shard_bytes: as `write_checkpoint` takes them.
    progress: called as progress(done, parameters, name) after each parameter. Raises CheckpointError where the source
    is not a sound checkpoint, a file of its tokenizer is not JSON, a routed expert's width is not a multiple of 32, or
    the target may not be replaced. Source: report §3.4; code: the released files.
    """
    if to not in get_args(Storage):
        raise ValueError(f"convert: `to` must be one of {get_args(Storage)}, found {to!r}")
    checkpoint = open_checkpoint(source)
    checkpoint.validate()
    _require_apart(checkpoint, Path(target))
    if to == "released":
        _check_widths(checkpoint)
    files = [checkpoint.directory / name for name in COPIED_FILES]
    copies = [file for file in files if file.exists()]
    for file in copies:
        read_json(file, CheckpointError)  # a pointer to a file, say, is found out before the work starts
    write_checkpoint(
        target,
        _config(checkpoint, to),
        _converted(checkpoint, to, progress),
        max_shard_bytes,
        extra_files=copies,
        overwrite=overwrite,
    )


def _require_apart(checkpoint: Checkpoint | Checkpoint41, target: Path) -> None:
    """The target must not be the source, nor hold it, nor the files that links in the source lead to."""
    source = checkpoint.directory
    try:
        files = {entry.file for entry in checkpoint.entries.values()}
        places = {source.resolve(), *source.resolve().parents, *(file.resolve().parent for file in files)}
        same = target.exists() and any(target.samefile(place) for place in places)
    except OSError as error:
        raise CheckpointError(f"{target}: expected a directory that can be written, found: {reason(error)}") from error
    if same:
        raise CheckpointError(f"{target}: expected a target outside of the source {source}, found the same place")


def _config(checkpoint: Checkpoint | Checkpoint41, to: Storage) -> Config | Config41:
    """The configuration of the target: draft layers only where their tensors are there."""
    config: Config | Config41 = replace(
        checkpoint.config,
        quantised=to == "released",
        torch_dtype="float32" if to == "float32" else "bfloat16",
    )
    return config if checkpoint.has_mtp else config.without_draft_layers()


def _check_widths(checkpoint: Checkpoint | Checkpoint41) -> None:
    """FP4 needs whole blocks of 32 columns; found out before anything is written."""
    for parameter in checkpoint.parameters.values():
        if parameter.format == "fp4" and parameter.shape[1] % FP4_BLOCK:
            raise CheckpointError(
                f"{checkpoint.directory}: tensor {parameter.name!r}: FP4 storage expected an input width that is a "
                f"multiple of {FP4_BLOCK}, found {parameter.shape[1]}"
            )


def _converted(
    checkpoint: Checkpoint | Checkpoint41, to: Storage, progress: Callable[[int, int, str], None] | None
) -> Iterator[tuple[str, Weight | InParts]]:
    total = len(checkpoint.parameters)
    for done, (name, parameter) in enumerate(checkpoint.parameters.items(), start=1):
        checkpoint.check_values(name)
        weight = checkpoint.weight(name)
        if parameter.block == TABLE_BLOCK:
            yield name, _in_parts(weight, parameter, to)
        else:
            try:
                yield name, _stored_as(to, weight, parameter)
            except ValueError as error:
                raise CheckpointError(f"{checkpoint.entries[name]}: {error}") from error
        if progress is not None:
            progress(done, total, name)


def _in_parts(weight: Weight, parameter: Parameter, to: Storage) -> InParts:
    """The table of an Engram in another storage."""
    return InParts(weight.shape, lambda rows: _stored_as(to, rows_of(weight, rows), parameter))


def _stored_as(to: Storage, weight: Weight, parameter: Parameter) -> Weight:
    """The parameter, or rows of it, in another storage."""
    return released(weight, parameter) if to == "released" else _dense(weight, parameter, to)


def released(weight: Weight, parameter: Parameter) -> Weight:
    """The parameter in its released format; quantised weights and integer tables are so already."""
    if isinstance(weight, Fp8Weight | Fp4Weight) or parameter.format == "i64":
        return weight
    if parameter.format == "fp4":
        return quantise_fp4(weight.astype(np.float32))
    if parameter.format == "fp8":
        return quantise_fp8(weight.astype(np.float32), parameter.block)
    return _cast(weight, parameter, np.dtype(np.float32 if parameter.format == "f32" else ml_dtypes.bfloat16))


def _dense(weight: Weight, parameter: Parameter, to: Storage) -> Weight:
    """The parameter as a plain array in float32, or in bf16 unless its released format is float32."""
    if parameter.format == "i64":
        return weight
    wide = to == "float32" or parameter.format == "f32"
    return _cast(weight, parameter, np.dtype(np.float32 if wide else ml_dtypes.bfloat16))


def _cast(weight: Weight, parameter: Parameter, dtype: np.dtype) -> Weight:
    """The values in another dtype; a number that becomes infinite is an error and not silence."""
    dense = dequantise(weight, dtype)
    if not np.isfinite(dense).all():
        raise CheckpointError(f"tensor {parameter.name!r}: expected values within {dtype}, found a larger one")
    return dense
