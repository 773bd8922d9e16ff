"""Packed rows of a cache, which no kernel reads: mirrors dsv4.ops.packed_rows."""

from typing import Any

from dsv4.ops import packed_rows as reference
from dsv4.ops.map_arrays import map_arrays
from dsv4.ops.packed_rows import PackedRows, Rows
from dsv4.ops.types import Array
from dsv4_accel.cuda.device import Device


def unpacked(device: Device, rows: Rows, dtype: Any) -> Array:
    """The numbers of rows on the device: packed ones go to the host, are unpacked there, and come back as floats."""
    if not isinstance(rows, PackedRows):
        return rows
    placed: Array = device.asarray(reference.unpacked(map_arrays(rows, device.to_numpy), dtype))
    return placed
