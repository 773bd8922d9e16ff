"""The interface that every backend implements: the operations, gathered as the methods of one class.

A backend is a subclass of `Ops` with a `name` of its own; it overrides what it makes faster, and need not override
anything. The signature, the shapes, the dtypes and the errors of each method are those of the NumPy function behind
it. The methods of PLACES say where arrays live; those of TOGETHER are several operations in a row.
"""

from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt

from dsv4.ops.attention import sparse_attention
from dsv4.ops.compressor import compress, overlap
from dsv4.ops.hadamard import hadamard
from dsv4.ops.indexer import index_scores, index_top_k, top_k
from dsv4.ops.interface41 import Ops41
from dsv4.ops.linear import embedding, grouped_linear, linear, linears
from dsv4.ops.map_arrays import map_arrays
from dsv4.ops.mhc import mhc_collapse, mhc_head_weights, mhc_mix, mhc_weights
from dsv4.ops.moe import Expert, expert, experts, route, route_by_id
from dsv4.ops.norm import rms_norm, rms_scale
from dsv4.ops.packed_rows import RowFormat, Rows, unpacked
from dsv4.ops.places import Blocks, Completed, Ring
from dsv4.ops.quantise import Weight, fake_quant_fp4, fake_quant_fp8
from dsv4.ops.rope import rope
from dsv4.ops.types import Array, Bytes, Ints

T = TypeVar("T", bound=np.generic)


ARRAY_FUNCTIONS = ("concatenate", "ones_like", "repeat", "where", "zeros_like")
"""The functions of NumPy that the model calls with a backend's arrays; NEP 18 leads them to the backend's own."""

SAMPLING_FUNCTIONS = ("append", "argmax", "argsort", "cumsum", "searchsorted", "stack", "where", "zeros_like")
"""Those that generation calls besides: tokens are chosen where the logits are."""


