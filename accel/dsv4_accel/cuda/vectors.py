"""Arrays as kernels read them in vectors of four floats."""

import numpy as np

from dsv4.ops.types import Array
from dsv4_accel.cuda.device import Device

VECTOR = 4
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
