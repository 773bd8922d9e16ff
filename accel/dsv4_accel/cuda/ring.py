"""The rows that a cache gains: mirrors extend_ring and write_entries of dsv4.ops.Ops, one launch each."""

from typing import Any

import numpy as np

from dsv4.ops.places import Completed, Ring
from dsv4_accel.cuda.device import Device
from dsv4_accel.cuda.source import kernels
from dsv4_accel.cuda.vectors import VECTOR

FILE = "ring.cu"
THREADS = 128


def extend_ring(device: Device, stored: Any, rows: Any, ring: Ring) -> tuple[Any, Any] | None:
    """As Ops.extend_ring; None for what no kernel takes."""
    kind = _kind(stored, rows)
    if kind is None:
        return None
    (batch, length, width), whole = rows.shape, device.compact(stored)
    joined = device.empty((batch, ring.keep + length, width), rows.dtype)
    positions = ring.positions.placed_starts, ring.positions.placed_counts
    arguments = whole, device.compact(rows), joined, *map(device.compact, positions)
    _launch(
        device,
        f"extend_ring_{kind}",
        batch * (ring.capacity + length),
        *arguments,
        ring.capacity,
        ring.keep,
        length,
        width,
    )
    return whole, joined


def extend_pending(
    device: Device, stored: tuple[Any, Any], rows: tuple[Any, Any], ape: Any, ring: Ring
) -> tuple[tuple[Any, Any], tuple[Any, Any]] | None:
    """As Ops.extend_pending; None for what no kernel takes."""
    kv, score = rows
    if {_kind(*pair) for pair in zip(stored, rows, strict=True)} != {"vectors"} or ape.dtype != np.float32:
        return None
    if kv.shape != score.shape or ape.shape[1:] != kv.shape[2:]:
        return None
    batch, length, width = kv.shape
    whole = tuple(map(device.compact, stored))
    joined = tuple(device.empty((batch, ring.keep + length, width), np.float32) for _ in range(2))
    positions = map(device.compact, (ring.positions.placed_starts, ring.positions.placed_counts))
    arguments = *whole, *map(device.compact, (kv, score, ape)), *joined, *positions
    blocks, sizes = (batch * (ring.capacity + length), 2), (ring.capacity, ring.keep, length, width, len(ape))
    device.launch(kernels(FILE)["extend_pending"], blocks, THREADS, (*arguments, *sizes))
    return (whole[0], whole[1]), (joined[0], joined[1])


def write_entries(device: Device, stored: Any, rows: Any, completed: Completed) -> Any | None:
    """As Ops.write_entries; None for what no kernel takes."""
    kind = _kind(stored, rows)
    if kind is None:
        return None
    (batch, most, width), whole = rows.shape, device.compact(stored)
    positions = completed.positions.placed_starts, completed.positions.placed_counts
    arguments = whole, device.compact(rows), *map(device.compact, positions)
    _launch(device, f"write_entries_{kind}", batch * most, *arguments, completed.ratio, stored.shape[1], most, width)
    return whole


def _kind(stored: Any, rows: Any) -> str | None:
    """The end of the kernels' names for rows of this dtype and width."""
    if not rows.size or rows.dtype != stored.dtype:
        return None
    if rows.dtype == np.uint8:
        return "bytes"
    return "vectors" if rows.dtype == np.float32 and rows.shape[2] % VECTOR == 0 else None


def _launch(device: Device, name: str, blocks: int, *arguments: Any) -> None:
    device.launch(kernels(FILE)[name], (blocks,), THREADS, arguments)
