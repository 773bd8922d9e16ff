"""RMSNorm: mirrors dsv4.ops.norm."""

import numpy as np

from dsv4.ops import norm as reference
from dsv4.ops.types import Array
from dsv4_accel.cuda.device import Device, on_host
from dsv4_accel.cuda.source import kernels

THREADS = 256


def rms_norm(device: Device, x: Array, weight: Array, eps: float) -> Array:
    """As dsv4.ops.norm.rms_norm."""
    if x.dtype != np.float32 or weight.shape != x.shape[-1:]:
        return on_host(device, reference.rms_norm, x, weight, eps)
    return _normalised(device, x, device.compact(weight.astype(np.float32, copy=False)), eps)


def rms_scale(device: Device, x: Array, eps: float) -> Array:
    """As dsv4.ops.norm.rms_scale."""
    if x.dtype != np.float32:
        return on_host(device, reference.rms_scale, x, eps)
    return _normalised(device, x, None, eps)


def _normalised(device: Device, x: Array, weight: Array | None, eps: float) -> Array:
    out = device.empty(x.shape, np.float32)
    if out.size:
        width = x.shape[-1]
        arguments = device.compact(x), weight, out, width, eps
        device.launch(kernels("norm.cu")["rms_norm"], (out.size // width,), THREADS, arguments)
    return out
