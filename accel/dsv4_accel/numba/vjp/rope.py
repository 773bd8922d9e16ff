"""Rotary position embedding's vector-Jacobian product: mirrors dsv4.learn.vjp.rope."""

from collections.abc import Callable

from dsv4.learn.vjp.rope import RopeGradients
from dsv4.learn.vjp.rope import rope as in_numpy
from dsv4.ops.types import Array, Ints
from dsv4_accel.numba.arrays import are_float32
from dsv4_accel.numba.rope import rotated


def rope(x: Array, positions: Ints, frequencies: Array) -> tuple[Array, Callable[[Array], RopeGradients]]:
    """As dsv4.learn.vjp.rope.rope: the rotation by the negative positions, which needs nothing kept."""
    if not are_float32(x):
        return in_numpy(x, positions, frequencies)

    def pull(d_result: Array) -> RopeGradients:
        return RopeGradients(rotated(d_result, -positions, frequencies, work=0))

    return rotated(x, positions, frequencies, work=0), pull
