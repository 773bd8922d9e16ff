"""Numbers that are not finite, or hardly so, in every operation: they spoil what NumPy says they spoil, and no more."""

import numpy as np
import pytest

from dsv4.ops import Ops
from ops.catalogue import CALLS
from ops.test_interface import example, rows, run

VALUES = {"inf": np.inf, "-inf": -np.inf, "NaN": np.nan, "-0.0": -0.0, "subnormal": 1e-42, "1e18": 1e18}
PLACES = [(name, place) for name, call in CALLS.items() for place in call.per_row]


def spoilt(name, place, value):
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


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize(("name", "place"), PLACES)
def test_values_that_are_hardly_numbers(ops, name, place, value):
    arguments = spoilt(name, place, VALUES[value])
    if arguments is None:
        pytest.skip("takes integers there")
    with np.errstate(all="ignore"):
        found, expected = run(ops, name, arguments), run(Ops, name, arguments)
        alone = run(
            ops,
            name,
            [rows(one, slice(2, 3)) if at in CALLS[name].per_row else one for at, one in enumerate(arguments)],
        )
    for one, numpys, third in zip(found, expected, alone, strict=True):
        np.testing.assert_array_equal(np.isnan(one), np.isnan(numpys))
        infinite, finite = np.isinf(numpys), np.isfinite(numpys)
        np.testing.assert_array_equal(one[infinite], numpys[infinite])
        for row in range(3):  # each measured by its own numbers
            here = finite[row]
            limit = 1e-5 * np.abs(numpys[row][here]).max(initial=1e-30)
            np.testing.assert_allclose(one[row][here], numpys[row][here], rtol=0, atol=limit)
        np.testing.assert_array_equal(np.isfinite(one[2]), np.isfinite(third[0]))
