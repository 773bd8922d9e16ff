"""The cache as the released model stores it: bytes for KV entries and indexer keys (report §2.3.4, §3.4).

A model that rounds its activations makes entries that FP8 and FP4 hold exactly: coding them again gives the same
numbers, though not always with the same scale. Only the rotated channels lose something, in bfloat16, and so a packed
cache gives the numbers of a float cache whose entries have their rotated channels rounded to bfloat16 when they are
made. The rows of a call are read back from their bytes, too, so that they do not depend on how a prompt is cut.
Pending projections stay as they are. The bytes lie where the backend computes; they are coded and read on the host.
"""

from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import ml_dtypes
import numpy as np
import numpy.typing as npt

from dsv4.model.cache import Entries, LayerCache, RecentRows
from dsv4.model.rounding import KV_BLOCK
from dsv4.model.span import Index, Span
from dsv4.ops import Ops, formats
from dsv4.ops.quantise import FP4_BLOCK, fp4_blocks, fp8_blocks
from dsv4.ops.types import Array, Bytes

Packed = npt.NDArray[Any]
"""uint8. The float caches that move these rows about are annotated for floats and do not mind."""


def packed_layer(layer: LayerCache, ops: Ops, rotated: int) -> LayerCache:
    """The empty cache of a layer with bytes for its window, its compressed entries and its indexer keys.

    layer: the float cache, whose sizes and dtype count; ops: the backend that reads it; rotated: r, the number of
    RoPE channels at the end of an entry.
    """
    entry = EntryPacking(ops, layer.window.rows.shape[-1], layer.window.rows.dtype, rotated)
    compressor, indexer = layer.compressor, layer.indexer
    if compressor:
        compressor = replace(compressor, entries=PackedEntries(entry, compressor.entries))
    if indexer:
        key = KeyPacking(ops, indexer.entries.rows.shape[-1], indexer.entries.rows.dtype)
        indexer = replace(indexer, entries=PackedEntries(key, indexer.entries))
    return LayerCache(PackedRecentRows(entry, layer.window), compressor, indexer)


class Packing(Protocol):
    """A way to write rows [B, N, width] as bytes [B, N, row_bytes] and to read them back."""

    @property
    def ops(self) -> Ops:
        """The backend that makes and reads the rows."""

    @property
    def row_bytes(self) -> int:
        """The bytes of one row."""

    def pack(self, rows: Array) -> Packed:
        """[B, N, width] -> [B, N, row_bytes], both where the backend computes."""

    def unpack(self, packed: Packed) -> Array:
        """[B, N, row_bytes] -> [B, N, width] of the model's dtype, both where the backend computes."""


@dataclass(frozen=True)
class EntryPacking:
    """A KV entry: FP8 codes of all channels but the rotated ones, these in bf16, a scale byte per 64 codes."""

    ops: Ops
    width: int
    dtype: np.dtype[Any]
    rotated: int

    @property
    def row_bytes(self) -> int:
        """583 for 448 + 64 channels."""
        content = self.width - self.rotated
        return content + 2 * self.rotated + -(-content // KV_BLOCK)

    def pack(self, rows: Array) -> Packed:
        """As in `Packing`."""
        entries = self.ops.to_numpy(rows)
        content = self.width - self.rotated
        codes, scales = fp8_blocks(entries[..., :content], KV_BLOCK)
        position = np.ascontiguousarray(entries[..., content:].astype(ml_dtypes.bfloat16)).view(np.uint8)
        return self.ops.asarray(np.concatenate([codes, position, formats.e8m0_encode(scales)], axis=-1))

    def unpack(self, packed: Packed) -> Array:
        """As in `Packing`."""
        content = self.width - self.rotated
        codes, position, scales = np.split(self.ops.to_numpy(packed), [content, content + 2 * self.rotated], axis=-1)
        values = _scaled(formats.fp8_decode(codes), scales, KV_BLOCK, self.dtype)
        turned = np.ascontiguousarray(position).view(ml_dtypes.bfloat16).astype(self.dtype)
        return self.ops.asarray(np.concatenate([values, turned], axis=-1))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A packing has no state: forks of a cache share it, and with it the backend."""
        return self


@dataclass(frozen=True)
class KeyPacking:
    """An indexer key: two FP4 codes per byte, then a scale byte per 32 codes."""

    ops: Ops
    width: int
    dtype: np.dtype[Any]

    @property
    def row_bytes(self) -> int:
        """68 for 128 channels."""
        return self.width // 2 + -(-self.width // FP4_BLOCK)

    def pack(self, rows: Array) -> Packed:
        """As in `Packing`."""
        codes, scales = fp4_blocks(self.ops.to_numpy(rows))
        return self.ops.asarray(np.concatenate([formats.fp4_pack(codes), formats.e8m0_encode(scales)], axis=-1))

    def unpack(self, packed: Packed) -> Array:
        """As in `Packing`."""
        codes, scales = np.split(self.ops.to_numpy(packed), [self.width // 2], axis=-1)
        return self.ops.asarray(_scaled(formats.fp4_unpack(codes), scales, FP4_BLOCK, self.dtype))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """As for `EntryPacking`."""
        return self


class PackedRecentRows(RecentRows):
    """The window's rows as bytes."""

    def __init__(self, packing: Packing, like: RecentRows) -> None:
        """like: the float rows whose sizes these have."""
        batch, capacity, _ = like.rows.shape
        super().__init__(packing.ops, batch, like.keep, capacity - like.keep - 1, packing.row_bytes, np.dtype(np.uint8))
        self.packing = packing

    def extend(self, rows: Array, span: Span) -> Array:
        """As in `RecentRows`; the span's own rows come back as the bytes hold them."""
        return self.packing.unpack(super().extend(self.packing.pack(rows), span))


class PackedEntries(Entries):
    """Compressed entries, or indexer keys, as bytes."""

    def __init__(self, packing: Packing, like: Entries) -> None:
        """like: the float entries whose sizes these have."""
        super().__init__(packing.ops, len(like.rows), packing.row_bytes, np.dtype(np.uint8))
        self.packing = packing

    def write(self, rows: Array, chosen: Index, slots: Index, count: int) -> None:
        """As in `Entries`."""
        super().write(self.packing.pack(rows), chosen, slots, count)

    def first(self, count: int) -> Array:
        """As in `Entries`, but not a view."""
        return self.packing.unpack(super().first(count))


def _scaled(values: Array, scales: Bytes, block: int, dtype: np.dtype[Any]) -> Array:
    """values [..., K] float32 times the scale of their block, scales [..., ⌈K/block⌉] E8M0: exact in any float."""
    spread = np.repeat(formats.e8m0_decode(scales), block, axis=-1)[..., : values.shape[-1]]
    scaled: Array = values.astype(dtype) * spread.astype(dtype)
    return scaled
