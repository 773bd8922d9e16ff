"""The Numba backend: the operations that gain from machine code, on the processor of this machine."""

from dsv4_accel.numba.backend import NumbaOps

__all__ = ["NumbaOps"]
