"""Every operation of the reference on the tape, compared with central differences in float64."""

import re
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings

from dsv4.checking.examples import CALLS
from dsv4.learn import tape
from dsv4.ops import OPERATIONS, Expert, Ops, Routing
from dsv4.ops.map_arrays import map_arrays
from learn.differences import hold
from strategies import generators, sizes

OF_FLOATS = [name for name in CALLS if not re.search("fp8|fp4|top_k", name)]
"""The calls whose results have a gradient, with weights that have one."""

SMALL = {
    "linear": lambda g, b, s: (g.standard_normal((b, s, 6)), g.standard_normal((5, 6))),
    "experts": lambda g, b, s: (
        g.standard_normal((b, 4)),
        Routing(g.uniform(0.5, 1, (b, 2)), g.integers(0, 3, (b, 2))),
        [Expert(*(g.standard_normal(shape) for shape in ((5, 4), (4, 5), (5, 4)))) for _ in range(3)],
        1.0,
        False,
    ),
    "expert": lambda g, b, s: (
        g.standard_normal((b, 4)),
        g.uniform(0.5, 1, b),
        Expert(*(g.standard_normal(shape) for shape in ((5, 4), (4, 5), (5, 4)))),
        1.0,
        True,
    ),
    "mhc_weights": lambda g, b, s: (
        g.standard_normal((b, s, 3, 2)), g.standard_normal((15, 6)), g.standard_normal(15), g.standard_normal(3),
        int(g.integers(1, 21)), 1e-3, 1e-3,
    ),
}  # fmt: skip
"""Smaller shapes than the catalogue's, where every number of its arguments would be too many."""

CONSTANT = {"rope": (0,), "rope of heads": (0,), "route": (0,)}
"""The arguments that can have a gradient, where not all arrays of floats can: not frequencies, nor the bias."""


def arguments_of(name, generator, batch, length):
    return SMALL.get(name, CALLS[name].arguments)(generator, batch, length)


@pytest.mark.parametrize("name", OF_FLOATS)
@settings(max_examples=8)
@given(generator=generators, batch=sizes(1, 2), length=sizes(1, 3))
def test_gradients(name, generator, batch, length):
    arguments = arguments_of(name, generator, batch, length)
    operation = getattr(tape.TapeOps(), name.partition(" ")[0])
    hold(lambda *given: map_arrays(operation(*given), _plain_where_constant(given)), *arguments,
         operands=CONSTANT.get(name))  # fmt: skip


def _plain_where_constant(given):
    """Results of plain arguments as plain arrays, which `hold` computes differences with."""
    on_tape = []
    map_arrays(list(given), lambda one: on_tape.append(isinstance(one, tape.Tensor)))
    return (lambda one: one) if any(on_tape) else tape.untaped


@pytest.mark.parametrize("name", [name for name in CALLS if name != "experts fp4"])
def test_results_are_those_of_numpy_bit_for_bit(name):
    arguments = CALLS[name].arguments(np.random.default_rng(0), 2, 3)
    operation = name.partition(" ")[0]
    expected = getattr(Ops, operation)(*arguments)
    found = getattr(tape.TapeOps(), operation)(*map_arrays(list(arguments), tape.TapeOps.asarray))
    pairs = []
    map_arrays([expected], pairs.append)
    map_arrays([found], lambda one: np.testing.assert_array_equal(tape.untaped(one), pairs.pop(0), strict=True))
    assert not pairs


def test_every_operation_is_called():
    assert {name.partition(" ")[0] for name in CALLS} == set(OPERATIONS)


@pytest.mark.parametrize("operation", ["fake_quant_fp8", "fake_quant_fp4"])
@given(generator=generators)
def test_the_gradient_goes_straight_through_a_quantiser(operation, generator):
    numbers, weights = generator.standard_normal((2, 3, 40)), generator.standard_normal((3, 40))
    x = tape.leaf(numbers)
    rounded = getattr(tape.TapeOps(), operation)(x, 32)
    np.testing.assert_array_equal(rounded.data, getattr(Ops, operation)(numbers, 32))
    assert (rounded.data != numbers).any()
    [gradient] = tape.gradients((rounded * rounded * weights).sum(), [x])
    np.testing.assert_array_equal(gradient, 2 * rounded.data * weights)


