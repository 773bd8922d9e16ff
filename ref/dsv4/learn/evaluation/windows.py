"""A text cut into windows of the same length."""

import numpy as np
import numpy.typing as npt

from dsv4.errors import TextError
from dsv4.ops.types import Ints


def windows(ids: npt.ArrayLike, length: int, step: int) -> Ints:
    """ids [n] -> [count, length]: as many windows as there is room for, each `step` tokens behind the one before.

    A tail that fills no window is left out. Raises TextError for a text shorter than a window.
    """
    text = np.asarray(ids)
    if len(text) < length:
        raise TextError(f"text: expected at least a window of {length} tokens, found {len(text)}")
    found: Ints = np.lib.stride_tricks.sliding_window_view(text, length)[::step]
    return found
