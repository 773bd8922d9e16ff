"""Rounding activations to FP8 and FP4 and back: mirrors dsv4.ops.quantise."""

from collections.abc import Callable

import numpy as np

from dsv4.ops import quantise as reference
from dsv4.ops.quantise import FP4_BLOCK
from dsv4.ops.types import Array
from dsv4_accel.cuda.device import Device, on_host
from dsv4_accel.cuda.kept import Recent
from dsv4_accel.cuda.source import kernels

THREADS = 256
WARP = 32
NUMBERS_PER_LANE = 4
"""How many channels of a block one thread rounds, where a warp is enough for the block."""


def fake_quant_fp8(device: Device, x: Array, block: int) -> Array:
    """As dsv4.ops.quantise.fake_quant_fp8."""
    return _fake_quant(device, x, block, reference.fake_quant_fp8)


def fake_quant_fp4(device: Device, x: Array, block: int = FP4_BLOCK) -> Array:
    """As dsv4.ops.quantise.fake_quant_fp4."""
    return _fake_quant(device, x, block, reference.fake_quant_fp4)


def fake_quant_content(device: Device, x: Array, block: int, kept: int) -> Array | None:
    """As Ops.fake_quant_content; None for what no kernel takes."""
    width = x.shape[-1]
    lanes = block // NUMBERS_PER_LANE
    fits = x.dtype == np.float32 and not (width % NUMBERS_PER_LANE or kept % NUMBERS_PER_LANE) and 0 < kept < width
    if not fits or block != NUMBERS_PER_LANE * _lanes(block):
        return None
    known = _rounded_before(device, x, "fp8", block, kept)
    if known is not None:
        return known
    out = device.empty(x.shape, np.float32)
    if out.size:
        rows = out.size // width
        threads = rows * -(-width // block) * lanes
        arguments = device.compact(x), out, rows, width, kept, lanes
        device.launch(kernels("quantise.cu")["fake_quant_fp8_content"], (-(-threads // THREADS),), THREADS, arguments)
    return out


MOST_ROUNDED = 4
"""Of the last arrays."""

Key = tuple[int, int, str, int, int]
"""Where an array lies, its size, the format, how many channels share a scale, how many stay as they are."""

_rounded: Recent[Key, Array] = Recent(MOST_ROUNDED)
"""What was rounded together with what made it, while that lives."""


def keep_rounded(device: Device, x: Array, form: str, block: int, kept: int, rounded: Array) -> None:
    """Remember x rounded, all but the last `kept` channels. It does not change. form: fp4 or fp8."""
    _rounded.keep((device.address(x), x.size, form, block, kept), x, rounded)


def _rounded_before(device: Device, x: Array, form: str, block: int, kept: int) -> Array | None:
    known = _rounded.get((device.address(x), x.size, form, block, kept))
    return known[1] if known is not None and known[0]() is x else None


def _fake_quant(device: Device, x: Array, block: int, function: Callable[[Array, int], Array]) -> Array:
    """function: the reference's, whose name is the kernel's."""
    if x.dtype != np.float32 or x.ndim == 0 or block < 1:
        return on_host(device, function, x, block)
    known = _rounded_before(device, x, function.__name__[-3:], block, 0)
    if known is not None:
        return known
    out = device.empty(x.shape, np.float32)
    if out.size:
        width = x.shape[-1]
        block = min(block, width)
        lanes = _lanes(block)
        sizes: tuple[int, ...]
        if block == NUMBERS_PER_LANE * lanes and width % block == 0:
            vectors = out.size // NUMBERS_PER_LANE
            blocks, name, sizes = -(-vectors // THREADS), f"{function.__name__}_whole", (vectors, lanes)
        else:
            rows = out.size // width
            threads = rows * -(-width // block) * lanes
            blocks, name, sizes = -(-threads // THREADS), function.__name__, (rows, width, block, lanes)
        device.launch(kernels("quantise.cu")[name], (blocks,), THREADS, (device.compact(x), out, *sizes))
    return out


def _lanes(block: int) -> int:
    """How many threads share a block of channels: a power of two, at most a warp."""
    wanted = -(-block // NUMBERS_PER_LANE)
    return min(WARP, 1 << (wanted - 1).bit_length())