def test_the_gradient_goes_straight_through_the_rounding_of_a_product():
    numbers, weight, _ = CALLS["linear fp8 that rounds"].arguments(np.random.default_rng(0), 2, 3)
    x = tape.leaf(numbers)
    [gradient] = tape.gradients(tape.TapeOps().linear(x, weight, True).sum(), [x])
    [expected] = tape.gradients(tape.TapeOps().linear(x, weight).sum(), [x])
    np.testing.assert_array_equal(gradient, expected)
    assert gradient.all()


def test_experts_with_packed_weights_cannot_round_their_inputs_and_say_so():
    arguments = CALLS["experts fp4"].arguments(np.random.default_rng(0), 2, 3)
    with pytest.raises(TypeError, match=r"numpy\.frexp has no rule"):
        tape.TapeOps().experts(*map_arrays(list(arguments), tape.TapeOps.asarray))


def test_what_is_chosen_has_no_gradient_and_costs_no_memory():
    g = np.random.default_rng(0)
    ops = tape.TapeOps()
    scores = tape.leaf(g.standard_normal((2, 3, 9)))
    assert isinstance(ops.top_k(scores, np.full((2, 3), 9), 4), np.ndarray)
    arguments = [tape.leaf(g.standard_normal(shape)) for shape in ((2, 3, 4, 8), (2, 5, 8), (2, 3, 4))]
    chosen = ops.index_top_k(*arguments, np.full((2, 3), 5), 2)
    assert isinstance(chosen, np.ndarray)
    np.testing.assert_array_equal(chosen, Ops.index_top_k(*(one.data for one in arguments), np.full((2, 3), 5), 2))


def test_places():
    ops = tape.TapeOps()
    integers, floats = np.arange(3), np.arange(3.0)
    assert ops.asarray(integers) is integers
    assert ops.asarray(floats).node is None
    leaf = tape.leaf(floats)
    assert ops.asarray(leaf) is leaf
    assert ops.place(leaf) is leaf
    assert ops.to_numpy(leaf) is leaf.data
    assert ops.to_numpy(integers) is integers
    assert isinstance(ops.zeros((2, 3)), tape.Tensor)
    assert isinstance(ops.zeros((2, 3), np.uint8), np.ndarray)


def test_bytes_that_are_written_stay_bytes():
    """As the rows of a packed cache; floats on the tape would lose their gradient there."""
    ops = tape.TapeOps()
    rows = ops.zeros((4, 2), np.uint8)
    found = ops.write(rows, 1, np.full(2, 7, np.uint8))
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, Ops.write(np.zeros((4, 2), np.uint8), 1, np.full(2, 7, np.uint8)))
    with pytest.raises(TypeError, match="tape: a result of uint8 has no gradient"):
        ops.write(rows, 1, tape.leaf(np.ones(2)))


class Sums(NamedTuple):
    """Two results of one operation."""

    first: np.ndarray
    second: np.ndarray
    number: np.ndarray


class Pulled(NamedTuple):
    d_x: np.ndarray
    d_weights: np.ndarray | None


class Counted:
    """A linear that counts its calls and has a gradient of its own making."""

    def __init__(self):
        self.calls = []

    def __call__(self, x, weight, round_inputs=False):
        self.calls.append(("forward", type(x), type(weight)))

        def pull(d_result):
            self.calls.append(("backward", type(d_result)))
            return LinearPulled(d_result @ weight + 1, d_result.reshape(-1, len(weight)).T @ x.reshape(-1, x.shape[-1]))

        return x @ weight.T, pull


@pytest.fixture
def vjp():
    return Counted()


class LinearPulled(NamedTuple):
    d_x: np.ndarray
    d_weight: np.ndarray


