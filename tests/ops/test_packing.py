"""Rows to bytes and back where a backend computes: exactly what the formats define."""

import numpy as np
import pytest
from hypothesis import given, settings

from ops.test_packed_rows import ENTRIES, KEYS, any_bytes, floats
from strategies import generators, sizes
from verdicts import exact

every_form = pytest.mark.parametrize("form", [*ENTRIES.values(), *KEYS.values()], ids=str)

HARDLY_NUMBERS = 0, -0.0, np.inf, -np.inf, np.nan, -np.nan, 1e-45, -1e-45, 1e-38, 3e38, -3.4e38, 1e-4, 448 * 2**-9
"""And numbers at the ends of float32 and of what scales are raised to."""


def of_all_sizes(generator, *shape) -> np.ndarray:
    """Numbers of which a block may hold a few that are hardly numbers, and ties between two codes."""
    powers = generator.choice([-140, -126, -20, 0, 1, 100, 120], (*shape[:-1], 1))
    with np.errstate(all="ignore"):
        numbers = (generator.standard_normal(shape) * np.exp2(powers)).astype(np.float32)
    rounded = np.round(4 * generator.standard_normal(shape)) / 4 * np.exp2(powers)
    numbers = np.where(generator.random(shape) < 0.3, rounded, numbers)
    return np.where(generator.random(shape) < 0.02, generator.choice(HARDLY_NUMBERS, shape), numbers).astype(np.float32)


@every_form
@settings(max_examples=10)
@given(generator=generators, batch=sizes(0, 2), count=sizes(0, 9))
def test_rows_are_packed_to_the_bytes_of_the_definition(ops, form, generator, batch, count):
    rows = of_all_sizes(generator, batch, count, form.channels)
    with np.errstate(all="ignore"):
        for dtype in (np.float32, np.float64):
            exact(ops.pack_rows(rows.astype(dtype), form), form.pack(rows.astype(dtype)))


@every_form
@settings(max_examples=10)
@given(generator=generators, batch=sizes(0, 2), count=sizes(0, 9))
def test_rows_are_unpacked_to_the_numbers_of_the_definition(ops, form, generator, batch, count):
    """Of a part of a longer cache, too; numbers that were never packed stay as they are."""
    rows = any_bytes(generator, batch, count + 3, form)[:, :count]
    for dtype in (np.float32, np.float64):
        expected = floats(rows, dtype)
        with np.errstate(all="ignore"):
            found = ops.unpack_rows(rows, dtype)
        exact(found, expected)
        finite = ~np.isnan(expected)
        exact(np.signbit(found[finite]), np.signbit(expected[finite]))
        exact(ops.unpack_rows(expected, dtype), expected)
