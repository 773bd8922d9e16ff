"""Rows of a cache as bytes, which operations take in the place of float rows (report §2.3.4, §3.4; V4.1's §2.4.4).

An operation on packed rows is defined as itself on the rows that they stand for, in the dtype of its queries.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import ml_dtypes
import numpy as np
import numpy.typing as npt

from dsv4.ops import formats
from dsv4.ops.quantise import FP4_BLOCK, NVFP4_GROUP, fp4_blocks, fp8_blocks, nvfp4_groups
from dsv4.ops.types import Array, Bytes


class RowFormat(Protocol):
    """How the numbers of a row are stored."""

    @property
    def channels(self) -> int:
        """The numbers of a row."""

    @property
    def width(self) -> int:
        """Its bytes."""

    def pack(self, rows: Array) -> Bytes:
        """[..., channels] float -> [..., width] uint8. Rows that the format holds exactly are read back as they are."""

    def unpack(self, stored: Bytes, dtype: npt.DTypeLike) -> Array:
        """[..., width] uint8 -> [..., channels] of `dtype`."""


@dataclass(frozen=True)
class Fp8Format:
    """FP8 codes of all channels but the `rotated` last ones, these in bf16, then an E8M0 scale per `block` codes.

    With 64 codes a block a KV entry of V4, with 32 and nothing rotated a window key of V4.1.
    """

    channels: int
    block: int
    rotated: int = 0

    @property
    def width(self) -> int:
        """583 for 448 + 64 channels in blocks of 64."""
        content = self.channels - self.rotated
        return content + 2 * self.rotated + -(-content // self.block)

    def pack(self, rows: Array) -> Bytes:
        """As in `RowFormat`."""
        content = self.channels - self.rotated
        codes, scales = fp8_blocks(rows[..., :content], self.block)
        position = np.ascontiguousarray(rows[..., content:].astype(ml_dtypes.bfloat16)).view(np.uint8)
        return np.concatenate([codes, position, formats.e8m0_encode(scales)], axis=-1)

    def unpack(self, stored: Bytes, dtype: npt.DTypeLike) -> Array:
        """As in `RowFormat`."""
        content = self.channels - self.rotated
        codes, position, scales = np.split(stored, [content, content + 2 * self.rotated], axis=-1)
        values = _scaled(formats.fp8_decode(codes), formats.e8m0_decode(scales), self.block, dtype)
        turned = np.ascontiguousarray(position).view(ml_dtypes.bfloat16).astype(dtype)
        return np.concatenate([values, turned], axis=-1)


@dataclass(frozen=True)
class Fp4Format:
    """Two FP4 codes per byte, the even channel in the low nibble, then an E8M0 scale per 32 codes: an indexer key.

    channels: an even number.
    """

    channels: int

    @property
    def width(self) -> int:
        """68 for 128 channels."""
        return self.channels // 2 + -(-self.channels // FP4_BLOCK)

    def pack(self, rows: Array) -> Bytes:
        """As in `RowFormat`."""
        codes, scales = fp4_blocks(rows)
        return np.concatenate([formats.fp4_pack(codes), formats.e8m0_encode(scales)], axis=-1)

    def unpack(self, stored: Bytes, dtype: npt.DTypeLike) -> Array:
        """As in `RowFormat`."""
        codes, scales = np.split(stored, [self.channels // 2], axis=-1)
        return _scaled(formats.fp4_unpack(codes), formats.e8m0_decode(scales), FP4_BLOCK, dtype)


@dataclass(frozen=True)
class Nvfp4Format:
    """Two FP4 codes per byte as in `Fp4Format`, then an E4M3 scale per 16 codes: a compressed entry of V4.1.

    channels: an even number.
    """

    channels: int

    @property
    def width(self) -> int:
        """288 for 512 channels."""
        return self.channels // 2 + -(-self.channels // NVFP4_GROUP)

    def pack(self, rows: Array) -> Bytes:
        """As in `RowFormat`."""
        codes, scales = nvfp4_groups(rows)
        return np.concatenate([formats.fp4_pack(codes), scales], axis=-1)

    def unpack(self, stored: Bytes, dtype: npt.DTypeLike) -> Array:
        """As in `RowFormat`."""
        codes, scales = np.split(stored, [self.channels // 2], axis=-1)
        return _scaled(formats.fp4_unpack(codes), formats.fp8_decode(scales), NVFP4_GROUP, dtype)


@dataclass(frozen=True)
class PackedRows:
    """Rows of numbers [..., channels] that are stored as bytes [..., width] uint8, where the backend computes."""

    stored: Bytes
    form: RowFormat

    @property
    def shape(self) -> tuple[int, ...]:
        """[..., channels], of the rows that these stand for."""
        return *self.stored.shape[:-1], self.form.channels

    def __getitem__(self, index: Any) -> "PackedRows":
        """Some of the rows, or the same ones in other places: index as of an array, without the last axis."""
        return PackedRows(self.stored[index], self.form)


Rows = Array | PackedRows
"""Rows of numbers, as they are or packed."""


def unpacked(rows: Rows, dtype: npt.DTypeLike) -> Array:
    """The numbers of rows: of packed ones in `dtype`; others as they are.

    Exact but for what leaves the range of `dtype`: a code has at most four significant bits and a scale is a power of
    two, or has four bits as well. Raises ValueError where the rows do not have the bytes of their format.
    """
    if not isinstance(rows, PackedRows):
        return rows
    if rows.stored.dtype != np.uint8 or rows.stored.shape[-1] != rows.form.width:
        found = f"found {rows.stored.dtype} {rows.stored.shape}"
        raise ValueError(f"packed rows: expected {rows.form.width} bytes for {rows.form.channels} channels, {found}")
    return rows.form.unpack(rows.stored, dtype)


def _scaled(values: Array, scales: Array, block: int, dtype: npt.DTypeLike) -> Array:
    """values [..., K] float32 times the scale of their block, scales [..., ⌈K/block⌉] float32, in `dtype`.

    So fake quantisation multiplies. With powers of two as scales it is exact in any float.
    """
    spread = np.repeat(scales, block, axis=-1)[..., : values.shape[-1]]
    product: Array = values.astype(dtype) * spread.astype(dtype)
    return product
