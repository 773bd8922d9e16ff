"""The cache as the released model stores it: bytes for KV entries and indexer keys (report §2.3.4, §3.4).

A model that rounds its activations makes entries that FP8 and FP4 hold exactly: coding them again gives the same
numbers, though not always with the same scale. Only the rotated channels lose something, in bfloat16, and so a packed
cache gives the numbers of a float cache whose entries have their rotated channels rounded to bfloat16 when they are
made. The rows of a call are read back from their bytes, too, so that they do not depend on how a prompt is cut.
Pending projections stay as they are. The bytes lie where the backend computes, which codes new rows as well, and
operations take them as they are stored (`dsv4.ops.packed_rows`).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from dsv4.model.rounding import KV_BLOCK
from dsv4.ops import Ops
from dsv4.ops.packed_rows import Fp4Format, Fp8Format, PackedRows, RowFormat
from dsv4.ops.types import Array, Bytes


@dataclass(frozen=True)
class PackedCoding(ABC):
    """Rows as bytes of one format. dtype: of the rows that are unpacked."""

    ops: Ops
    channels: int
    dtype: np.dtype[Any]

    @property
    @abstractmethod
    def form(self) -> RowFormat:
        """The format."""

    @property
    def width(self) -> int:
        """The bytes of a row."""
        return self.form.width

    @property
    def stored(self) -> np.dtype[Any]:
        """As in `Coding`."""
        return np.dtype(np.uint8)

    def pack(self, rows: Array) -> Bytes:
        """As in `Coding`."""
        return self.ops.pack_rows(rows, self.form)

    def rows(self, packed: Bytes) -> PackedRows:
        """As in `Coding`."""
        return PackedRows(packed, self.form)

    def unpack(self, packed: Bytes) -> Array:
        """As in `Coding`."""
        return self.ops.unpack_rows(self.rows(packed), self.dtype)


@dataclass(frozen=True)
class EntryCoding(PackedCoding):
    """A KV entry; rotated: r, the number of RoPE channels at the end of an entry."""

    rotated: int

    @property
    def form(self) -> RowFormat:
        """583 bytes for 448 + 64 channels."""
        return Fp8Format(self.channels, KV_BLOCK, self.rotated)


class KeyCoding(PackedCoding):
    """An indexer key."""

    @property
    def form(self) -> RowFormat:
        """68 bytes for 128 channels."""
        return Fp4Format(self.channels)
