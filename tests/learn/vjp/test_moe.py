"""The experts' pullbacks against finite differences on both sides of the clamps, with experts that no token visited."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dsv4.learn import vjp
from dsv4.learn.vjp.moe import swiglu
from dsv4.ops import Expert, Routing
from learn.vjp.differences import hold
from strategies import generators, sizes

LIMITS = st.sampled_from([0.7, 10.0])


def random_expert(generator, d, width):
    return Expert(*(generator.standard_normal(shape) for shape in ((width, d), (d, width), (width, d))))


def away_from_the_clamps(x, experts, limit):
    """Whether no gate or up of any token and expert is so near to the limit that a difference would straddle it."""
    products = [x @ matrix.T for expert in experts for matrix in (expert.w1, expert.w3)]
    return all((np.abs(np.abs(product) - limit) > 5e-3).all() for product in products)


@given(tokens=sizes(0, 3), d=sizes(1, 3), width=sizes(1, 3), limit=LIMITS, generator=generators)
def test_expert(tokens, d, width, limit, generator):
    x, weight = generator.standard_normal((tokens, d)), generator.standard_normal(tokens)
    matrices = random_expert(generator, d, width)
    assume(away_from_the_clamps(x, [matrices], limit))

    def parts(x, weight, matrices, *_):
        return [x, weight, *matrices]

    hold("expert", (x, weight, matrices, limit, False), generator, parts)


@given(tokens=sizes(0, 3), count=sizes(1, 3), k=sizes(1, 2), limit=LIMITS, generator=generators)
def test_experts(tokens, count, k, limit, generator):
    """A token may name an expert twice."""
    x = generator.standard_normal((tokens, 2))
    routing = Routing(generator.standard_normal((tokens, k)), generator.integers(0, count, (tokens, k)))
    experts = [random_expert(generator, 2, 3) for _ in range(count)]
    assume(away_from_the_clamps(x, experts, limit))
    met = np.unique(routing.indices)

    def parts(x, routing, expert_list, *_):
        weights = routing.weights if isinstance(routing, Routing) else routing
        return [x, weights, *(matrix for number in met for matrix in expert_list[number])]

    hold("experts", (x, routing, experts, limit, False), generator, parts)


class Unread:
    """Experts of which only the second may be looked at."""

    def __init__(self, expert):
        self.expert = expert

    def __len__(self):
        return 3

    def __getitem__(self, number):
        assert number == 1, f"expert {number} was touched and not chosen"
        return self.expert


def test_an_expert_that_no_token_met_is_not_touched_and_gets_none():
    generator = np.random.default_rng(0)
    routing = Routing(np.ones((2, 1)), np.array([[1], [1]]))
    _, pull = vjp.experts(np.ones((2, 2)), routing, Unread(random_expert(generator, 2, 3)), 10.0, False)
    first, second, third = pull(np.ones((2, 2))).d_expert_list
    assert first is None and third is None
    assert all(gradient.any() for gradient in second)


@pytest.mark.parametrize(
    ("gate", "up", "gate_moves", "up_moves"),
    [(3.0, 1.0, False, True), (-3.0, 1.0, True, True), (1.0, 3.0, True, False), (1.0, -3.0, True, False)],
)
def test_a_clamped_number_gets_no_gradient(gate, up, gate_moves, up_moves):
    """The gate is clamped above only, up on both sides."""
    _, pull = swiglu(np.array([gate]), np.array([up]), 2.0)
    d_gate, d_up = pull(np.ones(1))
    assert (d_gate[0] != 0, d_up[0] != 0) == (gate_moves, up_moves)
