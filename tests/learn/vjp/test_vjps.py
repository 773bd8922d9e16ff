"""What all hand-derived functions share: the dtype of their arguments, and that nothing is written to."""

import numpy as np
import pytest

from dsv4.checking.examples import CALLS
from dsv4.learn.vjp import VJPS
from dsv4.ops import OPERATIONS, Expert, Routing
from verdicts import close, in_dtype

DENSE = {name: call for name, call in CALLS.items() if name.split()[0] in VJPS and "fp" not in name}


def arrays(value):
    """All arrays in a value, in order."""
    if isinstance(value, np.ndarray):
        return [value]
    return [array for part in value for array in arrays(part)] if isinstance(value, tuple | list) else []


def pulled(name, arguments, table=VJPS):
    """The result and the gradients for gradients of random numbers, the same for float32 and float64."""
    result, pull = table[name.split()[0]](*arguments)
    generator = np.random.default_rng(1)
    weights = [generator.standard_normal(part.shape).astype(part.dtype) for part in arrays(result)]
    given = weights[0] if isinstance(result, np.ndarray) else type(result)(*weights)
    first, second = pull(given), pull(given)
    for one, other in zip(arrays(first), arrays(second), strict=True):
        np.testing.assert_array_equal(one, other)
    return result, first


def test_every_one_is_an_operation():
    assert set(VJPS) <= set(OPERATIONS)
    assert {name.split()[0] for name in DENSE} == set(VJPS)


@pytest.mark.parametrize("name", DENSE)
def test_float32_is_float64_rounded(name):
    """Results and gradients have the dtype of what was given, and a second pull gives the same."""
    arguments = DENSE[name].arguments(np.random.default_rng(0), 2, 5)
    found, truth = pulled(name, arguments), pulled(name, in_dtype(arguments, np.float64))
    for one, exact in zip(arrays(found), arrays(truth), strict=True):
        assert (one.dtype, exact.dtype) == (np.float32, np.float64)
        close(one, exact, magnitude=max(1, np.abs(exact).max()))


@pytest.mark.parametrize("name", DENSE)
def test_nothing_is_written_to(name):
    hold_unwritten(DENSE[name].arguments(np.random.default_rng(0), 2, 5), name, VJPS)


def hold_unwritten(arguments, name, table):
    """Arguments, result and the gradient of the result stay as they are, and may be arrays that nobody can write to."""
    given = arrays(arguments)
    for array in given:
        array.flags.writeable = False
    result, pull = table[name.split()[0]](*arguments)
    generator = np.random.default_rng(1)
    d_parts = [generator.standard_normal(part.shape).astype(part.dtype) for part in arrays(result)]
    seen = [*given, *arrays(result), *d_parts]
    for array in (*arrays(result), *d_parts):
        array.flags.writeable = False
    before = [array.copy() for array in seen]
    for _ in range(2):
        pull(d_parts[0] if isinstance(result, np.ndarray) else type(result)(*d_parts))
    for array, copy in zip(seen, before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_gradients_of_parameters_keep_their_dtype():
    """Weights in float64 under activations in float32, and the other way round."""
    generator = np.random.default_rng(0)
    x, weight = generator.standard_normal((1, 3, 4)).astype(np.float32), generator.standard_normal((4, 4))
    for dtype in (np.float32, np.float64):
        matrices = Expert(*[weight.astype(dtype)] * 3)
        routing = Routing(np.ones((3, 1), dtype), np.zeros((3, 1), np.int64))
        gradients = (
            VJPS["linear"](x, weight.astype(dtype))[1](x),
            VJPS["grouped_linear"](x, weight[:, :2].astype(dtype), 2)[1](x),
            VJPS["rms_norm"](x, weight[0].astype(dtype), 1e-6)[1](x),
            VJPS["experts"](x[0], routing, [matrices], 10.0, False)[1](x[0]),
        )
        for d_x, *others in gradients:
            assert d_x.dtype == np.float32
            assert {gradient.dtype for gradient in arrays(others)} == {np.dtype(dtype)}