class Ops(Ops41):
    """The NumPy backend, and the base of all others.

    A backend's arrays need not be NumPy's. Between the operations the model adds, multiplies, divides and compares
    them, takes parts of them by index, with indices of the backend or of NumPy, calls methods that NumPy's arrays have,
    and the ARRAY_FUNCTIONS. `write`, `extend_ring`, `extend_pending` and `write_entries` alone change an array, so a
    backend may keep what it has made of any other for as long as it lives. Keys, window and entries may come as
    `PackedRows`, which a backend without kernels for them unpacks (`dsv4.ops.packed_rows.unpacked`). Generation calls
    the SAMPLING_FUNCTIONS, too, and assigns to parts of arrays of its own.
    """

    name = "numpy"

    batch_invariant: tuple[str, ...] = ()
    """The dtypes in which a token's results are the same bits alone and in any batch, and however a prompt is cut into
    chunks. NumPy: none, since its products add in an order that depends on how many rows they have."""

    embedding = staticmethod(embedding)
    linear = staticmethod(linear)
    linears = staticmethod(linears)
    grouped_linear = staticmethod(grouped_linear)

    rms_norm = staticmethod(rms_norm)
    rms_scale = staticmethod(rms_scale)
    rope = staticmethod(rope)
    hadamard = staticmethod(hadamard)
    fake_quant_fp8 = staticmethod(fake_quant_fp8)
    fake_quant_fp4 = staticmethod(fake_quant_fp4)

    compress = staticmethod(compress)
    overlap = staticmethod(overlap)
    index_scores = staticmethod(index_scores)
    top_k = staticmethod(top_k)
    index_top_k = staticmethod(index_top_k)
    sparse_attention = staticmethod(sparse_attention)

    mhc_weights = staticmethod(mhc_weights)
    mhc_head_weights = staticmethod(mhc_head_weights)
    mhc_collapse = staticmethod(mhc_collapse)
    mhc_mix = staticmethod(mhc_mix)

    route = staticmethod(route)
    route_by_id = staticmethod(route_by_id)
    experts = staticmethod(experts)
    expert = staticmethod(expert)

    @staticmethod
    def asarray(array: npt.NDArray[T]) -> npt.NDArray[T]:
        """The array where this backend computes. NumPy: as it is, without a copy."""
        return np.asarray(array)

    def place(self, weight: Weight) -> Weight:
        """A weight where this backend computes, stored as it is: the caller does so once for each weight that it reads.

        The operations take it as they take any weight, and a backend may keep with it what it need not find out again.
        So a placed weight must not be changed in place: one that changes, as in training, is placed anew or not at all.
        """
        placed: Weight = map_arrays(weight, self.asarray)
        return placed

    @staticmethod
    def to_numpy(array: npt.NDArray[T]) -> npt.NDArray[T]:
        """The array as a NumPy array. NumPy: as it is, without a copy."""
        return np.asarray(array)

    @staticmethod
    def zeros(shape: tuple[int, ...], dtype: npt.DTypeLike = np.float32) -> Array:
        """An array of zeros where this backend computes."""
        return np.zeros(shape, dtype)

    @staticmethod
    def write(rows: Array, index: Any, values: Array) -> Array:
        """The rows with values at this index: what a cache does with each new token.

        rows: an array of `zeros`, or what `write` gave; index: as in rows[index]. The rows that were given must not be
        used any more: a backend may write to them, as NumPy does, or make new ones.
        """
        rows[index] = values
        return rows

    def extend_ring(self, stored: Array, rows: Array, ring: Ring) -> tuple[Array, Array]:
        """Put the rows of some positions into a ring, and give them back behind those that they follow.

        stored [B, capacity, width], as for `write`; rows [B, S, width] of the same dtype. Returns the ring that goes on
        from here, and [B, keep + S, width]: column j of row b is position starts[b] − keep + j as it was stored, and
        anything where that is negative; the last S are the rows.
        """
        joined = np.concatenate([stored[ring.before], rows], axis=1)
        return self.write(stored, ring.slots, rows[ring.rows]), joined

    def write_entries(self, stored: Array, rows: Array, completed: Completed) -> Array:
        """Put entries at their slots: stored [B, T, width], as for `write`; rows [B, N, width] of the same dtype.

        Row i of sequence b is the i-th entry that it completes; what it does not complete is left out. Returns the
        entries that go on from here.
        """
        return self.write(stored, completed.slots, rows[completed.rows])

    def compress_blocks(self, kv: Array, score: Array, blocks: Blocks) -> Array:
        """The entries of the blocks that some positions complete: `compress` of their tokens' slots, with `overlap`.

        kv, score [B, keep + S, c] as `extend_ring` gives them, or 2c channels with overlap; what stands before the
        sequence has no share then. Returns [B, N, c]; what a sequence with fewer blocks has behind its own is anything.
        """
        kv, score = kv[blocks.tokens], score[blocks.tokens]  # [B, N, ρ, c] or [B, 1 + N, ρ, 2c]
        if blocks.overlaps:
            kv, score = np.where(blocks.before_start, 0, kv), np.where(blocks.before_start, -np.inf, score)
            kv, score = self.overlap(kv), self.overlap(score)  # [B, N, 2ρ, c]
        return self.compress(kv, score)

    def extend_pending(
        self, stored: tuple[Array, Array], rows: tuple[Array, Array], ape: Array, ring: Ring
    ) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        """Put a compressor's kv and score into their rings, the score with what `ape` adds at its place in a block.

        stored, rows: both as for `extend_ring`; ape [ρ, width]: for each place in a block of ρ tokens. Returns both
        rings and both runs of rows, as `extend_ring` gives them.
        """
        kv, score = rows
        score = score + ape[ring.positions.placed % len(ape)].astype(score.dtype, copy=False)
        kv_stored, kv = self.extend_ring(stored[0], kv, ring)
        score_stored, score = self.extend_ring(stored[1], score, ring)
        return (kv_stored, score_stored), (kv, score)

    def collapse_norm(self, streams: Array, pre: Array, weight: Array, eps: float) -> Array:
        """What a sub-layer reads: `rms_norm` of `mhc_collapse`. streams [B, S, n, d], pre [B, S, n] -> [B, S, d]"""
        return self.rms_norm(self.mhc_collapse(streams, pre), weight, eps)

    def norm_rope(self, x: Array, weight: Array | None, eps: float, positions: Ints, frequencies: Array) -> Array:
        """`rope` of `rms_norm`, or of `rms_scale` where there is no weight. Shapes as for `rope`."""
        x = self.rms_scale(x, eps) if weight is None else self.rms_norm(x, weight, eps)
        return self.rope(x, positions, frequencies)

    def turned_attention(
        self,
        queries: Array,
        window: Rows,
        window_index: Ints,
        entries: Rows,
        entry_index: Ints,
        attn_sink: Array,
        positions: Ints,
        frequencies: Array,
    ) -> Array:
        """`rope` of `sparse_attention`: [B, S, H, c], each turned by one of the positions [B, S]."""
        o = self.sparse_attention(queries, window, window_index, entries, entry_index, attn_sink)
        return self.rope(o, positions, frequencies)

    def add_expert(self, routed: Array, x: Array, matrices: Expert, limit: float, round_inputs: bool) -> Array:
        """routed [T, d] and what one `expert`, which every token visits, makes of x [T, d]."""
        shared = self.expert(x, np.ones_like(x[:, 0]), matrices, limit, round_inputs)
        total: Array = routed + shared
        return total

    def fake_quant_content(self, x: Array, block: int, kept: int) -> Array:
        """x [..., K] with all but the last `kept` channels, 0 < kept < K, rounded by `fake_quant_fp8`."""
        content, rest = x[..., :-kept], x[..., -kept:]
        return np.concatenate([self.fake_quant_fp8(content, block), rest], axis=-1)

    def index_queries(self, x: Array, positions: Ints, frequencies: Array, rounds: bool) -> Array:
        """The indexer's queries: `hadamard` of `rope`, and where `rounds` says so, `fake_quant_fp4` of that.

        x [B, S, h, D], each turned by one of the positions [B, S]. Returns the same shape and dtype.
        """
        rotated = self.hadamard(self.rope(x, positions, frequencies))
        return self.fake_quant_fp4(rotated) if rounds else rotated

    def pack_rows(self, rows: Array, form: RowFormat) -> Bytes:
        """Rows of floats [..., channels] as the bytes of a format, [..., width] uint8, which a packed cache keeps."""
        packed: Bytes = self.asarray(form.pack(self.to_numpy(rows)))
        return packed

    def unpack_rows(self, rows: Rows, dtype: npt.DTypeLike) -> Array:
        """The numbers of packed rows [..., channels] in `dtype`; others as they are. ValueError as in `unpacked`."""
        return self.asarray(unpacked(map_arrays(rows, self.to_numpy), dtype))

    @staticmethod
    def require_room(nbytes: int) -> None:
        """Raises BackendError if weights of so many bytes do not fit where this backend computes.

        NumPy: never, since weights stay in their files, mapped into memory.
        """

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Copies of what a backend computes, such as the fork of a cache, share the backend."""
        return self


PLACES = (
    *("asarray", "place", "to_numpy", "zeros", "write", "extend_ring", "write_entries"),
    *("compress_blocks", "pack_rows", "unpack_rows", "require_room"),
)
"""What is no operation, but says where arrays live, how a cache stores its rows and how they are found."""

TOGETHER = (
    "extend_pending",
    "collapse_norm",
    "norm_rope",
    "turned_attention",
    "add_expert",
    "fake_quant_content",
    "index_queries",
)
"""What the model always computes one after the other, defined by operations: a backend may do it at once."""

OPERATIONS = tuple(
    name
    for name in vars(Ops)
    if not name.startswith("_") and name not in ("name", "batch_invariant", *PLACES, *TOGETHER)
)
"""The names of all operations."""
