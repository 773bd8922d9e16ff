"""Rotary position embedding and its vector-Jacobian product (report §2.3.3)."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from dsv4.ops.types import Array, Ints


class RopeGradients(NamedTuple):
    """The gradient of `rope`."""

    d_x: Array


def rope(x: Array, positions: Ints, frequencies: Array) -> tuple[Array, Callable[[Array], RopeGradients]]:
    """`ops.rope` and its pullback: the rotation back, by the negative angles, since a rotation's transpose undoes it.

    With channels 2i and 2i+1 as one complex number and φ its angle, y_i = e^{jφ_i} x_i and d_x_i = e^{−jφ_i} d_y_i.
    Source: report §2.3.3; code: apply_rotary_emb, interleaved.
    """
    angle = positions.astype(x.dtype)[..., None] * frequencies.astype(x.dtype)  # [B, S, r/2]
    angle = angle.reshape(*positions.shape, *[1] * (x.ndim - 3), len(frequencies))  # [B, S, (1,) r/2]
    rotation = np.empty(angle.shape, np.result_type(x.dtype, np.complex64))
    rotation.real, rotation.imag = np.cos(angle), np.sin(angle)

    def pull(d_result: Array) -> RopeGradients:
        return RopeGradients(_rotate(d_result, rotation.conj()))

    return _rotate(x, rotation), pull


def _rotate(x: Array, rotation: Array) -> Array:
    """The last channels, read as complex numbers, times the rotation; the others as they are. Same shape and dtype."""
    result = np.array(x, order="C")
    pairs = result[..., -2 * rotation.shape[-1] :].view(rotation.dtype)
    pairs *= rotation
    return result
