"""The header of a safetensors file: which tensors it holds, of which dtype and shape, and where.

A file is an eight-byte little-endian length, a JSON header of that length, and the tensors' bytes back to back. The
header is parsed here and not by the safetensors library, whose NumPy side does not know the FP8 and FP4 dtypes.
"""

import os
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, TypeGuard

import ml_dtypes
import numpy as np
import numpy.typing as npt

from dsv4.checkpoint.input_files import LARGEST_JSON, foreign_kind, parse_json, regular_size
from dsv4.errors import CheckpointError, quoted, reason

DTYPES: dict[str, npt.DTypeLike] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(np.uint8),
    "F8_E5M2": np.dtype(np.uint8),
    "F8_E8M0": np.dtype(np.uint8),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype(np.uint8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.uint8),
}
"""How the bytes of each safetensors dtype are viewed. Codes are viewed as uint8: V4 keeps packed FP4 in I8."""

LONGEST_NAME = 1000
"""Characters of a tensor's name; V4's have less than a hundred."""

MOST_DIMENSIONS = 8
"""V4's tensors have at most two, and fused experts three."""

LARGEST_COUNT = 2**63 - 1
"""A dimension or a place in a file, as file systems and NumPy count."""


@dataclass(frozen=True)
class Entry:
    """Where one tensor is: its file, the name it has there, its dtype in safetensors' spelling, its shape, its place.

    `start` counts bytes from the beginning of the file; `stamp` is what the file was when its header was read, empty
    where nobody looked.
    """

    file: Path
    stored_name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stamp: tuple[int, ...] = field(default=(), compare=False, repr=False)

    @property
    def size(self) -> int:
        """The number of bytes."""
        return prod(self.shape) * np.dtype(DTYPES[self.dtype]).itemsize

    def __str__(self) -> str:
        return f"{self.file}: tensor {quoted(self.stored_name)}"


def read_header(file: Path) -> dict[str, Entry]:
    """The tensors of one safetensors file by the names they have in it; none of their bytes are read.

    Raises CheckpointError where the file is missing, truncated or foreign, where its header is not valid, and where
    tensors overlap, leave gaps or have a length that does not fit dtype and shape.
    """
    file_size = regular_size(file, CheckpointError, "a safetensors file")
    try:
        with file.open("rb") as stream:
            stamp = stamp_of(os.fstat(stream.fileno()))
            start = stream.read(100)
            length = _header_length(file, start, file_size)
            stream.seek(8)
            text = stream.read(length)
    except OSError as error:
        raise CheckpointError(f"{file}: expected a readable safetensors file, found: {reason(error)}") from error
    header = _parse(file, text)
    entries = {name: _entry(file, name, fields, 8 + length, stamp) for name, fields in header.items()}
    _check_layout(file, list(entries.values()), 8 + length, file_size)
    return entries


def stamp_of(found: os.stat_result) -> tuple[int, ...]:
    """What tells one state of a file from another: its size, and when it was written to.

    Its number is not among it, as some network file systems give a file another one each time.
    """
    return found.st_size, found.st_mtime_ns


def _header_length(file: Path, start: bytes, file_size: int) -> int:
    """The length that a file's first bytes tell; `start` has a few more than these eight."""
    if len(start) < 8:
        raise CheckpointError(f"{file}: truncated: expected a header length of 8 bytes, found {len(start)} bytes")
    length = int.from_bytes(start[:8], "little")
    if length > LARGEST_JSON:
        kind = foreign_kind(start)
        if kind is not None:
            raise CheckpointError(f"{file}: expected a safetensors file, found {kind}")
        raise CheckpointError(
            f"{file}: not a safetensors file: expected a header of at most {LARGEST_JSON} bytes, found {length}"
        )
    if length > file_size - 8:
        raise CheckpointError(
            f"{file}: truncated header: expected {length} bytes of header, found {file_size - 8} bytes after its length"
        )
    return length


def _parse(file: Path, text: bytes) -> dict[str, Any]:
    """The header's JSON object without its metadata; a name that occurs twice is an error."""
    try:
        header = parse_json(text)
    except ValueError as error:
        raise CheckpointError(
            f"{file}: not a safetensors file: expected a JSON header, found {reason(error)}"
        ) from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{file}: not a safetensors file: expected a JSON object, found {type(header).__name__}")
    if not isinstance(header.pop("__metadata__", {}), dict):
        raise CheckpointError(f"{file}: __metadata__: expected a JSON object, found another value")
    return header


def _entry(file: Path, name: str, fields: Any, data_start: int, stamp: tuple[int, ...]) -> Entry:
    """One checked line of the header."""
    place = f"{file}: tensor {quoted(name)}"
    if len(name) > LONGEST_NAME:
        raise CheckpointError(f"{place}: expected a name of at most {LONGEST_NAME} characters, found {len(name)}")
    if not isinstance(fields, dict):
        raise CheckpointError(f"{place}: expected a JSON object, found {quoted(fields)}")
    dtype, shape, offsets = fields.get("dtype"), fields.get("shape"), fields.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise CheckpointError(f"{place}: dtype: expected one of {', '.join(DTYPES)}, found {quoted(dtype)}")
    if not _are_counts(shape):
        expected = f"a list of at most {MOST_DIMENSIONS} integers of at least 0 and below 2^63"
        raise CheckpointError(f"{place}: shape: expected {expected}, found {quoted(shape)}")
    if not _are_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise CheckpointError(f"{place}: data_offsets: expected a rising pair of integers, found {quoted(offsets)}")
    entry = Entry(file, name, dtype, tuple(shape), data_start + offsets[0], stamp)
    if entry.size != offsets[1] - offsets[0]:
        raise CheckpointError(
            f"{place}: expected {entry.size} bytes for {dtype} {list(shape)}, found {offsets[1] - offsets[0]}"
        )
    return entry


def _are_counts(values: Any) -> TypeGuard[list[int]]:
    return (
        isinstance(values, list)
        and len(values) <= MOST_DIMENSIONS
        and all(type(value) is int and 0 <= value <= LARGEST_COUNT for value in values)
    )


def _check_layout(file: Path, entries: list[Entry], data_start: int, file_size: int) -> None:
    """The tensors must lie back to back from the header to the end of the file."""
    place = data_start
    for entry in sorted(entries, key=lambda entry: (entry.start, entry.size)):
        if entry.start != place:
            kind = "overlaps the tensor before it" if entry.start < place else "leaves a gap before it"
            raise CheckpointError(f"{entry} {kind}: expected its data at byte {place}, found {entry.start}")
        place += entry.size
        if place > file_size:
            raise CheckpointError(f"{entry}: truncated data: expected a file of {place} bytes, found {file_size}")
    if place != file_size:
        raise CheckpointError(f"{file}: expected {place} bytes as the header says, found {file_size}")
