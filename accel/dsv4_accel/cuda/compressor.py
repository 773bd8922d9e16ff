"""Compressing runs of tokens into entries: mirrors dsv4.ops.compressor."""

from typing import Any

import numpy as np

from dsv4.ops import compressor as reference
from dsv4.ops.places import Blocks
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
        _launch(device, "compress", slots, out, device.compact(kv), device.compact(score), out, slots)
    return out


def compress_blocks(device: Device, kv: Array, score: Array, blocks: Blocks) -> Array | None:
    """As Ops.compress_blocks; None for what no kernel takes."""
    (batch, rows, width), completed, starts = kv.shape, blocks.completed, blocks.completed.positions.placed_starts
    if not are_float32(kv, score) or kv.shape != score.shape or (blocks.overlaps and width % 2):
        return None
    most, parts = int(completed.counts.max()), 1 + blocks.overlaps
    out = device.empty((batch, most, width // parts), np.float32)
    if out.size:
        given = device.compact(kv), device.compact(score), device.compact(starts)
        sizes = rows, blocks.keep, completed.ratio, most, width
        _launch(device, "compress_blocks", parts * completed.ratio, out, *given, out, *sizes)
    return out


def _launch(device: Device, name: str, slots: int, out: Array, *arguments: Any) -> None:
    """Run a kernel that makes `out` [..., channels] from so many slots each."""
    sharing = WARPS if slots >= MANY_SLOTS else 1
    channels = out.shape[-1]
    blocks = out.size // channels, -(-channels // (WARP * WARPS // sharing))
    device.launch(kernels("compressor.cu")[name], blocks, WARP * WARPS, (*arguments, channels, sharing))
