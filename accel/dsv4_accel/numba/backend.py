"""The class that gathers the kernels behind the interface of all backends."""

from typing import Any

from dsv4.ops import Ops
from dsv4.ops.places import Ring
from dsv4.ops.quantise import Weight
from dsv4_accel.numba.attention import sparse_attention
from dsv4_accel.numba.candidates import index_candidates, index_top_k_among
from dsv4_accel.numba.compressor import compress
from dsv4_accel.numba.engram import engram_gate
from dsv4_accel.numba.hadamard import hadamard
from dsv4_accel.numba.indexer import index_scores, index_top_k, top_k
from dsv4_accel.numba.linear import grouped_linear, linear, linears
from dsv4_accel.numba.mhc import mhc_collapse, mhc_head_weights, mhc_mix, mhc_weights
from dsv4_accel.numba.moe import expert, experts
from dsv4_accel.numba.moe41 import mx_expert, mx_experts, route41
from dsv4_accel.numba.norm import rms_norm, rms_scale
from dsv4_accel.numba.quantise import fake_quant_fp4, fake_quant_fp8, fake_quant_nvfp4
from dsv4_accel.numba.ring import extend_ring
from dsv4_accel.numba.rope import rope
from dsv4_accel.numba.route import route, route_by_id
from dsv4_accel.numba.weights import place


class NumbaOps(Ops):
    """The operations on CPU cores. Arrays are NumPy's; what is not overridden here gains nothing and is inherited."""

    name = "numba"
    batch_invariant = ("float32",)

    def place(self, weight: Weight) -> Weight:
        """As in `Ops`."""
        return place(weight)

    def extend_ring(self, stored: Any, rows: Any, ring: Ring) -> tuple[Any, Any]:
        """As in `Ops`."""
        return extend_ring(stored, rows, ring) or super().extend_ring(stored, rows, ring)

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

    fake_quant_nvfp4 = staticmethod(fake_quant_nvfp4)

    index_candidates = staticmethod(index_candidates)
    index_top_k_among = staticmethod(index_top_k_among)

    route41 = staticmethod(route41)
    mx_expert = staticmethod(mx_expert)
    mx_experts = staticmethod(mx_experts)

    engram_gate = staticmethod(engram_gate)
