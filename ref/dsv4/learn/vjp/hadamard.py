"""The Walsh–Hadamard rotation and its vector-Jacobian product (report §2.3.1)."""

from collections.abc import Callable
from typing import NamedTuple

from dsv4.ops import Ops
from dsv4.ops.types import Array


class HadamardGradients(NamedTuple):
    """The gradient of `hadamard`."""

    d_x: Array


def hadamard(x: Array) -> tuple[Array, Callable[[Array], HadamardGradients]]:
    """`ops.hadamard` and its pullback: the same rotation, since the matrix is symmetric. Source: report §2.3.1."""

    def pull(d_result: Array) -> HadamardGradients:
        return HadamardGradients(Ops.hadamard(d_result))

    return Ops.hadamard(x), pull
