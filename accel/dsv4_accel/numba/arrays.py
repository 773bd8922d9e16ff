"""The arrays that kernels take: float32, C-contiguous, aligned."""

from typing import Any

import numpy as np
import numpy.typing as npt

FLOAT32 = np.dtype(np.float32)


def are_float32(*arrays: Any) -> bool:
    """Whether all of these are NumPy arrays of float32, the only numbers that kernels compute with."""
    found = True
    for array in arrays:  # a loop takes half the time of `all`, and each operation asks
        found = found and isinstance(array, np.ndarray) and array.dtype == FLOAT32
    return found


def compact(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array as kernels take it: itself, or a copy where it has gaps, is permuted or is not aligned."""
    flags = array.flags
    return array if flags.c_contiguous and flags.aligned else np.array(array, order="C")
