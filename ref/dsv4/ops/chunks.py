"""Long prompts in runs of queries, so that memory holds what a run needs and not what the whole prompt would."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from dsv4.ops.types import Array, Ints

T = TypeVar("T", bound=np.generic)

MAX_NUMBERS = 2**22
"""How many float numbers a run's largest intermediate array should have at most: 16 MiB in float32."""


def over_queries(
    function: Callable[..., npt.NDArray[T]], numbers_per_query: int, *per_query: Array | Ints
) -> npt.NDArray[T]:
    """function(*per_query), computed for runs of queries and joined along axis 1.

    per_query: arrays [B, S, ...]; the function must treat each query by itself. numbers_per_query: the size of the
    function's largest intermediate array for one query of every sequence. Returns what function returns, [B, S, ...].
    """
    length = per_query[0].shape[1]
    step = max(1, MAX_NUMBERS // max(1, numbers_per_query))
    starts = range(0, max(1, length), step)
    return np.concatenate([function(*(array[:, t : t + step] for array in per_query)) for t in starts], axis=1)
