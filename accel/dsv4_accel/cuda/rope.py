"""Rotary position embedding: mirrors dsv4.ops.rope."""

import numpy as np

from dsv4.ops import rope as reference
from dsv4.ops.types import Array, Ints
from dsv4_accel.cuda.device import Device, on_host
from dsv4_accel.cuda.source import kernels

THREADS = 256
NUMBERS_PER_BLOCK = 4096


def rope(device: Device, x: Array, positions: Ints, frequencies: Array) -> Array:
    """As dsv4.ops.rope.rope."""
    pairs, channels = len(frequencies), x.shape[-1]
    fits = x.ndim in (3, 4) and positions.shape == x.shape[:2] and 0 < 2 * pairs <= channels
    if x.dtype != np.float32 or not fits:
        return on_host(device, reference.rope, x, positions, frequencies)
    out = device.empty(x.shape, np.float32)
    if out.size:
        heads = x.shape[2] if x.ndim == 4 else 1
        per_block = max(1, min(heads, NUMBERS_PER_BLOCK // channels))
        device.launch(
            kernels("rope.cu")["rope"],
            (int(np.prod(x.shape[:2])), -(-heads // per_block)),
            THREADS,
            (
                *(device.compact(x), device.compact(positions.astype(np.int64, copy=False))),
                *(device.compact(frequencies.astype(np.float64, copy=False)), out),
                *(heads, channels, pairs, per_block),
            ),
            shared=2 * pairs * 4,
        )
    return out
