"""Rotary position embedding: mirrors dsv4.ops.rope."""

from typing import Any

import numpy as np

from dsv4.ops import rope as reference
from dsv4.ops.types import Array, Ints
from dsv4_accel.cuda.device import PLAIN_SHARED_BYTES, Device, on_host
from dsv4_accel.cuda.norm import SHORT, weight_of
from dsv4_accel.cuda.quantise import keep_rounded
from dsv4_accel.cuda.source import kernels

THREADS = 256
ROWS_PER_BLOCK = 16
"""How many heads, of one token or of several, a block of eight warps takes."""

MOST_ENTRIES = 8
"""How many key-value entries at most are rounded as soon as they are turned, which is wanted if activations are."""

ENTRY_BLOCK = 64
"""Channels of an entry that share a scale: the number of the kernel."""

MOST_ANGLES = PLAIN_SHARED_BYTES // 8
"""How many sines and cosines fit into a block's shared memory."""


def rope(device: Device, x: Array, positions: Ints, frequencies: Array) -> Array:
    """As dsv4.ops.rope.rope."""
    pairs, channels = len(frequencies), x.shape[-1]
    if not can_be_turned(x, positions, frequencies):
        return on_host(device, reference.rope, x, positions, frequencies)
    by_vectors = channels % 4 == 0 and pairs % 2 == 0
    return _turned(device, "rope_vectors" if by_vectors else "rope", x, positions, frequencies)


def norm_rope(
    device: Device, x: Array, weight: Array | None, eps: float, positions: Ints, frequencies: Array
) -> Array | None:
    """As Ops.norm_rope; None for what no kernel takes."""
    channels, pairs = x.shape[-1], len(frequencies)
    fits = can_be_turned(x, positions, frequencies) and channels % 4 == 0 and pairs % 2 == 0 and channels <= SHORT
    if not fits or (weight is not None and weight.shape != (channels,)):
        return None
    given = (None, None) if weight is None else weight_of(device, weight)
    is_entry = x.ndim == 3 and 0 < len(x) * x.shape[1] <= MOST_ENTRIES and 2 * pairs < channels
    entries = device.empty(x.shape, np.float32) if is_entry else None
    out = _turned(device, "norm_rope", x, positions, frequencies, *given, entries, eps)
    if entries is not None:
        keep_rounded(device, out, "fp8", ENTRY_BLOCK, 2 * pairs, entries)
    return out


def can_be_turned(x: Array, positions: Ints, frequencies: Array) -> bool:
    """Whether a kernel takes these: float32 of shapes that fit."""
    pairs = len(frequencies)
    fits = x.ndim in (3, 4) and positions.shape == x.shape[:2] and 0 < 2 * pairs <= x.shape[-1] and pairs <= MOST_ANGLES
    return bool(fits and x.dtype == np.float32)


def _turned(device: Device, kernel: str, x: Array, positions: Ints, frequencies: Array, *more: Any) -> Array:
    """What a kernel makes of heads [B, S, h, channels], or [B, S, channels]."""
    out = device.empty(x.shape, np.float32)
    if out.size:
        pairs, channels = len(frequencies), x.shape[-1]
        tokens, heads = x.shape[0] * x.shape[1], x.shape[2] if x.ndim == 4 else 1
        heads_per_block = min(heads, ROWS_PER_BLOCK)
        tokens_per_block = max(1, min(ROWS_PER_BLOCK // heads_per_block, MOST_ANGLES // pairs))
        device.launch(
            kernels("rope.cu")[kernel],
            (-(-tokens // tokens_per_block), -(-heads // heads_per_block)),
            THREADS,
            (
                *(device.compact(x), device.compact(positions.astype(np.int64, copy=False))),
                *(device.compact(frequencies.astype(np.float32, copy=False)), out),
                *(tokens, heads, channels, pairs, tokens_per_block, heads_per_block, *more),
            ),
            shared=8 * tokens_per_block * pairs,
        )
    return out
