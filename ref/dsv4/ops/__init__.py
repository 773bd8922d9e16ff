"""The definition of every operation of DeepSeek-V4, as pure NumPy functions, one file per part of the report.

The functions write to none of their arguments and follow the dtype of their input: in float32 they are the model, in
float64 the ground truth that every backend is measured against. `Ops` gathers them as the interface of a backend.
"""

from dsv4.ops.interface import ARRAY_FUNCTIONS, OPERATIONS, SAMPLING_FUNCTIONS, Ops
from dsv4.ops.interface41 import OPERATIONS_41
from dsv4.ops.moe import Expert, Routing
from dsv4.ops.quantise import Fp4Weight, Fp8Weight, Weight, dequantise

__all__ = [
    "ARRAY_FUNCTIONS",
    "OPERATIONS",
    "OPERATIONS_41",
    "SAMPLING_FUNCTIONS",
    "Expert",
    "Fp4Weight",
    "Fp8Weight",
    "Ops",
    "Routing",
    "Weight",
    "dequantise",
]
