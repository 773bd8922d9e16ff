"""The Walsh–Hadamard rotation: mirrors dsv4.ops.hadamard."""

import numpy as np

from dsv4.ops import hadamard as reference
from dsv4.ops.quantise import FP4_BLOCK
from dsv4.ops.types import Array
from dsv4_accel.cuda.device import Device, on_host
from dsv4_accel.cuda.quantise import keep_rounded
from dsv4_accel.cuda.source import kernels

THREADS = 256
ROWS_OF_128 = THREADS // 32
"""How many rows of 128 channels a block takes, one a warp."""

MOST_ROUNDED = 512
"""How many rows at most are rounded to FP4 as well, which is wanted if activations are: the heads of eight tokens."""

NUMBERS_PER_BLOCK = 1024
MAX_WIDTH = 8192
"""What fits into 32 KiB of shared memory."""


def hadamard(device: Device, x: Array) -> Array:
    """As dsv4.ops.hadamard.hadamard."""
    width = x.shape[-1]
    if x.dtype != np.float32 or not 1 <= width <= MAX_WIDTH or width & (width - 1):
        return on_host(device, reference.hadamard, x)
    out = device.empty(x.shape, np.float32)
    if out.size:
        rows, factor, given = out.size // width, width**-0.5, device.compact(x)
        is_rounded = rows <= MOST_ROUNDED and width % FP4_BLOCK == 0
        rounded = device.empty(x.shape, np.float32) if is_rounded else None
        if width == 128:
            kernel = kernels("hadamard.cu")["hadamard_of_128"]
            device.launch(kernel, (-(-rows // ROWS_OF_128),), THREADS, (given, out, rounded, rows, factor))
        else:
            kernel, per_block = kernels("hadamard.cu")["hadamard"], max(1, NUMBERS_PER_BLOCK // width)
            arguments = given, out, rounded, rows, width, per_block, factor
            device.launch(kernel, (-(-rows // per_block),), THREADS, arguments, shared=4 * per_block * width)
        if rounded is not None:
            keep_rounded(device, out, "fp4", FP4_BLOCK, 0, rounded)
    return out
