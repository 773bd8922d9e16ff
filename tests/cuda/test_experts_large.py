"""Routing and experts where there are many of them: what the examples of tests/ops are too small to reach."""

from collections.abc import Sequence
from functools import cache

import ml_dtypes
import numpy as np
import pytest

from cuda.host_array import HostArray
from dsv4.ops import Expert, Ops, Routing
from dsv4.ops.quantise import quantise_fp4, quantise_fp8
from dsv4_accel.cuda.expert_table import table_of_one
from dsv4_accel.cuda.grouping import group
from verdicts import as_good, exact


def numbers(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("score_function", ["sqrtsoftplus", "sigmoid", "softmax"])
@pytest.mark.parametrize(("tokens", "count", "k"), [(1, 256, 6), (5, 384, 8), (3, 33, 33), (2, 700, 40)])
def test_routes_among_many_experts(ops, score_function, tokens, count, k):
    """384 and 33 fill no warp, 40 are more than it has lanes, 700 are more than fit where the ranks mostly lie."""
    logits, bias = numbers(1, tokens, count) * 3, numbers(2, count) * np.float32(0.1)
    found, expected = (one.route(logits, bias, k, score_function, 1.5) for one in (ops, Ops))
    exact(found.indices, expected.indices)
    truth = Ops.route_by_id(logits.astype(np.float64), expected.indices, score_function, 1.5).weights
    as_good(found.weights, truth, expected.weights)
    exact(ops.route_by_id(logits, found.indices, score_function, 1.5).weights, found.weights)
    for token in range(tokens):
        alone = ops.route(logits[token : token + 1], bias, k, score_function, 1.5)
        exact(alone.weights[0], found.weights[token])


@pytest.mark.parametrize("count", [300, 600])
def test_ties_and_numbers_that_are_none(ops, count):
    """Infinity is the best, NaN comes last, and zeros are above all that is negative: the order of NumPy's sort."""
    bias = np.where(np.arange(count) % 3, np.float32(-0.5), np.float32(-0.7))
    logits = np.zeros((3, count), np.float32)  # sigmoid(0) − 0.5 is 0
    bias[[7, 8, 200]] = -np.inf, np.nan, np.inf
    logits[1, [100, 5]], logits[2] = (np.nan, np.inf), np.nan
    found, expected = (one.route(logits, bias, count, "sigmoid", 1.0) for one in (ops, Ops))
    exact(found.indices, expected.indices)
    exact(np.isnan(found.weights), np.isnan(expected.weights))


def test_a_table_that_names_no_expert_is_noted(ops):
    with pytest.raises(ValueError, match=r"experts: numbers must lie in 0 … 3, found 4"):
        ops.route_by_id(np.zeros((2, 4), np.float32), np.array([[0, 1], [4, 2]]), "sigmoid", 1.0)


@pytest.mark.parametrize("tile_slots", [1, 8, 64])
@pytest.mark.parametrize(("tokens", "k", "experts"), [(1, 6, 256), (1, 1, 1), (33, 8, 5), (400, 6, 300), (1030, 1, 2)])
def test_slots_are_grouped_by_expert(ops, tokens, k, experts, tile_slots):
    """400 · 6 and 1030 slots are several chunks; 300 experts are more than a block has threads."""
    indices = np.random.default_rng(tokens).integers(0, experts, (tokens, k))
    indices[indices == 1] = 0  # nobody visits expert 1
    order, tiles = ops.fetch(group(ops.backend.device, ops.backend.asarray(indices), experts, tile_slots))
    exact(order, np.argsort(indices.ravel(), kind="stable").astype(np.int32))
    expected, start = [], 0
    for expert, count in enumerate(np.bincount(indices.ravel())):
        expected += [(expert, start + done, min(tile_slots, count - done)) for done in range(0, count, tile_slots)]
        start += count
    exact(tiles[: len(expected)], np.array(expected, np.int32))
    assert not tiles[len(expected) :, 2].any()


@pytest.mark.parametrize("tokens", [1, 2])
@pytest.mark.parametrize("by_id", [False, True])
def test_the_visits_of_a_single_token_are_grouped_where_they_are_chosen(ops, by_id, tokens):
    """And only of a single one. The bits are those of the same choice, grouped by itself."""
    backend, experts = ops.backend, ops.place(expert_list("fp4"))
    logits, x = (backend.asarray(numbers(seed, tokens, width)) for seed, width in ((1, COUNT), (2, WIDTH)))
    if by_id:
        chosen = backend.asarray(np.array([[4, 1, 3], [2, 0, 4]])[:tokens])
        routing = backend.route_by_id(logits, chosen, "sigmoid", 1.5)
    else:
        routing = backend.route(logits, backend.asarray(numbers(3, COUNT)), 3, "sigmoid", 1.5)
    backend.device.launched.clear()
    found = backend.experts(x, routing, experts, 2.0, True)
    assert backend.device.launched.count("group_visits") == (tokens > 1)
    again = Routing(routing.weights.copy(), routing.indices.copy())
    exact(backend.to_numpy(found), backend.to_numpy(backend.experts(x, again, experts, 2.0, True)))
    assert backend.device.launched.count("group_visits") == 1 + (tokens > 1)


def test_as_many_tiles_as_there_can_be(ops):
    """Every expert has one slot more than its tiles hold: there is a place for each tile, and none to spare."""
    indices = np.array([[0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3]])
    _, tiles = ops.fetch(group(ops.backend.device, ops.backend.asarray(indices), 4, 8))
    assert tiles[:, 2].tolist() == [8, 1, 1, 1, 1]


WIDTH, HIDDEN, COUNT = 160, 96, 6
"""Of x and of the hidden numbers: both whole FP4 blocks, and neither a whole number of tiles."""

STORE = {
    "float32": lambda weight: weight,
    "bf16": lambda weight: weight.astype(ml_dtypes.bfloat16),
    "fp8": quantise_fp8,
    "fp4": quantise_fp4,
}


@cache
def expert_list(storage):
    shapes = (HIDDEN, WIDTH), (WIDTH, HIDDEN), (HIDDEN, WIDTH)
    matrices = [STORE[storage](numbers(seed, *shapes[seed % 3]) / np.float32(8)) for seed in range(3 * COUNT)]
    return [Expert(*matrices[first : first + 3]) for first in range(0, 3 * COUNT, 3)]


def routed(tokens, k, experts=COUNT, seed=5):
    generator = np.random.default_rng(seed)
    return Routing(np.abs(numbers(seed, tokens, k)), generator.integers(0, experts, (tokens, k)))


ROUTINGS = {
    "one token, six experts": Routing(numbers(1, 1, 6), np.array([[3, 0, 5, 1, 4, 2]])),
    "one expert, all tokens": Routing(numbers(2, 21, 1), np.full((21, 1), 4)),
    "an expert twice": Routing(numbers(3, 2, 3), np.array([[2, 2, 0], [5, 2, 5]])),
    "experts without tokens": routed(19, 3, experts=3),
}


@pytest.mark.parametrize("storage", STORE)
@pytest.mark.parametrize("name", ROUTINGS)
def test_experts(ops, storage, name):
    routing, experts = ROUTINGS[name], expert_list(storage)
    x = numbers(4, len(routing.indices), WIDTH)
    found, baseline = (one.experts(x, routing, experts, 2.0, False) for one in (ops, Ops))
    wide = Routing(routing.weights.astype(np.float64), routing.indices)
    as_good(found, Ops.experts(x.astype(np.float64), wide, experts, 2.0, False), baseline)


@pytest.mark.parametrize("storage", ["fp8", "fp4"])
def test_experts_that_round_their_inputs(ops, storage):
    """A hidden number on the boundary of two FP8 numbers may be tipped, which is one part in sixteen of it."""
    routing, x = routed(9, 2), numbers(6, 9, WIDTH)
    found, expected = (one.experts(x, routing, expert_list(storage), 2.0, True) for one in (ops, Ops))
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-3 * np.abs(expected).max())
    plain = Ops.experts(x, routing, expert_list(storage), 2.0, False)
    assert np.abs(plain - expected).max() > 4e-3 * np.abs(expected).max()


