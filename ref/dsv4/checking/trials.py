"""What a check tries: each property on each of its cases, for one form of an operation."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np

from dsv4.checking.arrays import AnyArray, fetched, laid_out
from dsv4.checking.cases import Case, at_the_limits, by_size, example
from dsv4.checking.examples41 import EVERY_CALL
from dsv4.checking.properties import (
    CHOSEN_ROWS,
    SPECIAL_NUMBERS,
    Results,
    Run,
    empty_is_empty,
    layout_is_free,
    results_of,
    right_result,
    rows_are_separate,
    special_numbers_stay,
    spoilt,
)
from dsv4.checking.verdicts import exact
from dsv4.ops.map_arrays import map_arrays

AsArray = Callable[[AnyArray], Any]
Errors = tuple[float, float]
"""The error of a result and NumPy's, relative to the size of the terms."""


@dataclass(frozen=True)
class Trial:
    """One property on one case."""

    name: str
    """The form of the operation."""
    case: Case
    attempt: Callable[[], Errors | None]
    """Raises AssertionError where the property does not hold; returns the errors where it measures them."""


class Trials:
    """The trials of one function for one form of an operation."""

    def __init__(self, function: Callable[..., Any], name: str, asarray: AsArray | None) -> None:
        """function: the one to be checked; name: of the form; asarray: makes its arrays, None for NumPy's."""
        self.name = name
        self._function = function
        self._asarray = asarray or (lambda array: array)

    def result(self) -> Iterator[Trial]:
        """Sizes from small to large."""
        for case in by_size(self.name):
            yield self._right(case)

    def at_the_limits(self) -> Iterator[Trial]:
        """Ties, −1, huge and tiny numbers, and the like."""
        for case in at_the_limits(self.name):
            yield self._right(case)

    def rows_alone(self) -> Iterator[Trial]:
        """Some rows of a batch by themselves, in reverse order, and none."""
        for chosen in CHOSEN_ROWS:
            what = f"rows [{chosen.start}:{chosen.stop}:{chosen.step}] of a batch".replace("None", "")
            yield self._trial(what, rows_are_separate, self._run, self.name, chosen, np.float32)

    def memory_layout(self) -> Iterator[Trial]:
        """Axes in every order in memory, without gaps and with; NumPy's also backwards."""
        for order in permutations(range(3)):
            for step in (1, 2):
                what = f"axes in the order {order}" + (", every other number" if step == 2 else "")
                lay = self._layout(order, step)
                yield self._trial(what, layout_is_free, self._run_as_it_is, self.name, lay, np.float32)

    def nothing_to_do(self) -> Iterator[Trial]:
        """Empty axes, and a single token."""
        for batch, length in ((0, 3), (2, 0), (0, 0), (1, 1)):
            what = f"batch {batch}, length {length}"
            yield self._trial(what, empty_is_empty, self._run, self.name, batch, length)

    def special_numbers(self) -> Iterator[Trial]:
        """Infinities, NaN, −0, subnormal and huge numbers in each argument that is per row."""
        for place in EVERY_CALL[self.name].per_row:
            for what, value in SPECIAL_NUMBERS.items():
                if spoilt(self.name, place, value) is not None:
                    yield self._trial(what, special_numbers_stay, self._run, self.name, place, value)

    def untouched(self) -> Iterator[Trial]:
        """The arguments after the call are what they were before it."""
        yield self._trial("", self._require_untouched, example(self.name))

    def _trial(self, what: str, prove: Callable[..., Any], *arguments: Any) -> Trial:
        return Trial(self.name, Case(what, tuple(example(self.name))), lambda: prove(*arguments))

    def _right(self, case: Case) -> Trial:
        return Trial(self.name, case, lambda: right_result(self._run, self.name, case.arguments))

    @property
    def _run(self) -> Run:
        """The function on copies, which it may spoil: the truth is computed from the same arguments."""
        return self._called_with(lambda array: self._asarray(np.array(array, order="C")))

    @property
    def _run_as_it_is(self) -> Run:
        """The function on arrays as they lie in memory, those of its library among them."""
        return self._called_with(lambda array: self._asarray(array) if isinstance(array, np.ndarray) else array)

    def _called_with(self, place: AsArray) -> Run:
        def run(arguments: Sequence[Any]) -> Results:
            with np.errstate(all="ignore"):
                result = self._function(*map_arrays(list(arguments), place))
            return tuple(np.asarray(one) for one in fetched(list(results_of(result))))

        return run

    def _layout(self, order: tuple[int, ...], step: int) -> Callable[[AnyArray], Any]:
        """Arrays of three axes or fewer in this order; further axes come behind."""
        is_numpys = isinstance(self._asarray(np.zeros(1)), np.ndarray)

        def lay(array: AnyArray) -> Any:
            axes = [axis for axis in order if axis < array.ndim] + list(range(3, array.ndim))
            backwards = [is_numpys and step == 2] * array.ndim
            return laid_out(array, axes, [step] * array.ndim, backwards, self._asarray)

        return lay

    def _require_untouched(self, arguments: list[Any]) -> None:
        placed = map_arrays(arguments, lambda array: self._asarray(np.array(array, order="C")))
        self._function(*placed)
        for place, (one, before) in enumerate(zip(fetched(placed), arguments, strict=True)):
            try:
                _same(one, before)
            except AssertionError as error:
                raise AssertionError(f"the function wrote to its argument {place + 1}: {error}") from error


def _same(found: Any, expected: Any) -> None:
    """The same arrays in the same places."""
    found_arrays: list[AnyArray] = []
    expected_arrays: list[AnyArray] = []
    map_arrays(found, lambda array: found_arrays.append(array))
    map_arrays(expected, lambda array: expected_arrays.append(array))
    for one, other in zip(found_arrays, expected_arrays, strict=True):
        exact(one, other)
