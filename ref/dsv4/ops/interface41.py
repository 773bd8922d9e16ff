"""The operations that only V4.1 has, beside those of V4 in `dsv4.ops.interface`.

A backend has them all, as methods of the class below its own; it overrides those that it makes faster.
"""

from dsv4.ops.candidates import index_candidates, index_top_k_among
from dsv4.ops.engram import engram_gate, engram_rows
from dsv4.ops.moe41 import mx_expert, mx_experts, route41
from dsv4.ops.quantise import fake_quant_nvfp4


class Ops41:
    """V4.1's own operations. The signature, the shapes, the dtypes and the errors are those of the NumPy functions."""

    fake_quant_nvfp4 = staticmethod(fake_quant_nvfp4)

    index_candidates = staticmethod(index_candidates)
    index_top_k_among = staticmethod(index_top_k_among)

    route41 = staticmethod(route41)
    mx_expert = staticmethod(mx_expert)
    mx_experts = staticmethod(mx_experts)

    engram_rows = staticmethod(engram_rows)
    engram_gate = staticmethod(engram_gate)


OPERATIONS_41 = tuple(name for name in vars(Ops41) if not name.startswith("_"))
"""The names of all of them."""