@pytest.mark.parametrize("round_inputs", [False, True])
@pytest.mark.parametrize("storage", STORE)
def test_a_token_has_the_same_bits_in_any_company(ops, storage, round_inputs):
    """Alone, among others in another order, and beside tokens that spoil their own results."""
    routing, x, experts = routed(11, 3), numbers(7, 11, WIDTH), expert_list(storage)
    together = ops.experts(x, routing, experts, 2.0, round_inputs)
    for token in range(0, 11, 5):
        one = slice(token, token + 1)
        exact(ops.experts(x[one], Routing(*(part[one] for part in routing)), experts, 2.0, round_inputs), together[one])
    turned = ops.experts(x[::-1], Routing(*(part[::-1] for part in routing)), experts, 2.0, round_inputs)
    exact(turned[::-1], together)
    x[3:5] = np.nan
    spoilt = ops.experts(x, routing, experts, 2.0, round_inputs)
    assert np.isnan(spoilt[3:5]).all()
    exact(np.delete(spoilt, [3, 4], axis=0), np.delete(together, [3, 4], axis=0))


@pytest.mark.parametrize("storage", ["fp8", "fp4", "bf16"])
@pytest.mark.parametrize("round_inputs", [False, True])
def test_many_visits_and_few_give_the_same_bits(ops, storage, round_inputs):
    """150 tokens, most of them with one expert: more than two tiles. Then its tokens alone, by the other kernel."""
    generator, launched = np.random.default_rng(3), ops.backend.device.launched
    indices = np.where(generator.uniform(size=(150, 1)) < 0.9, 4, generator.integers(0, COUNT, (150, 1)))
    routing, x = Routing(numbers(1, 150, 1), indices), numbers(2, 150, WIDTH)
    experts = expert_list(storage)
    many = ops.experts(x, routing, experts, 2.0, round_inputs)
    assert "multiply_many" in launched[-1]
    for some in (slice(0, 1), slice(61, 72)):
        few = ops.experts(x[some], Routing(*(part[some] for part in routing)), experts, 2.0, round_inputs)
        assert "_few_" in launched[-1]
        exact(few, many[some])
    if not round_inputs:
        wide = Routing(routing.weights.astype(np.float64), indices)
        truth = Ops.experts(x.astype(np.float64), wide, experts, 2.0, False)
        as_good(many, truth, Ops.experts(x, routing, experts, 2.0, False))


