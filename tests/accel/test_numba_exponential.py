"""exp, log(1 + x) and what is made of them: within the stated errors, and the same bits alone and in a vector."""

import numpy as np
import pytest

pytest.importorskip("numba")
import numba

from dsv4_accel.numba import exponential, memory, vectors

COUNT = 1 << 20
LARGEST = np.log(np.finfo(np.float32).max)
"""Where e^x is beyond float32, and sigmoid(−x) is stated to be zero."""
SPECIAL = np.array(
    [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 88.72, 88.73, 89, -87.4, -103.9, -104, -200, 3e38]
)


def of_vectors(function):
    """The function of 16 numbers, over a flat array."""
    load, store, step = memory.load, memory.store, vectors.LANES

    @numba.njit
    def apply(x):
        result = np.empty_like(x)
        for start in range(0, x.size, step):
            store(result, start, function(load(x, start)))
        return result

    return apply


def truth(name, x):
    """In float64, where no intermediate overflows."""
    x = x.astype(np.float64)
    with np.errstate(all="ignore"):
        return {
            "exp": lambda: np.exp(x),
            "log_1_plus": lambda: np.log1p(x),
            "sigmoid": lambda: np.where(-x > LARGEST, 0, 1 / (1 + np.exp(-x))),
            "softplus": lambda: np.logaddexp(0, x),
        }[name]()


def arguments(name):
    """Numbers of all sizes that a function takes, evenly spread and crowded about zero; a whole number of vectors."""
    generator = np.random.default_rng(0)
    if name == "log_1_plus":
        spread, special = generator.random(COUNT), np.array([0, 1, 0.5, np.nextafter(0.5, 1), 1e-45, np.nan])
    else:
        spread, special = generator.uniform(-110, 95, COUNT), SPECIAL
    crowded = spread[: COUNT // 4] * 2.0 ** -generator.integers(0, 30, COUNT // 4)
    with np.errstate(all="ignore"):
        x = np.concatenate([special, spread, crowded]).astype(np.float32)
    return np.resize(x, -(-x.size // vectors.LANES) * vectors.LANES)


@pytest.mark.parametrize(("name", "units"), [("exp", 1), ("log_1_plus", 1), ("sigmoid", 2.5), ("softplus", 2.5)])
def test_errors_in_units_in_the_last_place(name, units):
    x = arguments(name)
    found, expected = of_vectors(getattr(exponential, name))(x), truth(name, x)
    with np.errstate(all="ignore"):
        rounded = expected.astype(np.float32)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    np.testing.assert_array_equal(np.isinf(found), np.isinf(rounded))
    numbers = np.isfinite(rounded)
    errors = np.abs(found[numbers] - expected[numbers]) / np.spacing(np.abs(rounded[numbers]))
    worst = errors.argmax()
    assert errors[worst] < units, f"{name}({x[numbers][worst]}): {errors[worst]:.3f}"


def test_one_number_has_the_bits_that_it_has_in_a_vector():
    x = arguments("sigmoid")[: 1 << 14]
    one = exponential.sigmoid_of_one

    @numba.njit
    def apply(x):
        result = np.empty_like(x)
        for place in range(x.size):
            result[place] = one(x[place])
        return result

    found, expected = apply(x), of_vectors(exponential.sigmoid)(x)
    np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))
