"""The verdicts of `dsv4.checking` by a short name, and `hold`, which compares with a naive computation in float64."""

import numpy as np

from dsv4.checking.arrays import in_dtype
from dsv4.checking.verdicts import FLOOR, as_good, close, exact, require_dtype
from dsv4.ops import Ops

__all__ = ["FLOOR", "as_good", "close", "exact", "hold", "in_dtype"]


def hold(ops, operation, naive, *arguments, magnitude=None):
    """Hold an operation to a naive float64 computation, in float64 and in float32.

    arguments: for the operation, with float32 arrays. The naive function gets the same values in float64. In float64
    the result must be close to its result; in float32 it must be as good as NumPy's, and NumPy's must be close.
    """
    wide = in_dtype(arguments, np.float64)
    truths = _parts(naive(*wide))
    for dtype, given in ((np.float64, wide), (np.float32, arguments)):
        found = _parts(getattr(ops, operation)(*given))
        baseline = _parts(getattr(Ops, operation)(*given))
        for one, truth, numpy_one in zip(found, truths, baseline, strict=True):
            require_dtype(one, dtype)
            close(numpy_one, truth, magnitude)
            if dtype == np.float64:
                close(one, truth, magnitude)
            else:
                as_good(one, truth, numpy_one, magnitude)


def _parts(result) -> tuple:
    return result if isinstance(result, tuple) else (result,)
