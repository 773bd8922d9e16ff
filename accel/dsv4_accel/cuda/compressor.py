"""Compressing runs of tokens into entries: mirrors dsv4.ops.compressor."""

import numpy as np

from dsv4.ops import compressor as reference
from dsv4.ops.types import Array
from dsv4_accel.cuda.device import Device, on_host
from dsv4_accel.cuda.source import kernels
from dsv4_accel.cuda.vectors import are_float32

WARP, WARPS = 32, 8
MANY_SLOTS = 32
"""From how many slots on all warps of a block share a channel."""


def compress(device: Device, kv: Array, score: Array) -> Array:
    """As dsv4.ops.compressor.compress."""
    fits = kv.shape == score.shape and kv.ndim > 1 and kv.shape[-2] > 0
    if not fits or not are_float32(kv, score):
        return on_host(device, reference.compress, kv, score)
    *leading, slots, channels = kv.shape
    out = device.empty((*leading, channels), np.float32)
    if out.size:
        sharing = WARPS if slots >= MANY_SLOTS else 1
        blocks = out.size // channels, -(-channels // (WARP * WARPS // sharing))
        arguments = device.compact(kv), device.compact(score), out, slots, channels, sharing
        device.launch(kernels("compressor.cu")["compress"], blocks, WARP * WARPS, arguments)
    return out
