"""The rows that a ring of a cache gains: mirrors extend_ring of dsv4.ops.Ops."""

from typing import Any

import numpy as np
from numba import prange, types

from dsv4.ops.places import Ring
from dsv4.ops.types import Ints
from dsv4_accel.numba.arrays import compact
from dsv4_accel.numba.compile import kernel, merged, reads, writes
from dsv4_accel.numba.memory import copy


def extend_ring(stored: Any, rows: Any, ring: Ring) -> tuple[Any, Any] | None:
    """As Ops.extend_ring; None for what no kernel takes."""
    extend = KERNELS.get(rows.dtype)
    if extend is None or stored.dtype != rows.dtype or not stored.flags.carray:
        return None
    (batch, length, width), positions = rows.shape, ring.positions
    joined = np.empty((batch, ring.keep + length, width), rows.dtype)
    extend(joined.size, compact(rows), _integers(positions.starts), _integers(positions.counts), stored, joined)
    return stored, joined


def _integers(numbers: Ints) -> Ints:
    return compact(numbers.astype(np.int64, copy=False))


@merged
def _extend(rows, starts, counts, stored, joined):
    """rows [B, S, width]; starts, counts [B]; stored [B, capacity, width]; joined [B, keep + S, width]"""
    batch, length = rows.shape[:2]
    capacity, keep = stored.shape[1], joined.shape[1] - length
    for place in prange(batch * (keep + length)):  # all old rows, before any new one takes its slot
        b, column = place // (keep + length), place % (keep + length)
        if column < keep:
            copy(stored[b, (starts[b] - keep + column) % capacity], joined[b, column])
        else:
            copy(rows[b, column - keep], joined[b, column])
    for place in prange(batch * length):
        b, token = place // length, place % length
        if counts[b] - capacity <= token < counts[b]:
            copy(rows[b, token], stored[b, (starts[b] + token) % capacity])


POSITIONS = reads(types.int64, 1)


@kernel(reads(types.float32, 3), POSITIONS, POSITIONS, writes(types.float32, 3), writes(types.float32, 3))
def _extend_floats(rows, starts, counts, stored, joined):
    _extend(rows, starts, counts, stored, joined)


@kernel(reads(types.uint8, 3), POSITIONS, POSITIONS, writes(types.uint8, 3), writes(types.uint8, 3))
def _extend_bytes(rows, starts, counts, stored, joined):
    _extend(rows, starts, counts, stored, joined)


KERNELS = {np.dtype(np.float32): _extend_floats, np.dtype(np.uint8): _extend_bytes}
