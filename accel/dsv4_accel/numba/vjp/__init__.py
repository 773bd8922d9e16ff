"""Vector-Jacobian products as machine code: mirrors dsv4.learn.vjp where kernels gain.

Matrix products are NumPy's, whose BLAS is faster; what lies between them goes through memory once instead of once for
each operator. A kernel keeps to the thread that calls it, since training splits a batch over threads itself. What the
kernels do not take, float64 first of all, goes to dsv4.learn.vjp.
"""

from collections.abc import Callable
from typing import Any

from dsv4.learn.vjp import VJPS as NUMPY
from dsv4_accel.numba.vjp.mhc import mhc_collapse, mhc_mix
from dsv4_accel.numba.vjp.moe import expert, experts
from dsv4_accel.numba.vjp.norm import rms_norm, rms_scale
from dsv4_accel.numba.vjp.rope import rope

OURS: dict[str, Callable[..., Any]] = {
    "rms_norm": rms_norm,
    "rms_scale": rms_scale,
    "rope": rope,
    "mhc_collapse": mhc_collapse,
    "mhc_mix": mhc_mix,
    "experts": experts,
    "expert": expert,
}
"""The functions of this package, by the names of their operations."""

VJPS = NUMPY | OURS
"""Those, and NumPy's for the other operations: a table for `DerivedOps`."""
