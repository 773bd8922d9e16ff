"""RMSNorm: mirrors dsv4.ops.norm."""

import ml_dtypes
import numpy as np

from dsv4.ops import norm as reference
from dsv4.ops.types import Array
from dsv4_accel.cuda.device import Device, on_host
from dsv4_accel.cuda.source import kernels

THREADS = 256
ROWS_PER_BLOCK = THREADS // 32
"""How many short rows a block takes, one a warp."""

SHORT, LONG = 1024, 8192
"""The most channels that a warp and a block can keep in registers."""


def rms_norm(device: Device, x: Array, weight: Array, eps: float) -> Array:
    """As dsv4.ops.norm.rms_norm."""
    if x.dtype != np.float32 or weight.shape != x.shape[-1:]:
        return on_host(device, reference.rms_norm, x, weight, eps)
    if weight.dtype == ml_dtypes.bfloat16:
        return _normalised(device, x, None, device.compact(weight), eps)
    return _normalised(device, x, device.compact(weight.astype(np.float32, copy=False)), None, eps)


def rms_scale(device: Device, x: Array, eps: float) -> Array:
    """As dsv4.ops.norm.rms_scale."""
    if x.dtype != np.float32:
        return on_host(device, reference.rms_scale, x, eps)
    return _normalised(device, x, None, None, eps)


def _normalised(device: Device, x: Array, weight: Array | None, bfloats: Array | None, eps: float) -> Array:
    """weight, bfloats: the weight in float32 or in bfloat16; without both there is none."""
    out = device.empty(x.shape, np.float32)
    if out.size:
        width = x.shape[-1]
        rows = out.size // width
        sizes: tuple[int, ...] = (width,)
        blocks, name = rows, "rms_norm"
        if width % 4 == 0 and width <= SHORT:
            blocks, name, sizes = -(-rows // ROWS_PER_BLOCK), "rms_norm_short", (rows, width)
        elif width % 4 == 0 and width <= LONG:
            name = "rms_norm_long"
        arguments = device.compact(x), weight, bfloats, out, *sizes, eps
        device.launch(kernels("norm.cu")[name], (blocks,), THREADS, arguments)
    return out
