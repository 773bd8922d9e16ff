"""Hyper-connections: mirrors dsv4.ops.mhc."""

import numpy as np

from dsv4.ops import mhc as reference
from dsv4.ops.mhc import MhcWeights
from dsv4.ops.types import Array
from dsv4_accel.cuda.device import Device, on_host
from dsv4_accel.cuda.rounded_chunks import counters
from dsv4_accel.cuda.source import kernels
from dsv4_accel.cuda.vectors import are_float32

WEIGHTS, STREAMS = "mhc.cu", "mhc_streams.cu"
PART, MAX_STREAMS = 1024, 8
TOKENS_TOGETHER, ROWS_TOGETHER = 8, 6
"""What one warp of `mhc_project` takes. These four are constants of the kernels."""

MANY_TOKENS = 32
"""From how many tokens on a warp takes several together."""

WARP, PROJECT_THREADS, MIX_THREADS, CHANNEL_THREADS = 32, 128, 64, 256


def mhc_weights(
    device: Device, streams: Array, fn: Array, base: Array, scale: Array, iterations: int, eps: float, norm_eps: float
) -> MhcWeights:
    """As dsv4.ops.mhc.mhc_weights."""
    n = streams.shape[2]
    if not _fit((2 + n) * n, 3, streams, fn, base, scale) or iterations < 1:
        return on_host(device, reference.mhc_weights, streams, fn, base, scale, iterations, eps, norm_eps)
    leading = streams.shape[:2]
    pre, post = (device.empty((*leading, n), np.float32) for _ in range(2))
    comb = device.empty((*leading, n, n), np.float32)
    tokens, numbers = streams.shape[0] * streams.shape[1], (iterations, eps, norm_eps)
    if n == 4 and 0 < tokens < MANY_TOKENS and fn.shape[1] % 4 == 0:
        weights = device.compact(base), device.compact(scale), pre, post, comb
        _weigh_few(device, streams, fn, weights, numbers)
    elif pre.size:
        sums, tokens, parts = _project(device, streams, fn)
        lanes, name, count = (4, "mhc_weights_of_four", ()) if n == 4 else (MAX_STREAMS, "mhc_weights", (n,))
        sizes = tokens, parts, fn.shape[1], *count
        arguments = sums, device.compact(base), device.compact(scale), pre, post, comb, *sizes, *numbers
        device.launch(kernels(WEIGHTS)[name], (-(-tokens * lanes // MIX_THREADS),), MIX_THREADS, arguments)
    return MhcWeights(pre, post, comb)


def mhc_head_weights(
    device: Device, streams: Array, fn: Array, base: Array, scale: Array, eps: float, norm_eps: float
) -> Array:
    """As dsv4.ops.mhc.mhc_head_weights."""
    n = streams.shape[2]
    if not _fit(n, 1, streams, fn, base, scale):
        return on_host(device, reference.mhc_head_weights, streams, fn, base, scale, eps, norm_eps)
    pre = device.empty((*streams.shape[:2], n), np.float32)
    if pre.size:
        sums, tokens, parts = _project(device, streams, fn)
        numbers = tokens, parts, fn.shape[1], n, eps, norm_eps
        arguments = sums, device.compact(base), device.compact(scale), pre, *numbers
        blocks = -(-tokens * MAX_STREAMS // MIX_THREADS)
        device.launch(kernels(WEIGHTS)["mhc_head_weights"], (blocks,), MIX_THREADS, arguments)
    return pre


def mhc_collapse(device: Device, streams: Array, pre: Array) -> Array:
    """As dsv4.ops.mhc.mhc_collapse."""
    fit = streams.ndim == 4 and pre.shape == streams.shape[:3] and streams.shape[2] <= MAX_STREAMS
    if not fit or not are_float32(streams, pre):
        return on_host(device, reference.mhc_collapse, streams, pre)
    batch, length, n, channels = streams.shape
    out = device.empty((batch, length, channels), np.float32)
    if out.size:
        arguments = device.compact(streams), device.compact(pre), out
        _launch_by_channels(device, "mhc_collapse", arguments, batch * length, n, channels)
    return out


def mhc_mix(device: Device, streams: Array, output: Array, post: Array, comb: Array) -> Array:
    """As dsv4.ops.mhc.mhc_mix."""
    batch, length, n, channels = streams.shape
    expected = (batch, length, channels), (batch, length, n), (batch, length, n, n)
    fit = (output.shape, post.shape, comb.shape) == expected and n <= MAX_STREAMS
    if not fit or not are_float32(streams, output, post, comb):
        return on_host(device, reference.mhc_mix, streams, output, post, comb)
    out = device.empty(streams.shape, np.float32)
    if out.size:
        arguments = *map(device.compact, (streams, output, post, comb)), out
        _launch_by_channels(device, "mhc_mix", arguments, batch * length, n, channels)
    return out


def _project(device: Device, streams: Array, fn: Array) -> tuple[Array, int, int]:
    """The sums of each part of the tokens' channels [tokens, parts, rows + 1], how many tokens there are and parts."""
    tokens, (rows, width) = streams.shape[0] * streams.shape[1], fn.shape
    parts = -(-width // PART)
    sums = device.empty((tokens, parts, rows + 1), np.float32)
    warps, name = tokens * rows, "mhc_project_odd" if width % 4 else "mhc_project_few"
    if width % 4 == 0 and tokens >= MANY_TOKENS:
        warps, name = -(-tokens // TOKENS_TOGETHER) * -(-rows // ROWS_TOGETHER), "mhc_project"
    blocks = -(-warps * WARP // PROJECT_THREADS), parts
    arguments = device.compact(streams), device.compact(fn), sums, tokens, width, rows
    device.launch(kernels(WEIGHTS)[name], blocks, PROJECT_THREADS, arguments)
    return sums, tokens, parts


def _weigh_few(
    device: Device, streams: Array, fn: Array, weights: tuple[Array, ...], numbers: tuple[float, ...]
) -> None:
    """Products and weights of few tokens of four streams in one launch. weights: base … comb; numbers: the last."""
    (rows, width), tokens = fn.shape, streams.shape[0] * streams.shape[1]
    parts = -(-width // PART)
    sums = device.empty((tokens, parts, rows + 1), np.float32)
    blocks = -(-tokens * rows * WARP // PROJECT_THREADS), parts
    arguments = device.compact(streams), device.compact(fn), sums, counters(device), *weights, tokens, width, *numbers
    device.launch(kernels(WEIGHTS)["mhc_weights_few"], blocks, PROJECT_THREADS, arguments)


def _launch_by_channels(
    device: Device, name: str, arguments: tuple[Array, ...], tokens: int, n: int, channels: int
) -> None:
    """Run a kernel that has a thread for each channel, or the one for four channels of four streams."""
    sizes: tuple[int, ...] = (n, channels)
    if n == 4 and channels % 4 == 0:
        name, sizes = f"{name}_four", (channels // 4,)
    blocks = tokens, -(-sizes[-1] // CHANNEL_THREADS)
    device.launch(kernels(STREAMS)[name], blocks, CHANNEL_THREADS, (*arguments, *sizes))


def _fit(rows: int, scales: int, streams: Array, fn: Array, base: Array, scale: Array) -> bool:
    """Whether the kernels take these: float32 of the right shapes, with few enough streams."""
    width = streams.shape[2] * streams.shape[3]
    found = fn.shape, base.shape, scale.shape
    few = 0 < streams.shape[2] <= MAX_STREAMS and width > 0
    return few and found == ((rows, width), (rows,), (scales,)) and are_float32(streams, fn, base, scale)
