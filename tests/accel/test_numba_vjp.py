"""The vector-Jacobian products of the Numba backend: as good as NumPy's, and NumPy's own where kernels do not go."""

import numpy as np
import pytest

pytest.importorskip("numba")

from dsv4.learn.vjp import VJPS as NUMPY
from dsv4.ops import Expert, Routing
from dsv4_accel.numba.vjp import OURS, VJPS
from learn.vjp.test_vjps import DENSE, arrays, pulled
from ops.catalogue import numbers
from verdicts import as_good, in_dtype


def _experts(g):
    matrices = [Expert(*(numbers(g, *shape) / 5 for shape in ((48, 32), (32, 48), (48, 32)))) for _ in range(5)]
    return 2 * numbers(g, 30, 32), Routing(numbers(g, 30, 2), g.integers(0, 4, (30, 2))), matrices, 1.5, False


def _mix(g):
    return numbers(g, 2, 9, 4, 48), numbers(g, 2, 9, 48), numbers(g, 2, 9, 4), numbers(g, 2, 9, 4, 4)


def _turned(x):
    """The same numbers with their axes in another order in memory."""
    return np.array(x, order="F")


LARGE = {
    "rms_norm": lambda g: (numbers(g, 3, 7, 80), numbers(g, 80), 1e-6),
    "rms_norm of turned arrays": lambda g: (_turned(numbers(g, 3, 7, 80)), numbers(g, 80), 1e-6),
    "rms_scale": lambda g: (numbers(g, 3, 7, 2, 32), 1e-6),
    "rope": lambda g: (numbers(g, 2, 5, 3, 48), g.integers(0, 5000, (2, 5)), numbers(g, 16)),
    "mhc_collapse": lambda g: _mix(g)[::2],
    "mhc_mix": _mix,
    "mhc_mix of turned arrays": lambda g: tuple(map(_turned, _mix(g))),
    "experts": _experts,
    "expert": lambda g: (2 * numbers(g, 30, 32), numbers(g, 30), _experts(g)[2][0], 1.5, True),
}
"""Shapes that kernels take, by operation."""

CASES = LARGE | {f"{name} as elsewhere": lambda g, one=one: one.arguments(g, 2, 5) for name, one in DENSE.items()}


def test_all_are_tried_at_shapes_that_kernels_take():
    assert {name.split()[0] for name in LARGE} == set(OURS)
    assert VJPS.keys() == NUMPY.keys()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(3))
def test_as_good_as_numpy(name, seed):
    arguments = CASES[name](np.random.default_rng(seed))
    found, numpy = (pulled(name, arguments, table) for table in (VJPS, NUMPY))
    truth = pulled(name, in_dtype(arguments, np.float64), NUMPY)
    for one, baseline, true in zip(arrays(found), arrays(numpy), arrays(truth), strict=True):
        assert one.dtype == np.float32
        as_good(one, true, baseline)


@pytest.mark.parametrize("name", ["rms_norm", "rms_scale", "rope", "mhc_collapse", "mhc_mix"])
def test_no_tokens_at_all(name):
    rows = {"rope": (0, 1), "mhc_collapse": (0, 1), "mhc_mix": (0, 1, 2, 3)}.get(name, (0,))
    arguments = LARGE[name](np.random.default_rng(0))
    none = tuple(one[:0] if place in rows else one for place, one in enumerate(arguments))
    found, expected = (pulled(name, none, table) for table in (VJPS, NUMPY))
    for one, other in zip(arrays(found), arrays(expected), strict=True):
        np.testing.assert_array_equal(one, other, strict=True)


@pytest.mark.parametrize("name", CASES)
def test_float64_is_numpys(name):
    arguments = in_dtype(CASES[name](np.random.default_rng(0)), np.float64)
    found, expected = (pulled(name, arguments, table) for table in (VJPS, NUMPY))
    for one, other in zip(arrays(found), arrays(expected), strict=True):
        np.testing.assert_array_equal(one, other, strict=True)
