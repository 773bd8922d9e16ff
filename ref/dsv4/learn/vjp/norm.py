"""RMSNorm and its vector-Jacobian product, with a learned weight and without (report §2.3.3)."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from dsv4.ops.types import Array


class NormGradients(NamedTuple):
    """The gradients of `rms_norm`."""

    d_x: Array
    d_weight: Array


class ScaleGradients(NamedTuple):
    """The gradient of `rms_scale`."""

    d_x: Array


def rms_norm(x: Array, weight: Array, eps: float) -> tuple[Array, Callable[[Array], NormGradients]]:
    """`ops.rms_norm`, y = u · w with u = x / r and r = sqrt(mean x² + eps), and its pullback.

        d_w = Σ d_y · u, over all rows        d_x = rms_scale's pullback of d_y · w

    Source: report §2.3.3.
    """
    scaled, pull_scaled = rms_scale(x, eps)
    of_dtype = weight.astype(x.dtype, copy=False)

    def pull(d_result: Array) -> NormGradients:
        d_weight = (d_result * scaled).reshape(-1, len(weight)).sum(axis=0)
        return NormGradients(pull_scaled(d_result * of_dtype).d_x, d_weight.astype(weight.dtype, copy=False))

    return scaled * of_dtype, pull


def rms_scale(x: Array, eps: float) -> tuple[Array, Callable[[Array], ScaleGradients]]:
    """`ops.rms_scale`, u = x / r with r = sqrt(mean x² + eps) over the d channels, and its pullback.

        d_x = (d_u − u (d_u · u) / d) / r

    Source: report §2.3.3.
    """
    width = x.shape[-1]
    root = np.sqrt(_dot(x, x) / width + x.dtype.type(eps))
    scaled: Array = x / root

    def pull(d_scaled: Array) -> ScaleGradients:
        return ScaleGradients((d_scaled - scaled * (_dot(d_scaled, scaled) / width)) / root)

    return scaled, pull


def _dot(left: Array, right: Array) -> Array:
    """Σ over the last axis of the products. [..., d] twice -> [..., 1]"""
    dot: Array = np.einsum("...d,...d->...", left, right)
    return dot[..., None]
