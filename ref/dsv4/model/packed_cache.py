"""The cache as the released model stores it: bytes for KV entries and indexer keys (report §2.3.4, §3.4).

A model that rounds its activations makes entries that FP8 and FP4 hold exactly: coding them again gives the same
numbers, though not always with the same scale. Only the rotated channels lose something, in bfloat16, and so a packed
cache gives the numbers of a float cache whose entries have their rotated channels rounded to bfloat16 when they are
made. The rows of a call are read back from their bytes, too, so that they do not depend on how a prompt is cut.
Pending projections stay as they are. The bytes lie where the backend computes; they are coded and read on the host.
"""

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from dsv4.model.rounding import KV_BLOCK
from dsv4.ops import Ops, formats
from dsv4.ops.quantise import FP4_BLOCK, fp4_blocks, fp8_blocks
from dsv4.ops.types import Array

Packed = npt.NDArray[np.uint8]
BYTE = np.dtype(np.uint8)


@dataclass(frozen=True)
class EntryCoding:
    """A KV entry: FP8 codes of all channels but the rotated ones, these in bf16, a scale byte per 64 codes.

    dtype: of the rows that are read; rotated: r, the number of RoPE channels at the end of an entry.
    """

    ops: Ops
    channels: int
    dtype: np.dtype[Any]
    rotated: int
    stored: np.dtype[Any] = BYTE

    @property
    def width(self) -> int:
        """The bytes of an entry: 583 for 448 + 64 channels."""
        content = self.channels - self.rotated
        return content + 2 * self.rotated + -(-content // KV_BLOCK)

    def pack(self, rows: Array) -> Packed:
        """As in `Coding`."""
        entries = self.ops.to_numpy(rows)
        content = self.channels - self.rotated
        codes, scales = fp8_blocks(entries[..., :content], KV_BLOCK)
        position = np.ascontiguousarray(entries[..., content:].astype(ml_dtypes.bfloat16)).view(np.uint8)
        return self.ops.asarray(np.concatenate([codes, position, formats.e8m0_encode(scales)], axis=-1))

    def unpack(self, packed: Packed) -> Array:
        """As in `Coding`."""
        content = self.channels - self.rotated
        codes, position, scales = np.split(self.ops.to_numpy(packed), [content, content + 2 * self.rotated], axis=-1)
        values = scaled(formats.fp8_decode(codes), formats.e8m0_decode(scales), KV_BLOCK, self.dtype)
        turned = np.ascontiguousarray(position).view(ml_dtypes.bfloat16).astype(self.dtype)
        return self.ops.asarray(np.concatenate([values, turned], axis=-1))


@dataclass(frozen=True)
class KeyCoding:
    """An indexer key: two FP4 codes per byte, then a scale byte per 32 codes. dtype: of the rows that are read."""

    ops: Ops
    channels: int
    dtype: np.dtype[Any]
    stored: np.dtype[Any] = BYTE

    @property
    def width(self) -> int:
        """The bytes of a key: 68 for 128 channels."""
        return self.channels // 2 + -(-self.channels // FP4_BLOCK)

    def pack(self, rows: Array) -> Packed:
        """As in `Coding`."""
        codes, scales = fp4_blocks(self.ops.to_numpy(rows))
        return self.ops.asarray(np.concatenate([formats.fp4_pack(codes), formats.e8m0_encode(scales)], axis=-1))

    def unpack(self, packed: Packed) -> Array:
        """As in `Coding`."""
        codes, scales = np.split(self.ops.to_numpy(packed), [self.channels // 2], axis=-1)
        return self.ops.asarray(scaled(formats.fp4_unpack(codes), formats.e8m0_decode(scales), FP4_BLOCK, self.dtype))


def scaled(values: Array, scales: Array, block: int, dtype: np.dtype[Any]) -> Array:
    """values [..., K] float32 times the scale of their block, scales [..., ⌈K/block⌉] float32, in `dtype`.

    So fake quantisation multiplies. With powers of two as scales it is exact in any float.
    """
    spread = np.repeat(scales, block, axis=-1)[..., : values.shape[-1]]
    product: Array = values.astype(dtype) * spread.astype(dtype)
    return product
