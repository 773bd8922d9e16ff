"""Arrays as kernels read them in vectors of four floats."""

import numpy as np

from dsv4.ops.types import Array
from dsv4_accel.cuda.device import VECTOR_BYTES, Device

VECTOR = VECTOR_BYTES // 4
"""Floats that one load brings."""


def are_float32(*arrays: Array) -> bool:
    """Whether all of these hold float32."""
    return all(array.dtype == np.float32 for array in arrays)


def whole_vectors(device: Device, array: Array) -> Array:
    """[..., n] -> the array without gaps, its last axis filled up with zeros to whole vectors."""
    missing = -array.shape[-1] % VECTOR
    if not missing:
        return device.compact(array)
    wider = device.zeros((*array.shape[:-1], array.shape[-1] + missing), array.dtype)
    wider[..., : array.shape[-1]] = array
    return wider


def rows_by_sequence(device: Device, rows: Array) -> tuple[Array, int]:
    """[B, N, n] -> the rows of the first sequence, and how many numbers further those of the next one begin.

    The first rows of a longer cache stay where they are: a copy would cost more than what is read of them. Anything
    else becomes whole vectors without gaps.
    """
    if len(rows) and rows.shape[2] % VECTOR == 0:
        first, step = rows[0], rows.strides[0]
        if first.flags.c_contiguous and step % VECTOR_BYTES == 0 and device.address(rows) % VECTOR_BYTES == 0:
            return first, step // rows.itemsize
    whole = whole_vectors(device, rows)
    return whole, whole.shape[1] * whole.shape[2]
