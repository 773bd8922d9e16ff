"""Numbers that are not finite, or hardly so, in every operation: they spoil what NumPy says they spoil, and no more."""

import numpy as np
import pytest

from dsv4.checking.examples41 import EVERY_CALL
from dsv4.checking.properties import SPECIAL_NUMBERS, special_numbers_stay, spoilt
from ops.test_interface import runner

PLACES = [(name, place) for name, call in EVERY_CALL.items() for place in call.per_row]


@pytest.mark.parametrize("value", SPECIAL_NUMBERS)
@pytest.mark.parametrize(("name", "place"), PLACES)
def test_values_that_are_hardly_numbers(ops, name, place, value):
    if spoilt(name, place, SPECIAL_NUMBERS[value]) is None:
        pytest.skip("takes integers there")
    with np.errstate(all="ignore"):
        special_numbers_stay(runner(ops, name), name, place, SPECIAL_NUMBERS[value])
