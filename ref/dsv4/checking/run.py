"""Runs the properties of an operation for one function, from the smallest case on, and reports what holds."""

import inspect
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

import numpy as np

from dsv4.checking.cases import example
from dsv4.checking.examples41 import EVERY_CALL
from dsv4.checking.properties import is_judged_exactly, numpys
from dsv4.checking.report import Failure, Finding, Report, Worst
from dsv4.checking.trials import AsArray, Trial, Trials
from dsv4.errors import SettingError
from dsv4.ops.interface import OPERATIONS, Ops
from dsv4.ops.interface41 import OPERATIONS_41
from dsv4.ops.map_arrays import map_arrays
from dsv4.ops.quantise import Fp4Weight, Fp8Weight

PROPERTIES: dict[str, Callable[[Trials], Iterable[Trial]]] = {
    "result": Trials.result,
    "at the limits": Trials.at_the_limits,
    "rows alone": Trials.rows_alone,
    "memory layout": Trials.memory_layout,
    "nothing to do": Trials.nothing_to_do,
    "inf, NaN, −0": Trials.special_numbers,
    "arguments untouched": Trials.untouched,
}
MEASURED = ("result", "at the limits")
"""The properties with a verdict on numbers."""


def check(function: Callable[..., Any], operation: str, *, asarray: AsArray | None = None) -> Report:
    """Run the project's properties of an operation for one function.

    function: takes the operation's arguments by place, as `getattr(dsv4.ops.Ops, operation)` does, and returns its
    result as arrays of NumPy, CuPy, torch or any library whose arrays NumPy can read; several as a tuple.
    operation: its name, such as "sparse_attention", or one form of it, such as "linear fp4".
    asarray: makes the function's arrays of NumPy's, such as `torch.from_numpy` or `cupy.asarray`; without it they are
    NumPy's. Weights in FP8 and FP4 come as `Fp8Weight` and `Fp4Weight` of such arrays.

    Numbers are float32, and the cases are the same each time. Raises SettingError for an unknown operation, and for
    what cannot be called. What the function raises is a finding.
    """
    forms = [name for name in EVERY_CALL if operation in (name, name.split()[0])]
    if not forms:
        raise SettingError(f"operation: expected one of {', '.join(_names())}, found {operation!r}")
    if not callable(function):
        raise SettingError(f"function: expected something that can be called, found {type(function).__name__}")
    every = [Trials(function, name, asarray) for name in forms]
    verdict = _verdict(forms)
    findings = []
    for name, of_form in PROPERTIES.items():
        trials = sorted(chain.from_iterable(map(of_form, every)), key=_count)
        if trials:
            findings.append(_finding(name, verdict if name in MEASURED else "holds", trials))
    return Report(operation, tuple(findings))


def _names() -> list[str]:
    """The operations of V4 and of V4.1, and the forms of those that have several."""
    return [*OPERATIONS, *OPERATIONS_41, *(name for name in EVERY_CALL if " " in name)]


def _verdict(forms: list[str]) -> str:
    """The verdict by which the operation's results are judged."""
    exactly = [is_judged_exactly(name, one) for name in forms for one in numpys(name)(example(name))]
    return "exact" if all(exactly) else "as good"


def _finding(name: str, verdict: str, trials: list[Trial]) -> Finding:
    """Try a property, smallest case first, until it fails."""
    worst = None
    for number, trial in enumerate(trials):
        try:
            errors = trial.attempt()
        except Exception as error:
            what = str(error) if isinstance(error, AssertionError) else f"raised {type(error).__name__}: {error}"
            failure = Failure(trial.case.what, _described(trial), what)
            return Finding(name, "fails", number + 1, failure=failure)
        if errors is not None and (worst is None or errors[0] > worst.error):
            worst = Worst(_described(trial), *errors)
    return Finding(name, verdict, len(trials), worst if verdict == "as good" else None)


def _count(trial: Trial) -> int:
    """How many numbers the arguments of a case have."""
    sizes: list[int] = []
    map_arrays(list(trial.case.arguments), lambda array: sizes.append(array.size))
    return sum(sizes)


def _described(trial: Trial) -> str:
    """The arguments by name: shapes of arrays, and other values as they are."""
    operation, _, form = trial.name.partition(" ")
    names = inspect.signature(getattr(Ops, operation)).parameters
    described = [f"{name} {_shape(one)}" for name, one in zip(names, trial.case.arguments, strict=False)]
    return (f"{form}: " if form else "") + ", ".join(described)


def _shape(value: Any) -> str:
    match value:
        case np.ndarray():
            return str(list(value.shape))
        case Fp8Weight() | Fp4Weight():
            return f"{'fp8' if isinstance(value, Fp8Weight) else 'fp4'} {list(value.shape)}"
        case tuple() | list():
            parts = [_shape(part) for part in value]
            return f"({', '.join(parts)})" if isinstance(value, tuple) else f"{len(parts)} × {parts[0]}"
    return repr(value)
