"""V4.1's own operations: entries in FP4 with E4M3 scales, candidates, Engram, experts with inputs in blocks of 32.

Every backend is held to the official results, and to what the definition says by itself; and in test_interface, to what
every operation promises.
"""

import inspect
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsv4.checkpoint.header import read_header
from dsv4.checkpoint.mapping import MappedFile
from dsv4.ops import OPERATIONS, OPERATIONS_41, Expert, Fp8Weight, Ops, Routing, dequantise
from dsv4.ops.candidates import candidate_blocks, top_k_among
from dsv4.ops.engram import engram_moduli, engram_multipliers, table_rows
from dsv4.ops.formats import FP8_MAGNITUDES
from dsv4.ops.moe import expert_scores, swiglu
from dsv4.ops.moe41 import MX_BLOCK
from dsv4.ops.quantise import fake_quant_fp4, fake_quant_fp8, quantise_fp4, quantise_fp8
from verdicts import close, exact, hold

DATA = Path(__file__).parents[1] / "data"
STORED = DATA / "formats_v41.safetensors"
GOLDEN = {name: MappedFile(STORED).tensor(entry) for name, entry in read_header(STORED).items()}
CONSTANTS = json.loads((DATA / "engram_constants.json").read_text())


def numbers(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_a_backend_offers_what_the_reference_offers(backend):
    assert not set(OPERATIONS_41) & set(OPERATIONS) and len(OPERATIONS_41) == 8
    for name in OPERATIONS_41:
        expected = list(inspect.signature(getattr(Ops, name)).parameters)
        assert list(inspect.signature(getattr(backend, name)).parameters) == expected, name


def test_entries_are_rounded_as_by_the_official_code(ops):
    exact(ops.fake_quant_nvfp4(GOLDEN["entry.x"]), GOLDEN["entry.y"])


def test_other_formats_are_those_of_the_official_code(ops):
    exact(ops.fake_quant_fp8(GOLDEN["fp8_32.x"], MX_BLOCK), GOLDEN["fp8_32.y"])
    exact(ops.fake_quant_fp4(GOLDEN["fp4_32.x"]), GOLDEN["fp4_32.y"])
    weight = Fp8Weight(GOLDEN["weight.codes"], GOLDEN["weight.scales"], (32, 32))
    exact(dequantise(weight), GOLDEN["weight.values"])
    x = numbers(1, 3, weight.shape[1])
    close(ops.linear(x, weight), x @ GOLDEN["weight.values"].T.astype(np.float64))


@given(seed=st.integers(0, 2**32 - 1), size=st.floats(-20, 12), width=st.integers(1, 40))
def test_a_rounded_entry_has_scales_of_e4m3_and_stays_what_it_is(seed, size, width):
    x = numbers(seed, 3, width) * np.float32(2.0**size)
    rounded = Ops.fake_quant_nvfp4(x)
    exact(Ops.fake_quant_nvfp4(rounded), rounded)
    for start in range(0, width, 16):
        group, given_group = rounded[:, start : start + 16], x[:, start : start + 16]
        scale = np.abs(group).max(axis=1) / 6
        is_floored = np.abs(given_group).max(axis=1) <= 6 * 2.0**-9
        assert (is_floored | np.isin(scale, FP8_MAGNITUDES)).all()
        assert (np.abs(group - given_group).max(axis=1) <= np.maximum(scale, 2.0**-9) * (1 + 1e-6)).all() or size > 11


def test_the_largest_number_of_a_group_is_clamped_where_the_scale_was_rounded_down():
    """6.2 over 6 is 1.0333, of which E4M3 makes 1: the largest number is 6 then."""
    x = np.full((1, 16), 0.5, np.float32)
    x[0, 3] = 6.2
    assert Ops.fake_quant_nvfp4(x)[0, 3] == 6
    assert Ops.fake_quant_nvfp4(np.full((1, 1), 1e6, np.float32))[0, 0] == 448 * 6


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_group_without_a_number_is_nan(ops, bad):
    x = np.ones((1, 32), np.float32)
    x[0, 3] = bad
    exact(np.isnan(ops.fake_quant_nvfp4(x)), np.arange(32)[None] < 16)


@given(seed=st.integers(0, 2**32 - 1), size=st.integers(-30, 30), width=st.integers(1, 70))
def test_entries_of_any_size_are_rounded_alike(ops, seed, size, width):
    """Also small numbers beside large ones, zeros of both signs, and widths that fill no group."""
    generator = np.random.default_rng(seed)
    x = numbers(seed, 3, width) * np.exp2(size + generator.integers(-4, 5, (3, width)))
    x = np.where(generator.random((3, width)) < 0.2, np.copysign(0, x), x).astype(np.float32)
    exact(ops.fake_quant_nvfp4(x), Ops.fake_quant_nvfp4(x))


def test_ties_of_scales_and_of_codes_go_to_the_even_one(ops):
    """Every scale, and what lies half way between two; and ties of codes at each scale."""
    scales = np.concatenate([FP8_MAGNITUDES[1:], (FP8_MAGNITUDES[1:-1] + FP8_MAGNITUDES[2:]) / 2])
    steps = np.array([24, 1, 3, 5, 7, 10, 14, 20, -1, -3, -5, -7, -10, -14, -20, 0]) / 4
    x = (scales[:, None] * steps).astype(np.float32)
    exact(ops.fake_quant_nvfp4(x), Ops.fake_quant_nvfp4(x))
    whole = x[: len(FP8_MAGNITUDES) - 1] / FP8_MAGNITUDES[1:, None]
    rounded = [6, 0, 1, 1, 2, 2, 4, 4, -0.0, -1, -1, -2, -2, -4, -4, 0]
    exact(ops.fake_quant_nvfp4(whole.astype(np.float32))[-1], np.array(rounded, np.float32))


@pytest.mark.parametrize(("size", "count"), [(4, 3), (5, 20), (8, 2)])
def test_pools_are_those_of_the_official_code(size, count):
    visible = np.arange(1, 38)[None]
    blocks = candidate_blocks(GOLDEN["pool.scores"][None], visible, size, count)
    pool = [np.isin(np.arange(37) // size, row[row >= 0]) for row in blocks[0]]
    exact(np.array(pool), GOLDEN[f"pool.block{size}.top{count}"] == 1)


def naive_pool(scores, visible, size, count):
    """The blocks of one query, with Python's own sort."""
    best = {}
    for entry in range(visible):
        best[entry // size] = max(best.get(entry // size, -math.inf), scores[entry])
    if visible:
        best[(visible - 1) // size] = math.inf
    return sorted(best, key=lambda block: (-best[block], block))[:count]


@given(st.data())
def test_choosing_in_a_pool_is_choosing_among_what_it_holds(data):
    """Per query; −1 where a pool has fewer visible entries than are wanted, and nothing else is taken then."""
    entries, size = data.draw(st.integers(0, 14)), data.draw(st.integers(1, 5))
    count, k, length = (data.draw(st.integers(1, 6)) for _ in range(3))
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    scores = generator.integers(-3, 4, (1, length, entries)).astype(np.float32)
    visible = generator.integers(0, entries + 1, (1, length))
    pool = candidate_blocks(scores, visible, size, count)
    found = top_k_among(scores, visible, pool, size, k)
    assert pool.shape[2] == min(count, -(-entries // size)) and found.shape[2] == min(k, entries)
    for t in range(length):
        blocks = naive_pool(scores[0, t], int(visible[0, t]), size, count)
        assert pool[0, t][pool[0, t] >= 0].tolist() == blocks
        allowed = [entry for entry in range(visible[0, t]) if entry // size in blocks]
        expected = sorted(allowed, key=lambda entry: (-scores[0, t, entry], entry))[:k]
        assert found[0, t].tolist() == expected + [-1] * (found.shape[2] - len(expected))


def test_fused_operations_are_those_of_their_scores(ops):
    queries, keys, weights = numbers(1, 2, 5, 3, 8), numbers(2, 2, 11, 8), numbers(3, 2, 5, 3)
    visible = np.random.default_rng(4).integers(0, 12, (2, 5))
    scores = ops.index_scores(queries, keys, weights)
    pool = ops.index_candidates(queries, keys, weights, visible, 3, 2)
    exact(pool, candidate_blocks(scores, visible, 3, 2))
    exact(ops.index_top_k_among(queries, keys, weights, visible, pool, 3, 4), top_k_among(scores, visible, pool, 3, 4))


@given(data=st.data(), entries=st.integers(1, 300), size=st.integers(1, 9), count=st.integers(1, 9))
@settings(max_examples=25)
def test_pools_and_choices_are_those_of_the_scores(ops, data, entries, size, count):
    """Many equal scores, some of NaN; nothing visible, or all; pools in any order, with gaps and blocks named twice."""
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    k, blocks = data.draw(st.integers(1, 40)), -(-entries // size)
    draws = ((2, 3, 2, 4), (2, entries, 4), (2, 3, 2))
    queries, keys, weights = (generator.integers(-2, 3, shape).astype(np.float32) for shape in draws)
    if data.draw(st.booleans()):
        keys[:, generator.integers(0, entries, 1 + entries // 4)] = np.nan
    visible = generator.integers(0, entries + 1, (2, 3))
    scores = ops.index_scores(queries, keys, weights)
    found = ops.index_candidates(queries, keys, weights, visible, size, count)
    exact(found, candidate_blocks(scores, visible, size, count))
    pool = generator.integers(-1, blocks, (2, 3, count))
    chosen = ops.index_top_k_among(queries, keys, weights, visible, pool, size, k)
    exact(chosen, top_k_among(scores, visible, pool, size, k))


def test_a_pool_of_thousands_of_entries(ops):
    """More than are scored together, by a query that sees half of them and one that sees nearly all."""
    queries, keys, weights = numbers(1, 1, 2, 4, 16), numbers(2, 1, 3000, 16), numbers(3, 1, 2, 4)
    visible = np.array([[1501, 2999]])
    scores = ops.index_scores(queries, keys, weights)
    pool = ops.index_candidates(queries, keys, weights, visible, 8, 100)
    exact(pool, candidate_blocks(scores, visible, 8, 100))
    exact(
        ops.index_top_k_among(queries, keys, weights, visible, pool, 8, 64), top_k_among(scores, visible, pool, 8, 64)
    )


SCORED = numbers(1, 1, 2, 1, 4), numbers(2, 1, 3, 4), numbers(3, 1, 2, 1)
UNFIT = [
    ("index_candidates", (*SCORED, np.ones((1, 3), int), 1, 1)),
    ("index_top_k_among", (*SCORED, np.ones((1, 2), int), np.zeros((1, 3, 1), int), 1, 1)),
    ("engram_rows", (np.ones((1, 1), np.int64), np.ones(3, np.int64), np.ones((2, 1), np.int64))),
    ("engram_gate", (numbers(1, 1, 2, 2, 4), numbers(2, 1, 2, 8), numbers(3, 2, 4), numbers(4, 2, 4), 1e-6)),
]


@pytest.mark.parametrize(("name", "arguments"), UNFIT, ids=[name for name, _ in UNFIT])
def test_what_does_not_fit_is_refused(ops, name, arguments):
    with pytest.raises(ValueError, match=r"candidate_blocks|top_k_among|engram_rows|engram_gate"):
        getattr(ops, name)(*arguments)


def test_constants_of_the_released_engram():
    config = CONSTANTS
    multipliers = [engram_multipliers(layer, config["compressed_vocab_size"], 4) for layer in config["layers"]]
    exact(np.array(multipliers), np.array(config["multipliers"]))
    moduli = engram_moduli(2, 4, 8, 16_000_000)
    exact(moduli, np.array(config["primes"]))
    assert moduli.sum(axis=(1, 2)).tolist() == config["rows"]


def test_rows_of_the_released_engram(ops):
    """The official rows of two texts; before each stands the class of the pad token."""
    moduli = engram_moduli(2, 4, 8, 16_000_000)
    for text, official in zip(CONSTANTS["class_sequences"], CONSTANTS["hash_rows"], strict=True):
        classes = np.array([[CONSTANTS["pad_class_in_example"]] * 3 + text])
        for place, layer in enumerate(CONSTANTS["layers"]):
            multipliers = engram_multipliers(layer, CONSTANTS["compressed_vocab_size"], 4)
            found = ops.engram_rows(classes, multipliers, moduli[place])[0]
            exact(found, np.array(official)[:, place])


def test_the_gate_is_that_of_the_official_code(ops):
    arguments = (GOLDEN[f"gate.{name}"] for name in ("streams", "kv", "q_weight", "k_weight"))
    close(ops.engram_gate(*arguments, 1e-20), GOLDEN["gate.out"].astype(np.float64))


@given(data=st.data(), n=st.integers(1, 4), d=st.integers(1, 70), size=st.integers(-20, 10))
def test_the_gate_is_its_formula(ops, data, n, d, size):
    """Streams and keys of any size, alike or opposite; each stream has a norm and a key of its own."""
    seed = data.draw(st.integers(0, 2**32 - 1))
    streams, kv = numbers(seed, 2, 3, n, d) * np.float32(2.0**size), numbers(seed + 1, 2, 3, (n + 1) * d)
    kv[0, 0, : n * d] = streams[0, 0].ravel() * data.draw(st.sampled_from([-1, 1]))
    weights = numbers(seed + 2, n, d), numbers(seed + 3, n, d)
    terms = 16 * (np.abs(streams).max() + np.abs(kv).max())  # the root of a dot product near 0 magnifies its error
    hold(ops, "engram_gate", naive_gate, streams, kv, *weights, 1e-6, magnitude=terms)


def naive_gate(streams, kv, q_weight, k_weight, eps):
    result = streams.copy()
    n, d = streams.shape[2:]
    for b, t, i in np.ndindex(streams.shape[:3]):
        stream, key = streams[b, t, i], kv[b, t, i * d : (i + 1) * d]
        roots = [math.sqrt(sum(number**2 for number in row) / d + eps) for row in (stream, key)]
        dot = (stream * q_weight[i] * k_weight[i] * key).sum() / (roots[0] * roots[1]) / math.sqrt(d)
        share = 1 / (1 + math.exp(-math.copysign(math.sqrt(max(abs(dot), 1e-6)), dot)))
        result[b, t, i] += share * kv[b, t, n * d :]
    return result


@pytest.mark.parametrize("stored", [lambda table: table, lambda table: quantise_fp8(table, (1, 32))])
def test_rows_of_a_table(stored):
    table = stored(numbers(5, 9, 64))
    rows = np.array([[3, 8, 3], [0, 1, 2]])
    exact(table_rows(table, rows), dequantise(table)[rows])
    with pytest.raises(IndexError):
        table_rows(table, np.array([9]))


def test_the_weight_of_a_single_expert_is_its_score(ops):
    logits, bias = numbers(6, 7, 5), numbers(7, 5)
    scores = expert_scores(logits.astype(np.float64), "sqrtsoftplus")
    for k in (1, 2):
        found = ops.route41(logits, bias, k, "sqrtsoftplus", 1.5)
        exact(found.indices, ops.route(logits, bias, k, "sqrtsoftplus", 1.5).indices)
        chosen = np.take_along_axis(scores, found.indices, axis=1)
        close(found.weights, 1.5 * chosen / (chosen.sum(axis=1, keepdims=True) if k > 1 else 1))


@pytest.mark.parametrize("rounds", [False, True])
def test_inputs_of_experts_are_rounded_in_blocks_of_32(ops, rounds):
    """Small numbers beside large ones, which count as much: with one scale for 128 channels they would vanish."""
    sizes = (2.0 ** np.array([-14, 0, 6, -9])).astype(np.float32)
    x = (numbers(8, 5, 4, 32) * sizes[:, None]).reshape(5, 128)
    inputs = [numbers(seed, 128, 4, 32) / sizes[:, None] / 16 for seed in (9, 10)]
    w1, w3 = (quantise_fp4(weight.reshape(128, 128)) for weight in inputs)
    makes = [Expert(w1, quantise_fp4(numbers(11, 128, 128) / 16), w3)]
    share = np.linspace(0.5, 1.5, 5, dtype=np.float32)
    w1, w2, w3 = (dequantise(matrix, np.float64) for matrix in makes[0])
    rounded = fake_quant_fp8(x, 32) if rounds else x
    hidden = share[:, None] * swiglu(rounded @ w1.T, rounded @ w3.T, 10.0)
    hidden = fake_quant_fp8(hidden.astype(np.float32), 32) if rounds else hidden
    found = ops.mx_expert(x, share, makes[0], 10.0, rounds)
    close(found, hidden @ w2.T)
    routing = Routing(share[:, None], np.zeros((5, 1), np.int64))
    close(ops.mx_experts(x, routing, makes, 10.0, rounds), found.astype(np.float64))
    assert (fake_quant_fp8(x, 32) != fake_quant_fp8(x, 128)).any()


def test_groups_of_16_and_of_32_differ():
    x = np.concatenate([numbers(1, 4, 16), 9 * numbers(2, 4, 16)], axis=1)
    assert (Ops.fake_quant_nvfp4(x) != fake_quant_fp4(x)).any(axis=1).all()
