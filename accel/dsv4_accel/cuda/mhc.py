"""Hyper-connections: mirrors dsv4.ops.mhc."""

import numpy as np

from dsv4.ops import mhc as reference
from dsv4.ops.mhc import MhcWeights
from dsv4.ops.types import Array
from dsv4_accel.cuda.device import Device, on_host
from dsv4_accel.cuda.source import kernels

FILE = "mhc.cu"
PART = 1024
TOKENS = 4
MAX_STREAMS = 8
"""These three are constants of the kernels."""

PROJECT_THREADS, MIX_THREADS, CHANNEL_THREADS = 256, 128, 256


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
    if pre.size:
        tokens, sums, parts, width = _project(device, streams, fn)
        blocks = -(-tokens * MAX_STREAMS // MIX_THREADS)
        numbers = tokens, parts, width, n, iterations, eps, norm_eps
        arguments = sums, device.compact(base), device.compact(scale), pre, post, comb, *numbers
        device.launch(kernels(FILE)["mhc_weights"], (blocks,), MIX_THREADS, arguments)
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
        tokens, sums, parts, width = _project(device, streams, fn)
        arguments = sums, device.compact(base), device.compact(scale), pre, tokens, parts, width, n, eps, norm_eps
        device.launch(kernels(FILE)["mhc_head_weights"], (-(-tokens * n // MIX_THREADS),), MIX_THREADS, arguments)
    return pre


def mhc_collapse(device: Device, streams: Array, pre: Array) -> Array:
    """As dsv4.ops.mhc.mhc_collapse."""
    if not _are_float(streams, pre) or streams.ndim != 4 or pre.shape != streams.shape[:3]:
        return on_host(device, reference.mhc_collapse, streams, pre)
    batch, length, n, channels = streams.shape
    out = device.empty((batch, length, channels), np.float32)
    if out.size:
        blocks = batch * length, -(-channels // CHANNEL_THREADS)
        arguments = device.compact(streams), device.compact(pre), out, n, channels
        device.launch(kernels(FILE)["mhc_collapse"], blocks, CHANNEL_THREADS, arguments)
    return out


def mhc_mix(device: Device, streams: Array, output: Array, post: Array, comb: Array) -> Array:
    """As dsv4.ops.mhc.mhc_mix."""
    batch, length, n, channels = streams.shape
    expected = (batch, length, channels), (batch, length, n), (batch, length, n, n)
    fit = (output.shape, post.shape, comb.shape) == expected and n <= MAX_STREAMS
    if not fit or not _are_float(streams, output, post, comb):
        return on_host(device, reference.mhc_mix, streams, output, post, comb)
    out = device.empty(streams.shape, np.float32)
    if out.size:
        blocks = batch * length, -(-channels // CHANNEL_THREADS)
        arguments = *map(device.compact, (streams, output, post, comb)), out, n, channels
        device.launch(kernels(FILE)["mhc_mix"], blocks, CHANNEL_THREADS, arguments)
    return out


def _project(device: Device, streams: Array, fn: Array) -> tuple[int, Array, int, int]:
    """How many tokens there are, the sums of each part of their channels, how many parts, and how many channels."""
    tokens, width, rows = streams.shape[0] * streams.shape[1], fn.shape[1], fn.shape[0]
    parts = -(-width // PART)
    sums = device.empty((tokens, parts, rows + 1), np.float32)
    arguments = device.compact(streams), device.compact(fn), sums, tokens, width, rows
    device.launch(kernels(FILE)["mhc_project"], (parts, -(-tokens // TOKENS)), PROJECT_THREADS, arguments)
    return tokens, sums, parts, width


def _fit(rows: int, scales: int, streams: Array, fn: Array, base: Array, scale: Array) -> bool:
    """Whether the kernels take these: float32 of the right shapes, with few enough streams."""
    width = streams.shape[2] * streams.shape[3]
    found = fn.shape, base.shape, scale.shape
    few = 0 < streams.shape[2] <= MAX_STREAMS and width > 0
    return few and found == ((rows, width), (rows,), (scales,)) and _are_float(streams, fn, base, scale)


def _are_float(*arrays: Array) -> bool:
    return all(array.dtype == np.float32 for array in arrays)
