"""RMSNorm: mirrors dsv4.ops.norm."""

import ml_dtypes
import numpy as np

from dsv4.ops import norm as reference
from dsv4.ops.types import Array
from dsv4_accel.cuda.activations import empty_rows, keep
from dsv4_accel.cuda.device import Device, on_host
from dsv4_accel.cuda.source import kernels

THREADS, WARP = 256, 32
ROWS_PER_BLOCK = THREADS // WARP
"""How many short rows a block takes, one a warp."""

SHORT, LONG = 1024, 8192
"""The most channels that a warp and a block can keep in registers."""

MOST_PREPARED = 8
"""How many rows at most are laid out for products at once, which for many would cost more than another launch."""


def rms_norm(device: Device, x: Array, weight: Array, eps: float) -> Array:
    """As dsv4.ops.norm.rms_norm."""
    if x.dtype != np.float32 or weight.shape != x.shape[-1:]:
        return on_host(device, reference.rms_norm, x, weight, eps)
    floats, bfloats = None, device.compact(weight)
    if weight.dtype != ml_dtypes.bfloat16:
        floats, bfloats = device.compact(weight.astype(np.float32, copy=False)), None
    rows, width = (x.size // x.shape[-1], x.shape[-1]) if x.size else (0, 0)
    if 0 < rows <= MOST_PREPARED and width % 4 == 0 and width <= LONG:
        return _prepared(device, x, floats, bfloats, rows, eps)
    return _normalised(device, x, floats, bfloats, eps)


def rms_scale(device: Device, x: Array, eps: float) -> Array:
    """As dsv4.ops.norm.rms_scale."""
    if x.dtype != np.float32:
        return on_host(device, reference.rms_scale, x, eps)
    return _normalised(device, x, None, None, eps)


def _prepared(device: Device, x: Array, weight: Array | None, bfloats: Array | None, rows: int, eps: float) -> Array:
    """As `_normalised`, for few rows: what products make of them is made as well."""
    out, width = device.empty(x.shape, np.float32), x.shape[-1]
    made = [empty_rows(device, rows, width, rounds) for rounds in (True, False)]
    arguments = device.compact(x), weight, bfloats, out, *made[0], *made[1], width, eps
    device.launch(kernels("norm.cu")["rms_norm_prepared"], (rows,), WARP if width <= SHORT else THREADS, arguments)
    for rounds, each in zip((True, False), made, strict=True):
        keep(device, out, width, rounds, each)
    return out


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
