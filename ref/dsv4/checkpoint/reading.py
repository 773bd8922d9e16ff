"""A checkpoint on disk, opened by its headers and read tensor by tensor from memory-mapped files."""

from abc import ABC, abstractmethod
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import numpy.typing as npt

from dsv4.checkpoint import values
from dsv4.checkpoint.direct import read_tensor
from dsv4.checkpoint.files import stored_entries
from dsv4.checkpoint.header import Entry
from dsv4.checkpoint.input_files import is_directory, regular_size
from dsv4.checkpoint.mapping import MappedFile
from dsv4.checkpoint.names import official_entries
from dsv4.config import Config
from dsv4.config41 import Config41
from dsv4.errors import CheckpointError, quoted
from dsv4.ops.formats import e8m0_encode
from dsv4.ops.quantise import FP4_BLOCK, Fp4Weight, Fp8Weight, Weight
from dsv4.ops.types import Ints
from dsv4.parameters import Format, Parameter

DENSE = ("F32", "BF16", "F16")
PACKED_FP4 = ("I8", "U8")

ACCEPTED: dict[Format, tuple[str, ...]] = {
    "f32": DENSE,
    "bf16": DENSE,
    "fp8": ("F8_E4M3", *DENSE),
    "fp4": (*PACKED_FP4, *DENSE),
    "i64": ("I64", "I32"),
}
"""The dtypes in which a parameter of each released format may be stored."""

ACCEPTED_SCALES = ("F8_E8M0", "U8", "F32")

NAMED_AT_MOST = 5
"""How many missing or unknown tensors a message names."""


AnyConfig = TypeVar("AnyConfig", Config, Config41)


