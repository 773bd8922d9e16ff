"""The global gradient norm, and gradients that do not exceed it (DeepSeek-V3 §4.2: clip norm 1.0)."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from dsv4.ops.types import Array


class Clipped(NamedTuple):
    """Gradients after clipping, and their norm before it."""

    gradients: dict[str, Array]
    norm: float


def clip_gradients(gradients: Mapping[str, Array], clip_norm: float) -> Clipped:
    """g · min(1, clip_norm / ‖g‖), ‖g‖ being the Euclidean norm over all gradients together.

    gradients: arrays of any shapes by name; clip_norm: positive. Returns new gradients of the same names, shapes and
    dtypes, and ‖g‖ from sums in float64. Nothing is written to. A norm that is not finite comes back as it was found,
    with the gradients as they were: what to do about it is for the caller to say.
    Source: V3's report (2412.19437) §4.2; the report on V4 does not mention clipping.
    """
    squares = (np.sum(np.square(gradient, dtype=np.float64)) for gradient in gradients.values())
    norm = float(np.sqrt(sum(squares)))
    if not np.isfinite(norm) or norm <= clip_norm:
        return Clipped(dict(gradients), norm)
    return Clipped({name: gradient * (clip_norm / norm) for name, gradient in gradients.items()}, norm)
