"""The verdicts on a result: *exact*, *close* to the truth, and *as good* as NumPy in float32.

Errors are measured against a magnitude: the size of the numbers that were added up for the result, by default the
largest magnitude of the truth. Where terms can cancel, the caller names the magnitude itself.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

AnyArray = npt.NDArray[Any]

ROUNDINGS = 256
"""The error that `close` allows, in units of the dtype's epsilon: sums of some dozen terms and an exp or two."""

FLOOR = float(8 * np.finfo(np.float32).eps)
"""The relative error in float32 that is forgiven even where NumPy happened to make none."""


def exact(found: AnyArray, expected: AnyArray) -> None:
    """The same dtype, shape and bits; any NaN equals any NaN. Raises AssertionError with the first difference."""
    require_dtype(found, expected.dtype)
    _require_shape(found, expected)
    differs = found != expected
    if expected.dtype.kind not in "iu":
        both_nan = np.isnan(found) & np.isnan(expected)
        differs = ~both_nan & (differs | (np.signbit(found) != np.signbit(expected)))
    if differs.any():
        place = tuple(int(index) for index in np.argwhere(differs)[0])
        count = f"{differs.sum()} of {differs.size} numbers differ"
        raise AssertionError(f"{count}, first at {list(place)}: expected {expected[place]}, found {found[place]}")


def close(found: AnyArray, truth: AnyArray, magnitude: float | None = None, roundings: float = ROUNDINGS) -> None:
    """At most `roundings` epsilons of the found dtype away from the truth, relative to the magnitude.

    Raises AssertionError with the error and its limit; so does `as_good`.
    """
    found_error = error(found, truth)
    limit = roundings * float(np.finfo(found.dtype).eps) * size(truth, magnitude)
    if not found_error <= limit:
        raise AssertionError(f"error {found_error:.3g} is above {limit:.3g}")


def as_good(found: AnyArray, truth: AnyArray, baseline: AnyArray, magnitude: float | None = None) -> None:
    """At most twice the error of NumPy's float32 result against float64, and a floor."""
    found_error, numpys_error = error(found, truth), error(baseline, truth)
    limit = 2 * numpys_error + FLOOR * size(truth, magnitude)
    if not found_error <= limit:
        raise AssertionError(
            f"error {found_error:.3g} is above {limit:.3g}, which NumPy's error of {numpys_error:.3g} allows"
        )


def error(found: AnyArray, truth: AnyArray) -> float:
    """The largest distance from the truth. Raises AssertionError where the shapes differ or found is not finite."""
    _require_shape(found, truth)
    bad = ~np.isfinite(found)
    if bad.any():
        place = tuple(int(index) for index in np.argwhere(bad)[0])
        count = f"{bad.sum()} of {bad.size} numbers are not finite"
        raise AssertionError(f"{count}, first at {list(place)}: {found[place]}")
    return float(np.abs(found.astype(np.float64) - truth).max(initial=0))


def size(truth: AnyArray, magnitude: float | None = None) -> float:
    """The magnitude that errors are measured against."""
    return float(np.abs(truth).max(initial=0)) if magnitude is None else float(magnitude)


def require_dtype(found: AnyArray, dtype: npt.DTypeLike) -> None:
    """Raises AssertionError where the dtype is another."""
    if found.dtype != dtype:
        raise AssertionError(f"dtype: expected {np.dtype(dtype)}, found {found.dtype}")


def _require_shape(found: AnyArray, expected: AnyArray) -> None:
    if found.shape != expected.shape:
        raise AssertionError(f"shape: expected {list(expected.shape)}, found {list(found.shape)}")