class StoredModel(ABC, Generic[AnyConfig]):
    """Config and tensors of one directory. Opening reads config.json and headers; no tensor's bytes are touched.

    config: as in config.json, with expert_dtype as the files have it; entries: dtype, shape and file of every tensor
    by official name, scales included; left_out: the same of tensors of a part of the model that is not read; has_mtp:
    whether there are tensors of draft layers, `mtp.*`.
    """

    others: ClassVar[tuple[str, ...]] = ()
    """What the names of tensors begin with that belong to another part of the model, and are not read."""

    def __init__(self, directory: Path, config: AnyConfig, entries: dict[str, Entry]) -> None:
        self.directory = directory
        self.config: AnyConfig = config
        self.entries = {name: one for name, one in entries.items() if not name.startswith(self.others)}
        self.left_out = {name: one for name, one in entries.items() if name.startswith(self.others)}
        self.has_mtp = config.draft_layers > 0 and any(name.startswith("mtp.") for name in self.entries)
        self._maps: dict[Path, MappedFile] = {}
        self._checked: set[str] = set()

    @staticmethod
    @abstractmethod
    def read_config(directory: Path) -> AnyConfig:
        """The configuration of the directory. Raises ConfigError."""

    @staticmethod
    @abstractmethod
    def table(config: AnyConfig, include_mtp: bool) -> dict[str, Parameter]:
        """Every parameter of a configuration by its official name."""

    @classmethod
    def open(cls, directory: str | Path) -> Self:
        """Open a directory with config.json and safetensors files, in official or transformers' spelling.

        Raises ConfigError for a bad config.json. Raises CheckpointError where the directory or its files are missing,
        truncated, foreign or inconsistent, and where two tensors stand for one name.
        """
        directory = Path(directory)
        if not is_directory(directory):
            regular_size(directory, CheckpointError, "a directory with a checkpoint")
            raise CheckpointError(f"{directory}: expected a directory with a checkpoint, found a file")
        config = cls.read_config(directory)
        table = cls.table(config, include_mtp=True)
        known = table.keys() | {parameter.scale_name for parameter in table.values()}
        entries = official_entries(stored_entries(directory), known, config.n_routed_experts)
        expert = entries.get("layers.0.ffn.experts.0.w1.weight")
        if expert is not None and expert.dtype in ("F8_E4M3", *PACKED_FP4):
            config = replace(config, expert_dtype="fp8" if expert.dtype == "F8_E4M3" else "fp4")
        return cls(directory, config, entries)

    @property
    def names(self) -> list[str]:
        """The official names of all tensors, scales included."""
        return list(self.entries)

    @property
    def nbytes(self) -> int:
        """The bytes of all tensors as they are stored."""
        return sum(entry.size for entry in self.entries.values())

    @cached_property
    def parameters(self) -> dict[str, Parameter]:
        """The parameters that the checkpoint must have: those of config.json, draft layers where any is there."""
        return self.table(self.config, include_mtp=self.has_mtp)

    def tensor(self, name: str) -> npt.NDArray[Any]:
        """A read-only view of a tensor as it is stored, mapped from the file.

        bfloat16 has the dtype of ml_dtypes; FP8 codes, E8M0 scales and packed FP4 (I8 or U8) are uint8.
        Raises CheckpointError where there is no tensor of this official name, and where its file can no longer be
        read or has become too short.
        """
        entry = self._entry(name)
        if entry.file not in self._maps:
            self._maps[entry.file] = MappedFile(entry.file)
        return self._maps[entry.file].tensor(entry)

    def weight(self, name: str) -> Weight:
        """A parameter as the model uses it: a dense array, or codes with their scales.

        name: as in `parameters`. Dtype and shape are checked, values are not (`check_values`); only float32 scales,
        which become E8M0, are read. Raises CheckpointError where the parameter is unknown or missing, has another
        shape or a dtype that cannot stand for it, or lacks scales that fit.
        """
        self._check_stored(self._parameter(name))
        entry, codes = self.entries[name], self.tensor(name)
        if entry.dtype == "F8_E4M3":
            return Fp8Weight(codes, self._scales(name), self.parameters[name].block)
        if entry.dtype in PACKED_FP4:
            return Fp4Weight(codes, self._scales(name))
        return codes

    def stored_bytes(self, name: str) -> int:
        """The bytes of a parameter as it is stored, with its scales. Raises CheckpointError for an unknown one."""
        scales = self.entries.get(self._parameter(name).scale_name)
        return self._entry(name).size + (scales.size if scales else 0)

    def read_weight(self, name: str) -> Weight:
        """A parameter as `weight` gives it, checked as `check_values` does, in memory of its own: no file is mapped.

        Values are checked when it is read for the first time: a file that is changed later is refused. Raises
        CheckpointError as these do, also for a file that is gone or cut short while it is read.
        """
        parameter = self._parameter(name)
        self._check_stored(parameter)
        entry = self.entries[name]
        scale = self.entries[parameter.scale_name] if entry.dtype in values.LARGEST_SCALE else None
        codes, scales = read_tensor(entry), read_tensor(scale) if scale else None
        if name not in self._checked:
            self._check_numbers(parameter, codes, scales)
            self._checked.add(name)
        if scales is None:
            return codes
        scales = scales if scales.dtype == np.uint8 else e8m0_encode(scales)
        return Fp8Weight(codes, scales, parameter.block) if entry.dtype == "F8_E4M3" else Fp4Weight(codes, scales)

    def read_rows(self, name: str, numbers: Ints) -> Weight:
        """Rows [N, d] of a parameter [.., d], in memory of their own, checked as `check_values` does.

        It is dense, or in FP8 with scales for parts of single rows. Raises CheckpointError as `read_weight` does.
        """
        parameter = self._parameter(name)
        self._check_stored(parameter)
        entry = self.entries[name]
        scale = self.entries[parameter.scale_name] if entry.dtype in values.LARGEST_SCALE else None
        rows = [(_row(entry, int(row)), _row(scale, int(row)) if scale else None) for row in numbers]
        found = [(read_tensor(row), read_tensor(scales) if scales else None) for row, scales in rows]
        for (row, of_row), (codes, scales) in zip(rows, found, strict=True):
            values.check_numbers(codes, row)
            if of_row is not None and scales is not None:
                values.check_scales(scales, of_row, row.dtype)
        codes = np.concatenate([codes for codes, _ in found])
        if scale is None:
            return codes
        scales = np.concatenate([scales for _, scales in found if scales is not None])
        return Fp8Weight(codes, scales if scales.dtype == np.uint8 else e8m0_encode(scales), parameter.block)

    def check_values(self, name: str) -> None:
        """Read a parameter's values and those of its scales, and look for ones that cannot be right.

        Raises CheckpointError, naming file, tensor and position, for NaN and infinity, NaN codes of FP8 and E8M0,
        scales that make codes infinite, and experts in tid2eid that do not exist; and as `weight` does.
        """
        parameter = self._parameter(name)
        self._check_stored(parameter)
        has_scales = self.entries[name].dtype in values.LARGEST_SCALE
        self._check_numbers(parameter, self.tensor(name), self.tensor(parameter.scale_name) if has_scales else None)

    def validate(self) -> None:
        """Check from the headers alone that every parameter is there, with a fitting shape and dtype, and no other.

        Raises CheckpointError that names the first missing or unknown tensors, or one that does not fit.
        """
        missing = [name for name in self.parameters if name not in self.entries]
        if missing:
            raise CheckpointError(
                f"{self.directory}: expected every tensor of {self.config.source}, found none named {_list(missing)}"
            )
        known = set(self.parameters)
        for parameter in self.parameters.values():
            self._check_stored(parameter)
            if self.entries[parameter.name].dtype in values.LARGEST_SCALE:
                known.add(parameter.scale_name)
        unknown = [quoted(entry.stored_name) for name, entry in self.entries.items() if name not in known]
        if unknown:
            raise CheckpointError(
                f"{self.directory}: expected only tensors of {self.config.source}, found {_list(unknown)}"
            )

    def _check_numbers(self, parameter: Parameter, numbers: npt.NDArray[Any], scales: npt.NDArray[Any] | None) -> None:
        """What `check_values` looks for, in a parameter's numbers or codes and in the scales beside them."""
        entry = self.entries[parameter.name]
        if parameter.format == "i64":
            values.check_experts(numbers, entry, self.config.n_routed_experts)
        else:
            values.check_numbers(numbers, entry)
        if scales is not None:
            values.check_scales(scales, self.entries[parameter.scale_name], entry.dtype)

    def _entry(self, name: str) -> Entry:
        if name not in self.entries:
            raise CheckpointError(f"{self.directory}: expected tensor {quoted(name)}, found none of this name")
        return self.entries[name]

    def _parameter(self, name: str) -> Parameter:
        if name not in self.parameters:
            raise CheckpointError(
                f"{self.directory}: expected a parameter of {self.config.source}, found {quoted(name)}"
            )
        return self.parameters[name]

    def _scales(self, name: str) -> npt.NDArray[np.uint8]:
        """The E8M0 bytes of a weight's scales; the released base models store them in float32."""
        scale = self.parameters[name].scale_name
        stored = self.tensor(scale)
        if stored.dtype == np.uint8:
            return stored
        values.check_scales(stored, self.entries[scale], self.entries[name].dtype)
        return e8m0_encode(stored)

    def _check_stored(self, parameter: Parameter) -> None:
        """Dtype and shape of a parameter and of the scales beside it, from the headers."""
        entry = self._entry(parameter.name)
        accepted = ACCEPTED[parameter.format]
        if entry.dtype not in accepted:
            raise CheckpointError(f"{entry}: expected dtype {' or '.join(accepted)}, found {entry.dtype}")
        shape = parameter.shape
        if entry.dtype in PACKED_FP4:
            if shape[1] % FP4_BLOCK:
                raise CheckpointError(f"{entry}: expected a width that is a multiple of {FP4_BLOCK}, found {shape[1]}")
            shape = (shape[0], shape[1] // 2)
        _require_shape(entry, shape)
        if entry.dtype in values.LARGEST_SCALE:
            self._check_stored_scales(parameter, entry)

    def _check_stored_scales(self, parameter: Parameter, weight: Entry) -> None:
        if parameter.scale_name not in self.entries:
            raise CheckpointError(f"{weight}: expected scales {parameter.scale_name!r} beside it, found none")
        entry = self.entries[parameter.scale_name]
        if entry.dtype not in ACCEPTED_SCALES:
            raise CheckpointError(f"{entry}: expected dtype {' or '.join(ACCEPTED_SCALES)}, found {entry.dtype}")
        assert parameter.scale_shape is not None  # a quantised dtype is accepted for quantised formats only
        _require_shape(entry, parameter.scale_shape)


def _row(entry: Entry, number: int) -> Entry:
    """One row of a tensor, [1, ...]."""
    size = entry.size // entry.shape[0]
    return replace(entry, shape=(1, *entry.shape[1:]), start=entry.start + size * number)


def _require_shape(entry: Entry, expected: tuple[int, ...]) -> None:
    if entry.shape != expected:
        raise CheckpointError(f"{entry}: expected shape {list(expected)}, found {list(entry.shape)}")


def _list(names: list[str]) -> str:
    """The first few names and how many more there are."""
    more = f" and {len(names) - NAMED_AT_MOST} more" if len(names) > NAMED_AT_MOST else ""
    return ", ".join(names[:NAMED_AT_MOST]) + more
