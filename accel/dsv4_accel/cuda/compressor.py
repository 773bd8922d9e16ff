"""Compressing runs of tokens into entries: mirrors dsv4.ops.compressor."""

import numpy as np

from dsv4.ops import compressor as reference
from dsv4.ops.types import Array
from dsv4_accel.cuda.device import Device, on_host
from dsv4_accel.cuda.source import kernels

THREADS = 128


def compress(device: Device, kv: Array, score: Array) -> Array:
    """As dsv4.ops.compressor.compress."""
    if (
        kv.dtype != np.float32
        or score.dtype != np.float32
        or kv.shape != score.shape
        or kv.ndim < 2
        or not kv.shape[-2]
    ):
        return on_host(device, reference.compress, kv, score)
    *leading, slots, channels = kv.shape
    out = device.empty((*leading, channels), np.float32)
    if out.size:
        blocks = out.size // channels, -(-channels // THREADS)
        arguments = device.compact(kv), device.compact(score), out, slots, channels
        device.launch(kernels("compressor.cu")["compress"], blocks, THREADS, arguments)
    return out
