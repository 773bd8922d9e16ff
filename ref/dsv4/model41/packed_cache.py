"""The cache as the released V4.1 stores it: FP8 window keys, FP4 entries, FP4 index keys (report §2.4.4).

A model that rounds its activations makes rows that these formats hold exactly, so a packed cache changes no result.
Index keys are V4's (`dsv4.model.packed_cache.KeyCoding`). The bytes are coded and read on the host.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from dsv4.model.packed_cache import BYTE, Packed, scaled
from dsv4.ops import Ops, formats
from dsv4.ops.moe41 import MX_BLOCK
from dsv4.ops.quantise import NVFP4_GROUP, fp8_blocks, nvfp4_groups
from dsv4.ops.types import Array


@dataclass(frozen=True)
class WindowCoding41:
    """A window key: FP8 codes, then a scale byte per 32 of them. dtype: of the rows that are read."""

    ops: Ops
    channels: int
    dtype: np.dtype[Any]
    stored: np.dtype[Any] = BYTE

    @property
    def width(self) -> int:
        """The bytes of a key: 528 for 512 channels."""
        return self.channels + -(-self.channels // MX_BLOCK)

    def pack(self, rows: Array) -> Packed:
        """As in `Coding`."""
        codes, scales = fp8_blocks(self.ops.to_numpy(rows), MX_BLOCK)
        return self.ops.asarray(np.concatenate([codes, formats.e8m0_encode(scales)], axis=-1))

    def unpack(self, packed: Packed) -> Array:
        """As in `Coding`."""
        codes, scales = np.split(self.ops.to_numpy(packed), [self.channels], axis=-1)
        return self.ops.asarray(scaled(formats.fp8_decode(codes), formats.e8m0_decode(scales), MX_BLOCK, self.dtype))


@dataclass(frozen=True)
class EntryCoding41:
    """An entry: two FP4 codes per byte, then an E4M3 scale per 16 codes. channels: an even number; dtype: as above."""

    ops: Ops
    channels: int
    dtype: np.dtype[Any]
    stored: np.dtype[Any] = BYTE

    @property
    def width(self) -> int:
        """The bytes of an entry: 288 for 512 channels."""
        return self.channels // 2 + -(-self.channels // NVFP4_GROUP)

    def pack(self, rows: Array) -> Packed:
        """As in `Coding`."""
        codes, scales = nvfp4_groups(self.ops.to_numpy(rows))
        return self.ops.asarray(np.concatenate([formats.fp4_pack(codes), scales], axis=-1))

    def unpack(self, packed: Packed) -> Array:
        """As in `Coding`."""
        codes, scales = np.split(self.ops.to_numpy(packed), [self.channels // 2], axis=-1)
        return self.ops.asarray(scaled(formats.fp4_unpack(codes), formats.fp8_decode(scales), NVFP4_GROUP, self.dtype))
