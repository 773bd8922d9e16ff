"""Rotary position embedding: mirrors dsv4.ops.rope."""

import numpy as np

from dsv4.ops import rope as reference
from dsv4.ops.types import Array, Ints
from dsv4_accel.cuda.device import PLAIN_SHARED_BYTES, Device, on_host
from dsv4_accel.cuda.source import kernels

THREADS = 256
ROWS_PER_BLOCK = 16
"""How many heads, of one token or of several, a block of eight warps takes."""

MOST_ANGLES = PLAIN_SHARED_BYTES // 8
"""How many sines and cosines fit into a block's shared memory."""


def rope(device: Device, x: Array, positions: Ints, frequencies: Array) -> Array:
    """As dsv4.ops.rope.rope."""
    pairs, channels = len(frequencies), x.shape[-1]
    fits = x.ndim in (3, 4) and positions.shape == x.shape[:2] and 0 < 2 * pairs <= channels and pairs <= MOST_ANGLES
    if x.dtype != np.float32 or not fits:
        return on_host(device, reference.rope, x, positions, frequencies)
    out = device.empty(x.shape, np.float32)
    if out.size:
        tokens, heads = x.shape[0] * x.shape[1], x.shape[2] if x.ndim == 4 else 1
        heads_per_block = min(heads, ROWS_PER_BLOCK)
        tokens_per_block = max(1, min(ROWS_PER_BLOCK // heads_per_block, MOST_ANGLES // pairs))
        device.launch(
            kernels("rope.cu")["rope" if channels % 4 or pairs % 2 else "rope_vectors"],
            (-(-tokens // tokens_per_block), -(-heads // heads_per_block)),
            THREADS,
            (
                *(device.compact(x), device.compact(positions.astype(np.int64, copy=False))),
                *(device.compact(frequencies.astype(np.float32, copy=False)), out),
                *(tokens, heads, channels, pairs, tokens_per_block, heads_per_block),
            ),
            shared=8 * tokens_per_block * pairs,
        )
    return out
