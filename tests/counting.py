"""A backend that counts the multiply–adds that it is asked for, by part of the model and number format.

It knows what a product belongs to from the weight: the checkpoint that it wraps remembers under which name it has
given out each array. It knows nothing of configurations or of how costs are predicted.
"""

from collections import Counter

import numpy as np

from dsv4.ops import Fp4Weight, Fp8Weight, Ops, Weight
from dsv4.parameters import parameters

UNCOUNTED = {
    *("embedding", "rms_norm", "rms_scale", "rope", "hadamard", "fake_quant_fp8", "fake_quant_fp4"),
    *("compress", "overlap", "top_k", "route", "route_by_id", "asarray", "place", "to_numpy", "zeros", "write"),
    *("extend_ring", "write_entries", "compress_blocks", "pack_rows", "unpack_rows", "require_room"),
    *("extend_pending", "collapse_norm", "norm_rope", "turned_attention", "add_expert", "fake_quant_content"),
    "index_queries",
}
"""What touches each number once or a few times, looks it up, moves it, or computes nothing."""


class NamedCheckpoint:
    """A checkpoint that remembers the parameter behind each array that it gives out."""

    def __init__(self, checkpoint) -> None:
        self._checkpoint = checkpoint
        self._table = parameters(checkpoint.config)
        self._given = {}

    def __getattr__(self, name):
        return getattr(self._checkpoint, name)

    def weight(self, name: str) -> Weight:
        weight = self._checkpoint.weight(name)
        self._given[id(numbers_of(weight))] = weight, self._table[name].part
        return weight

    def part(self, weight: Weight) -> str:
        """The part of the model that a weight belongs to."""
        return self._given[id(numbers_of(weight))][1]


class CountingOps(Ops):
    """NumPy's backend, counting in `asked[part, format]` what it is asked to multiply."""

    def __init__(self, checkpoint: NamedCheckpoint) -> None:
        self.checkpoint = checkpoint
        self.asked = Counter()

    def linear(self, x, weight, round_inputs=False):
        exact = "bf16" if _is_packed(weight) else _dtype(weight)
        rounds = round_inputs and _is_packed(weight)
        self._count_matrix(x.size // weight.shape[1], weight, _rounded(weight) if rounds else exact)
        return Ops.linear(x, weight, round_inputs)

    def linears(self, x, weights, round_inputs=False):
        return tuple(self.linear(x, weight, round_inputs) for weight in weights)

    def grouped_linear(self, x, weight, groups):
        self._count_matrix(x.size // (groups * weight.shape[1]), weight, "bf16")
        return Ops.grouped_linear(x, weight, groups)

    def expert(self, x, share, matrices, limit, round_inputs):
        self._count_expert(len(x), matrices)
        return Ops.expert(x, share, matrices, limit, round_inputs)

    def experts(self, x, routing, expert_list, limit, round_inputs):
        for number, visits in zip(*np.unique(routing.indices, return_counts=True), strict=True):
            self._count_expert(visits, expert_list[number])
        return Ops.experts(x, routing, expert_list, limit, round_inputs)

    def sparse_attention(self, queries, window, window_index, entries, entry_index, attn_sink):
        keys = (window_index >= 0).sum() + (entry_index >= 0).sum()
        _, _, heads, c = queries.shape
        self.asked["core attention", "bf16"] += int(keys) * heads * 2 * c
        return Ops.sparse_attention(queries, window, window_index, entries, entry_index, attn_sink)

    def index_top_k(self, queries, keys, weights, visible, k):
        scores = int(visible.sum())
        _, _, heads, width = queries.shape
        self.asked["indexer scores", "fp4"] += scores * heads * width
        self.asked["indexer scores", "bf16"] += scores * heads
        return Ops.index_top_k(queries, keys, weights, visible, k)

    def index_scores(self, queries, keys, weights):
        raise AssertionError("asked for all scores at once, which only an observer needs")

    def mhc_weights(self, streams, fn, *others):
        self._count_matrix(streams[..., 0, 0].size, fn, _dtype(fn))
        return Ops.mhc_weights(streams, fn, *others)

    def mhc_head_weights(self, streams, fn, *others):
        self._count_matrix(streams[..., 0, 0].size, fn, _dtype(fn))
        return Ops.mhc_head_weights(streams, fn, *others)

    def mhc_collapse(self, streams, pre):
        self.asked["mhc", "f32"] += streams.size
        return Ops.mhc_collapse(streams, pre)

    def mhc_mix(self, streams, output, post, comb):
        self.asked["mhc", "f32"] += post.size * output.shape[-1] + comb.size * output.shape[-1]
        return Ops.mhc_mix(streams, output, post, comb)

    def _count_matrix(self, rows: int, weight: Weight, number_format: str) -> None:
        self.asked[self.checkpoint.part(weight), number_format] += int(rows) * weight.shape[0] * weight.shape[1]

    def _count_expert(self, rows: int, matrices) -> None:
        for matrix in matrices:
            self._count_matrix(rows, matrix, _rounded(matrix) if _is_packed(matrix) else _dtype(matrix))


def numbers_of(weight: Weight) -> np.ndarray:
    """The array of a weight that holds its numbers, or their codes."""
    match weight:
        case Fp8Weight(codes, _):
            return codes
        case Fp4Weight(packed, _):
            return packed
    return weight


def _is_packed(weight: Weight) -> bool:
    return isinstance(weight, Fp8Weight | Fp4Weight)


def _rounded(weight: Weight) -> str:
    """The format of a product with a packed weight whose input is rounded to FP8."""
    return "fp4 × fp8" if isinstance(weight, Fp4Weight) else "fp8"


def _dtype(weight: np.ndarray) -> str:
    return {"bfloat16": "bf16", "float32": "f32"}[weight.dtype.name]
