"""The properties of an operation, each a function that raises AssertionError where one does not hold.

A function under test is given as `Run`: it takes NumPy arguments and returns the results as a tuple of NumPy arrays.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dsv4.checking.arrays import in_dtype
from dsv4.checking.cases import example
from dsv4.checking.examples41 import EVERY_CALL
from dsv4.checking.magnitudes import magnitude
from dsv4.checking.verdicts import as_good, close, error, exact, require_dtype
from dsv4.ops.interface import Ops

AnyArray = npt.NDArray[Any]
Results = tuple[AnyArray, ...]
Run = Callable[[Sequence[Any]], Results]

EXACT = ("embedding", "overlap", "fake_quant_fp8", "fake_quant_fp4", "fake_quant_nvfp4")
"""Operations that only move numbers or round them by a rule: their results are the same bits."""

ONE_AXIS = ("route", "route_by_id", "experts", "expert", "route41", "mx_expert", "mx_experts")
"""Operations on tokens, which have no batch and length."""

CHOSEN_ROWS = (slice(0, 1), slice(2, 3), slice(1, 3), slice(None, None, -1), slice(0, 0))

SPECIAL_NUMBERS = {"inf": np.inf, "-inf": -np.inf, "NaN": np.nan, "-0.0": -0.0, "subnormal": 1e-42, "1e18": 1e18}


def numpys(name: str) -> Run:
    """The definition of an operation, as a function under test."""
    operation = getattr(Ops, name.split()[0])

    def run(arguments: Sequence[Any]) -> Results:
        with np.errstate(all="ignore"):
            return results_of(operation(*arguments))

    return run


def results_of(result: Any) -> Results:
    """The results as a tuple, even if there is only one."""
    return tuple(result) if isinstance(result, tuple | list) else (result,)


def is_judged_exactly(name: str, result: AnyArray) -> bool:
    """Whether a result of an operation must be the same bits: what is moved, rounded by a rule, or chosen."""
    return name.split()[0] in EXACT or result.dtype.kind != "f"


def right_result(run: Run, name: str, arguments: Sequence[Any]) -> tuple[float, float]:
    """The definition's result in float32: exact, or as good as NumPy's against float64.

    Returns the error against float64 and NumPy's, each relative to the size of the terms; 0 and 0 where it is exact.
    """
    found, baselines = run(arguments), numpys(name)(arguments)
    if len(found) != len(baselines):
        raise AssertionError(f"expected {len(baselines)} results, found {len(found)}")
    wide = in_dtype(tuple(arguments), np.float64)
    with np.errstate(all="ignore"):
        terms = magnitude(name.split()[0], wide)
    errors = [(0.0, 0.0)]
    for one, baseline, truth in zip(found, baselines, numpys(name)(wide), strict=True):
        require_dtype(one, baseline.dtype)
        if is_judged_exactly(name, baseline):
            exact(one, baseline)
            continue
        as_good(one, truth, baseline, terms)
        size = (np.abs(truth).max(initial=0) if terms is None else terms) or 1.0
        errors.append((float(error(one, truth) / size), float(error(baseline, truth) / size)))
    return max(errors)


def layout_is_free(run: Run, name: str, lay: Callable[[AnyArray], Any], dtype: npt.DTypeLike = np.float64) -> None:
    """How the arguments lie in memory does not matter. lay: an equal array with another layout."""
    arguments = in_dtype(example(name), dtype)
    moved = [lay(one) if isinstance(one, np.ndarray) else one for one in arguments]
    for found, expected in zip(run(moved), run(arguments), strict=True):
        _alike(found, expected)


def rows_are_separate(run: Run, name: str, chosen: slice, dtype: npt.DTypeLike = np.float64) -> None:
    """Some rows by themselves, or turned round, give what they give in the batch."""
    arguments = in_dtype(example(name), dtype)
    some = [rows(one, chosen) if place in EVERY_CALL[name].per_row else one for place, one in enumerate(arguments)]
    for found, whole in zip(run(some), run(arguments), strict=True):
        _alike(found, whole[chosen])


def empty_is_empty(run: Run, name: str, batch: int, length: int) -> None:
    """Without rows or tokens the result has the shape that it should have, and no numbers."""
    full, found = numpys(name)(example(name)), run(example(name, batch, length))
    axes = 1 if name.split()[0] in ONE_AXIS else 2
    for one, other in zip(found, full, strict=True):
        require_dtype(one, other.dtype)
        expected = (batch, length)[:axes] + other.shape[axes:]
        if one.shape != expected:
            raise AssertionError(f"shape: expected {list(expected)}, found {list(one.shape)}")


def special_numbers_stay(run: Run, name: str, place: int, value: float) -> None:
    """What is hardly a number spoils what NumPy says it spoils, and no more: no other row.

    place: the argument that gets the value, at some places of row 1; nothing is asked where it takes integers.
    """
    arguments = spoilt(name, place, value)
    if arguments is None:
        return
    alone = [rows(one, slice(2, 3)) if at in EVERY_CALL[name].per_row else one for at, one in enumerate(arguments)]
    for found, expected, third in zip(run(arguments), numpys(name)(arguments), run(alone), strict=True):
        if found.shape != expected.shape:
            raise AssertionError(f"shape: expected {list(expected.shape)}, found {list(found.shape)}")
        _same_places(np.isnan(found), np.isnan(expected), "NaN")
        infinite, finite = np.isinf(expected), np.isfinite(expected)
        _same_places(found[infinite] == expected[infinite], np.full(infinite.sum(), True), "infinity")
        for row in range(3):  # each measured by its own numbers
            here = finite[row]
            limit = 1e-5 * np.abs(expected[row][here]).max(initial=1e-30)
            difference = float(np.abs(found[row][here] - expected[row][here]).max(initial=0))
            if not difference <= limit:
                raise AssertionError(f"row {row}: {difference:.3g} away from NumPy's, which is above {limit:.3g}")
        _same_places(np.isfinite(found[2]), np.isfinite(third[0]), "a finite number")


def spoilt(name: str, place: int, value: float) -> list[Any] | None:
    """The example's arguments with a value at some places of row 1 of one of them; None where it holds integers."""
    arguments = example(name)
    given = arguments[place]
    array = given if isinstance(given, np.ndarray) else given.weights
    if array.dtype.kind != "f":
        return None
    changed = array.copy()
    row = changed[1].reshape(-1)
    row[:: max(2, row.size // 3)] = value
    arguments[place] = changed if array is given else given._replace(weights=changed)
    return arguments


def rows(value: Any, chosen: slice) -> Any:
    """The chosen rows of an argument, which is an array or a Routing of arrays."""
    return value[chosen] if isinstance(value, np.ndarray) else type(value)(*(part[chosen] for part in value))


def _alike(found: AnyArray, expected: AnyArray) -> None:
    """Numbers close; indices exactly equal."""
    if expected.dtype.kind == "f":
        require_dtype(found, expected.dtype)
        close(found, expected.astype(np.float64))
    else:
        exact(found, expected)


def _same_places(found: AnyArray, expected: AnyArray, what: str) -> None:
    if not np.array_equal(found, expected):
        raise AssertionError(f"{what} is at other positions than NumPy's")