class TestDerived:
    """The seam behind which hand-derived functions stand."""

    def test_one_node_with_the_given_pullback(self, vjp):
        g = np.random.default_rng(0)
        ops = tape.DerivedOps({"linear": vjp})
        x, weight = tape.leaf(g.standard_normal((2, 3, 4))), tape.leaf(g.standard_normal((5, 4)))
        result = ops.linear(x, weight)
        np.testing.assert_array_equal(result.data, x.data @ weight.data.T)
        d_x, d_weight = tape.gradients((result * 2).sum(), [x, weight])
        np.testing.assert_allclose(d_x, 2 * np.ones((2, 3, 5)) @ weight.data + 1)
        np.testing.assert_allclose(d_weight, 2 * np.ones((5, 6)) @ x.data.reshape(6, 4))
        assert vjp.calls == [("forward", np.ndarray, np.ndarray), ("backward", np.ndarray)]

    def test_one_tensor_twice_gets_both_gradients(self, vjp):
        x = tape.leaf(np.eye(3))
        result = tape.DerivedOps({"linear": vjp}).linear(x, x, round_inputs=True)
        [found] = tape.gradients(result.sum(), [x])
        np.testing.assert_allclose(found, np.ones((3, 3)) @ np.eye(3) + 1 + np.ones((3, 3)))

    def test_packed_weights_take_the_reference(self, vjp):
        arguments = CALLS["linear fp8"].arguments(np.random.default_rng(0), 2, 3)
        x = tape.leaf(arguments[0])
        found = tape.DerivedOps({"linear": vjp}).linear(x, arguments[1])
        np.testing.assert_array_equal(found.data, Ops.linear(*arguments))
        assert vjp.calls == []

    def test_plain_arguments_give_constants(self, vjp):
        found = tape.DerivedOps({"linear": vjp}).linear(np.eye(3), np.eye(3))
        assert isinstance(found, tape.Tensor)
        assert found.node is None

    @pytest.mark.parametrize("used", ["first", "second", "both"])
    def test_several_results_and_names_within_arguments(self, used):
        """As of mhc_weights and experts: a result that nobody used has a gradient of zeros."""

        def several(x, routing, expert_list):
            def pull(d_result):
                assert d_result.number is None
                d_x = d_result.first + 10 * d_result.second
                return PulledByName(d_x, d_x.sum() * np.ones_like(routing.weights), [None, Expert(d_x, None, 2 * d_x)])

            return Sums(x, x, np.arange(3)), pull

        class PulledByName(NamedTuple):
            d_x: np.ndarray
            d_weights: np.ndarray
            d_expert_list: list

        x, weights = tape.leaf(np.ones(2)), tape.leaf(np.ones(3))
        matrices = [Expert(*(tape.leaf(np.ones(2)) for _ in range(3))) for _ in range(2)]
        result = tape.DerivedOps({"experts": several}).experts(x, Routing(weights, np.arange(3)), matrices)
        assert isinstance(result, Sums)
        assert isinstance(result.number, np.ndarray)
        parts = {"first": result.first, "second": result.second, "both": result.first + result.second}
        factor = {"first": 1, "second": 10, "both": 11}[used]
        leaves = [x, weights, *matrices[0], *matrices[1]]
        found = tape.gradients(parts[used].sum(), leaves)
        expected = [1, 2, 0, 0, 0, 1, 0, 2]
        for one, times in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, factor * times)

    def test_an_argument_without_a_gradient_is_an_error(self):
        def forgetful(x, weight):
            return x @ weight.T, lambda g: ForgetfulPulled(g @ weight)

        class ForgetfulPulled(NamedTuple):
            d_x: np.ndarray

        ops = tape.DerivedOps({"linear": forgetful})
        result = ops.linear(tape.leaf(np.eye(2)), np.eye(2))
        x = tape.leaf(np.eye(2))
        result = ops.linear(x, tape.leaf(np.eye(2)))
        with pytest.raises(TypeError, match="expected a gradient for each of x, weight, found"):
            tape.gradients(result.sum(), [x])

    def test_a_name_that_is_no_operation(self, vjp):
        with pytest.raises(ValueError, match="found 'lineal'"):
            tape.DerivedOps({"lineal": vjp})
