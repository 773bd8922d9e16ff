"""The class that gathers the kernels behind the interface of all backends."""

from collections.abc import Callable
from functools import partial, wraps
from inspect import Parameter, signature
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np

from dsv4.ops import Expert, Ops
from dsv4.ops.places import Blocks, Completed, Ring
from dsv4_accel.cuda.attention import sparse_attention, turned_attention
from dsv4_accel.cuda.compressor import compress, compress_blocks
from dsv4_accel.cuda.device import CupyDevice, Device, on_host, require_room
from dsv4_accel.cuda.hadamard import hadamard
from dsv4_accel.cuda.indexer import index_queries, index_scores, index_top_k, top_k
from dsv4_accel.cuda.linear import embedding, grouped_linear, linear, linears
from dsv4_accel.cuda.matrix import place
from dsv4_accel.cuda.mhc import mhc_collapse, mhc_head_weights, mhc_mix, mhc_weights
from dsv4_accel.cuda.moe import add_expert, expert, experts
from dsv4_accel.cuda.norm import collapse_norm, rms_norm, rms_scale
from dsv4_accel.cuda.packed_rows import pack_rows, unpack_rows
from dsv4_accel.cuda.quantise import fake_quant_content, fake_quant_fp4, fake_quant_fp8
from dsv4_accel.cuda.ring import extend_pending, extend_ring, write_entries
from dsv4_accel.cuda.rope import norm_rope, rope
from dsv4_accel.cuda.route import route, route_by_id

P = ParamSpec("P")
R = TypeVar("R")


def _on_device(function: Callable[Concatenate[Device, P], R]) -> Any:
    """A function of a device as a method of the backend that computes there."""

    def method(self: "CudaOps", *arguments: P.args, **named: P.kwargs) -> R:
        return function(self.device, *arguments, **named)

    return wraps(function)(method)


def _on_host(function: Callable[P, R]) -> Any:
    """A function of the reference as a method of the backend: V4.1's own operations have no kernels."""

    def method(self: "CudaOps", *arguments: P.args, **named: P.kwargs) -> R:
        return on_host(self.device, partial(function, **named), *arguments)

    expected = signature(function)
    method.__signature__ = expected.replace(  # type: ignore[attr-defined]
        parameters=[Parameter("self", Parameter.POSITIONAL_ONLY), *expected.parameters.values()]
    )
    return method


class CudaOps(Ops):
    """The operations on an NVIDIA GPU. Arrays are CuPy's."""

    name = "cuda"
    batch_invariant = ("float32",)

    def __init__(self, device: Device | None = None) -> None:
        """device: where to compute; without one the current CUDA device. Raises BackendError if there is none."""
        self.device = CupyDevice() if device is None else device

    asarray = _on_device(lambda device, array: device.asarray(array))
    to_numpy = _on_device(lambda device, array: device.to_numpy(array))
    place = _on_device(place)
    zeros = _on_device(lambda device, shape, dtype=np.float32: device.zeros(shape, dtype))
    pack_rows = _on_device(pack_rows)
    unpack_rows = _on_device(unpack_rows)
    require_room = _on_device(require_room)

    def extend_ring(self, stored: Any, rows: Any, ring: Ring) -> tuple[Any, Any]:
        """As in `Ops`."""
        return extend_ring(self.device, stored, rows, ring) or super().extend_ring(stored, rows, ring)

    def write_entries(self, stored: Any, rows: Any, completed: Completed) -> Any:
        """As in `Ops`."""
        written = write_entries(self.device, stored, rows, completed)
        return super().write_entries(stored, rows, completed) if written is None else written

    def compress_blocks(self, kv: Any, score: Any, blocks: Blocks) -> Any:
        """As in `Ops`."""
        entries = compress_blocks(self.device, kv, score, blocks)
        return super().compress_blocks(kv, score, blocks) if entries is None else entries

    def extend_pending(
        self, stored: tuple[Any, Any], rows: tuple[Any, Any], ape: Any, ring: Ring
    ) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
        """As in `Ops`."""
        extended = extend_pending(self.device, stored, rows, ape, ring)
        return extended or super().extend_pending(stored, rows, ape, ring)

    def collapse_norm(self, streams: Any, pre: Any, weight: Any, eps: float) -> Any:
        """As in `Ops`."""
        x = collapse_norm(self.device, streams, pre, weight, eps)
        return super().collapse_norm(streams, pre, weight, eps) if x is None else x

    def norm_rope(self, x: Any, weight: Any, eps: float, positions: Any, frequencies: Any) -> Any:
        """As in `Ops`."""
        turned = norm_rope(self.device, x, weight, eps, positions, frequencies)
        return super().norm_rope(x, weight, eps, positions, frequencies) if turned is None else turned

    def turned_attention(
        self,
        queries: Any,
        window: Any,
        window_index: Any,
        entries: Any,
        entry_index: Any,
        attn_sink: Any,
        positions: Any,
        frequencies: Any,
    ) -> Any:
        """As in `Ops`."""
        given = queries, window, window_index, entries, entry_index, attn_sink, positions, frequencies
        o = turned_attention(self.device, *given)
        return super().turned_attention(*given) if o is None else o

    def add_expert(self, routed: Any, x: Any, matrices: Expert, limit: float, round_inputs: bool) -> Any:
        """As in `Ops`."""
        total = add_expert(self.device, routed, x, matrices, limit, round_inputs)
        return super().add_expert(routed, x, matrices, limit, round_inputs) if total is None else total

    def fake_quant_content(self, x: Any, block: int, kept: int) -> Any:
        """As in `Ops`."""
        rounded = fake_quant_content(self.device, x, block, kept)
        return super().fake_quant_content(x, block, kept) if rounded is None else rounded

    def index_queries(self, x: Any, positions: Any, frequencies: Any, rounds: bool) -> Any:
        """As in `Ops`."""
        queries = index_queries(self.device, x, positions, frequencies, rounds)
        return super().index_queries(x, positions, frequencies, rounds) if queries is None else queries

    embedding = _on_device(embedding)
    linear = _on_device(linear)
    linears = _on_device(linears)
    grouped_linear = _on_device(grouped_linear)

    rms_norm = _on_device(rms_norm)
    rms_scale = _on_device(rms_scale)
    rope = _on_device(rope)
    hadamard = _on_device(hadamard)
    fake_quant_fp8 = _on_device(fake_quant_fp8)
    fake_quant_fp4 = _on_device(fake_quant_fp4)

    compress = _on_device(compress)
    index_scores = _on_device(index_scores)
    top_k = _on_device(top_k)
    index_top_k = _on_device(index_top_k)
    sparse_attention = _on_device(sparse_attention)

    mhc_weights = _on_device(mhc_weights)
    mhc_head_weights = _on_device(mhc_head_weights)
    mhc_collapse = _on_device(mhc_collapse)
    mhc_mix = _on_device(mhc_mix)

    fake_quant_nvfp4 = _on_host(Ops.fake_quant_nvfp4)
    index_candidates = _on_host(Ops.index_candidates)
    index_top_k_among = _on_host(Ops.index_top_k_among)
    route41 = _on_host(Ops.route41)
    mx_expert = _on_host(Ops.mx_expert)
    mx_experts = _on_host(Ops.mx_experts)
    engram_rows = _on_host(Ops.engram_rows)
    engram_gate = _on_host(Ops.engram_gate)

    route = _on_device(route)
    route_by_id = _on_device(route_by_id)
    experts = _on_device(experts)
    expert = _on_device(expert)
