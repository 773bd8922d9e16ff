"""What this machine's processor can do, and how many threads a kernel may use."""

import os

import llvmlite.binding as llvm

PORTABLE_VARIABLE = "DSV4_NUMBA_PORTABLE"
"""Set to anything but 0 before the import, this leaves out what is special to a processor; results are the same."""

PORTABLE = os.environ.get(PORTABLE_VARIABLE, "0") not in ("", "0")


def _features() -> frozenset[str]:
    """The processor's features as LLVM names them."""
    return frozenset(name for name, present in llvm.get_host_cpu_features().items() if present)


FEATURES = _features()

PERMUTES = not PORTABLE and {"avx512f", "avx512bw", "avx512vl"} <= FEATURES
"""Whether one instruction picks 16 float32 from a register: then a table of 16 FP4 values needs no memory."""

CONVERTS_HALF = not PORTABLE and {"avx512f", "avx512bw"} <= FEATURES
"""Whether one instruction widens 16 float16, which a byte of FP8 nearly is."""

LOOKS_UP_BYTES = CONVERTS_HALF and "avx512vbmi" in FEATURES
"""Whether one instruction looks up 64 bytes in a table of 128, which hold one byte of every value of FP8."""

MULTIPLIES_BFLOATS = not PORTABLE and {"avx512f", "avx512bw", "avx512bf16"} <= FEATURES
"""Whether one instruction adds two products of bfloat16 to each of 16 float32."""

MULTIPLIES_BYTES = not PORTABLE and {"avx512f", "avx512bw", "avx512vnni"} <= FEATURES
"""Whether one instruction adds four products of bytes to each of 16 whole numbers."""
