"""The array types of the operations."""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating[Any]]
"""Numbers: float32 in the model, float64 where an operation serves as the ground truth."""

Ints = npt.NDArray[np.integer[Any]]
"""Positions, token ids, expert numbers, entry numbers."""

Bytes = npt.NDArray[np.uint8]
"""Codes of a number format, or packed codes."""

Mask = npt.NDArray[np.bool_]
"""Which elements count."""
