"""What every operation of every backend promises alike, compared with one example call of each."""

import inspect

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends import Caller
from dsv4.checking import properties
from dsv4.checking.cases import at_the_limits, by_size, example
from dsv4.checking.examples import CALLS
from dsv4.checking.examples41 import CALLS_41, EVERY_CALL
from dsv4.checking.limits import LIMITS
from dsv4.ops import OPERATIONS, OPERATIONS_41, Ops
from dsv4.ops.interface import PLACES, TOGETHER
from strategies import laid_out
from verdicts import close, exact, in_dtype

every_call = pytest.mark.parametrize("name", EVERY_CALL)


OF_INTEGERS = (
    *("top_k", "index_top_k", "route", "route_by_id"),
    *("index_candidates", "index_top_k_among", "route41", "engram_rows"),
)
"""The operations that choose or count: at least one of their results is integer."""


def runner(ops, name):
    """An operation as the properties take it: the results are a tuple of arrays, even if there is only one."""
    return lambda arguments: run(ops, name, arguments)


def run(ops, name, arguments):
    return properties.results_of(getattr(ops, name.split()[0])(*arguments))


def alike(found, expected):
    """Numbers close; indices exactly equal."""
    if expected.dtype.kind == "f":
        assert found.dtype == expected.dtype
        close(found, expected.astype(np.float64))
    else:
        exact(found, expected)


def test_every_operation_has_an_example():
    assert {name.split()[0] for name in CALLS} == set(OPERATIONS)
    assert {name.split()[0] for name in CALLS_41} == {*OPERATIONS_41, "linear"}  # and a form of V4's


def test_a_backend_offers_what_the_reference_offers(backend):
    assert isinstance(backend, Ops)
    assert isinstance(backend.name, str)
    for name in [*OPERATIONS, *PLACES, *TOGETHER]:
        expected = [(p.name, p.default, p.kind) for p in inspect.signature(getattr(Ops(), name)).parameters.values()]
        found = [(p.name, p.default, p.kind) for p in inspect.signature(getattr(backend, name)).parameters.values()]
        assert found == expected, name


def test_the_reference_is_called_numpy():
    assert Ops.name == "numpy"


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint8])
@pytest.mark.parametrize("shape", [(), (0,), (2, 3), (2, 0, 3)])
def test_arrays_survive_the_way_to_the_backend_and_back(backend, shape, dtype):
    array = np.arange(int(np.prod(shape))).reshape(shape).astype(dtype)
    exact(backend.to_numpy(backend.asarray(array)), array)
    exact(backend.to_numpy(backend.zeros(shape, dtype)), np.zeros(shape, dtype))
    assert backend.to_numpy(backend.zeros(shape)).dtype == np.float32


def test_values_are_written_where_the_index_says(backend):
    rows = backend.write(backend.zeros((2, 3, 2)), (np.array([0, 1]), np.array([2, 0])), backend.asarray(np.eye(2)))
    rows = backend.write(rows, (slice(None), 1), backend.asarray(np.full((2, 2), 5)))
    exact(backend.to_numpy(rows), np.float32([[[0, 0], [5, 5], [1, 0]], [[0, 1], [5, 5], [0, 0]]]))


@every_call
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_results_have_the_dtype_of_the_input(ops, name, dtype):
    arguments = example(name)
    for place in EVERY_CALL[name].dtype_from:
        arguments[place] = in_dtype(arguments[place], dtype)
    for result in run(ops, name, arguments):
        assert result.dtype in (dtype, np.int64)
        assert result.dtype.kind == "f" or name in OF_INTEGERS


def test_a_call_that_writes_to_an_argument_fails():
    """So no test need ask: every call of every operation is watched, where the backend computes."""

    class Writer(Ops):
        @staticmethod
        def rms_scale(x, eps):
            x.flags.writeable = True
            x[0] = 0
            return x

    with pytest.raises(AssertionError, match="rms_scale wrote to an argument"):
        Caller(Writer()).rms_scale(np.ones((2, 3)).copy(), 1e-6)


@every_call
@given(data=st.data())
def test_the_memory_layout_does_not_matter(ops, name, data):
    properties.layout_is_free(runner(ops, name), name, lambda array: data.draw(laid_out(array)))


@every_call
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("chosen", properties.CHOSEN_ROWS)
def test_rows_do_not_see_each_other(ops, name, dtype, chosen):
    """Some rows by themselves, or turned round, give what they give in the batch."""
    properties.rows_are_separate(runner(ops, name), name, chosen, dtype)


@every_call
@pytest.mark.parametrize(("batch", "length"), [(0, 3), (2, 0), (0, 0), (1, 1)])
def test_empty_and_single_rows(ops, name, batch, length):
    properties.empty_is_empty(runner(ops, name), name, batch, length)


@every_call
def test_results_are_right_from_small_sizes_to_large(ops, name):
    for case in by_size(name):
        properties.right_result(runner(ops, name), name, case.arguments)


@pytest.mark.parametrize("name", [name for name in EVERY_CALL if name.split()[0] in LIMITS])
def test_results_are_right_at_the_limits(ops, name):
    for case in at_the_limits(name):
        properties.right_result(runner(ops, name), name, case.arguments)


@pytest.mark.parametrize(
    "name",
    [
        *("rms_norm", "rms_scale", "linear", "linears", "rope", "index_scores", "index_top_k", "sparse_attention"),
        *("index_candidates", "index_top_k_among", "engram_gate"),
    ],
)
@pytest.mark.parametrize("length", [1, 3])
def test_a_prompt_may_be_cut_into_chunks(ops, name, length):
    """Queries do not see each other: the first ones of a prompt by themselves give what they give within it."""
    arguments = in_dtype(example(name), np.float64)
    per_query = [
        place
        for place, one in enumerate(arguments)
        if isinstance(one, np.ndarray) and one.ndim > 1 and one.shape[:2] == (3, 5) and not _is_keys(name, place)
    ]
    some = [one[:, :length] if place in per_query else one for place, one in enumerate(arguments)]
    for found, whole in zip(run(ops, name, some), run(ops, name, arguments), strict=True):
        alike(found, whole[:, :length])


def _is_keys(name, place):
    return (name, place) in {
        *(("index_scores", 1), ("index_top_k", 1), ("index_candidates", 1), ("index_top_k_among", 1)),
        *(("sparse_attention", 1), ("sparse_attention", 3)),
    }


def test_bfloat16_parameters_serve_where_the_checkpoint_stores_them(ops):
    generator = np.random.default_rng(0)
    x, weight = generator.standard_normal((2, 8)), generator.standard_normal((4, 8)).astype(ml_dtypes.bfloat16)
    alike(ops.linear(x, weight), ops.linear(x, weight.astype(np.float64)))
    alike(ops.grouped_linear(x, weight[:, :4], 2), ops.grouped_linear(x, weight[:, :4].astype(np.float64), 2))
    alike(ops.rms_norm(x, weight[0], 1e-6), ops.rms_norm(x, weight[0].astype(np.float64), 1e-6))