@pytest.mark.parametrize("storage", STORE)
@pytest.mark.parametrize("width", [WIDTH, 256])
def test_what_is_kept_of_an_expert_does_not_hold_its_matrices(ops, storage, width):
    """Of a dense one, whose rows may be whole chunks, the array itself: it would never be gone."""
    matrices = [STORE[storage](numbers(seed, width, width)) for seed in range(3)]
    device, expert = ops.backend.device, Expert(*map(ops.backend.place, matrices))
    table = table_of_one(device, expert)
    own = {device.address(weight) for weight in expert if storage in ("float32", "bf16")}
    assert table.lasts
    assert not own & {device.address(array) for array in table.alive}
    assert len(table.alive) == (0 if own and width % 128 == 0 else 3 if own else 6)


@pytest.mark.parametrize("storage", STORE)
def test_infinities_stay_what_they_are(ops, storage):
    """With weights of ones, of whose pieces all but the first are 0."""
    ones = STORE[storage](np.ones((WIDTH, WIDTH), np.float32))
    x = np.zeros((3, WIDTH), np.float32)
    x[0, 3], x[1, 100], x[2, [7, 8]] = np.inf, -np.inf, (np.inf, -np.inf)
    arguments = x, np.ones(3, np.float32), Expert(ones, ones, ones), np.inf, False
    with np.errstate(invalid="ignore"):
        expected = Ops.expert(*arguments)
    assert np.isposinf(expected[0]).all()
    exact(ops.expert(*arguments), expected)


def test_every_expert_at_once_is_few_launches(ops):
    """However many experts a token visits, and without a look at which."""
    device = ops.backend.device
    launches = []
    for k in (2, 6):
        arguments = ops.place([numbers(8, 1, WIDTH), routed(1, k), expert_list("fp4")])
        HostArray.fetched = 0
        before = len(device.launched)
        ops.backend.experts(*arguments, 2.0, True)
        launches.append(device.launched[before:])
        assert HostArray.fetched == 0
    assert launches[0] == launches[1]
    assert len(launches[0]) == 4


def test_the_addresses_of_a_models_experts_are_looked_up_once(ops):
    class Counted(Sequence):
        def __init__(self, experts):
            self.experts, self.asked = experts, 0

        def __len__(self):
            return len(self.experts)

        def __getitem__(self, number):
            self.asked += 1
            return self.experts[number]

    def placed(storage):
        return Counted([Expert(*map(ops.backend.place, expert)) for expert in expert_list(storage)])

    counted = placed("fp4")
    routing, x = routed(2, 2), numbers(9, 2, WIDTH)
    first = ops.experts(x, routing, counted, 2.0, True)
    assert counted.asked == COUNT
    exact(ops.experts(x, routing, counted, 2.0, True), first)
    assert counted.asked == COUNT
    other = placed("fp8")  # may well have the identity of one that is gone
    exact(ops.experts(x, routing, other, 2.0, True), ops.experts(x, routing, expert_list("fp8"), 2.0, True))


def test_experts_that_are_not_alike(ops):
    """Each in its own storage; and one whose w2 alone is stored in FP8."""
    mixed = [expert_list(storage)[number] for number, storage in enumerate(["fp4", "fp8", "bf16", "float32"])]
    halves = [one._replace(w2=STORE["fp8"](one.w2)) for one in expert_list("float32")]
    for experts in (mixed, halves):
        routing, x = routed(7, 2, experts=len(experts)), numbers(10, 7, WIDTH)
        found, expected = (one.experts(x, routing, experts, 2.0, True) for one in (ops, Ops))
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-3 * np.abs(expected).max())


@pytest.mark.parametrize("number", [-1, COUNT, 2**40])
def test_an_expert_that_does_not_exist_is_noted(ops, number):
    routing = Routing(numbers(1, 2, 2), np.array([[0, 1], [number, 2]]))
    with pytest.raises(ValueError, match=rf"experts: numbers must lie in 0 … {COUNT - 1}, found {number}"):
        ops.experts(numbers(2, 2, WIDTH), routing, expert_list("fp4"), 2.0, True)
