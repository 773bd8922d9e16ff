"""The Numba backend: the operations that gain from machine code, on the processor of this machine.

Importing it sets how long the threads of a finished kernel wait for the next one before they sleep, unless the user has
said so: see `cpu`.
"""

from dsv4_accel.numba.backend import NumbaOps

__all__ = ["NumbaOps"]
