"""RMSNorm: mirrors dsv4.ops.norm."""

import math

import ml_dtypes
import numpy as np

from dsv4.ops import norm as reference
from dsv4.ops.types import Array
from dsv4_accel.cuda.activations import empty_rows, keep
from dsv4_accel.cuda.device import Device, on_host
from dsv4_accel.cuda.source import kernels
from dsv4_accel.cuda.vectors import are_float32

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
    if _few(x.shape):
        return _prepared(device, "rms_norm_prepared", (x,), weight, x.shape, eps)
    return _normalised(device, x, *weight_of(device, weight), eps)


def collapse_norm(device: Device, streams: Array, pre: Array, weight: Array, eps: float) -> Array | None:
    """As Ops.collapse_norm; None for more than a few tokens, and for other than four streams."""
    *leading, n, channels = streams.shape
    fits = streams.ndim == 4 and n == 4 and pre.shape == streams.shape[:3] and weight.shape == (channels,)
    if not fits or not are_float32(streams, pre) or not _few((*leading, channels)):
        return None
    return _prepared(device, "collapse_norm_prepared", (streams, pre), weight, (*leading, channels), eps)


def weight_of(device: Device, weight: Array) -> tuple[Array | None, Array | None]:
    """A weight in float32 or in bfloat16, the other None, as the kernels take it (norm.cuh)."""
    if weight.dtype == ml_dtypes.bfloat16:
        return None, device.compact(weight)
    return device.compact(weight.astype(np.float32, copy=False)), None


def rms_scale(device: Device, x: Array, eps: float) -> Array:
    """As dsv4.ops.norm.rms_scale."""
    if x.dtype != np.float32:
        return on_host(device, reference.rms_scale, x, eps)
    return _normalised(device, x, None, None, eps)


def _few(shape: tuple[int, ...]) -> bool:
    """Whether these are so few rows that what products make of them is made as well, and of a width that is taken."""
    return 0 < math.prod(shape[:-1]) <= MOST_PREPARED and shape[-1] % 4 == 0 and 0 < shape[-1] <= LONG


def _prepared(
    device: Device, kernel: str, given: tuple[Array, ...], weight: Array, shape: tuple[int, ...], eps: float
) -> Array:
    """Few rows from what a kernel normalises, and what products make of them."""
    out, rows, width = device.empty(shape, np.float32), math.prod(shape[:-1]), shape[-1]
    made = [empty_rows(device, rows, width, rounds) for rounds in (True, False)]
    arguments = *map(device.compact, given), *weight_of(device, weight), out, *made[0], *made[1], width, eps
    device.launch(kernels("norm.cu")[kernel], (rows,), WARP if width <= SHORT else THREADS, arguments)
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
