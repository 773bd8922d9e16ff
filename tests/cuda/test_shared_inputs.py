"""What products that share an input need of it is made once, and never taken from another input."""

import gc
import weakref

import numpy as np
import pytest

from backends import CUDA_ON_HOST
from conftest import created
from dsv4.ops import Expert, Routing
from dsv4.ops.quantise import quantise_fp4, quantise_fp8
from dsv4_accel.cuda import activations, indexer

WIDTH = 128


@pytest.fixture
def ops():
    """A backend whose launches are listed from here on."""
    activations.forget_all()
    backend = created(CUDA_ON_HOST)
    backend.device.launched.clear()
    return backend


def numbers(ops, seed, *shape):
    return ops.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


def stored(ops, seed, store, rows=16, columns=WIDTH):
    weight = store(np.random.default_rng(seed).standard_normal((rows, columns), np.float32))
    return ops.place(weight)


def made(ops):
    """How often an input was laid out."""
    return ops.device.launched.count("prepare_rows")


def test_an_input_is_laid_out_once_rounded_and_once_as_it_is(ops):
    x, packed, dense = numbers(ops, 1, 2, WIDTH), stored(ops, 2, quantise_fp8), stored(ops, 3, np.asarray)
    first = [ops.linear(x, packed, True), ops.linear(x, dense), ops.linear(x, packed, False)]
    assert made(ops) == 2
    again = [ops.linear(x, packed, True), ops.linear(x, dense), ops.linear(x, packed, False)]
    assert made(ops) == 2
    activations.forget_all()
    anew = [ops.linear(x, packed, True), ops.linear(x, dense), ops.linear(x, packed, False)]
    for results in (again, anew):
        for one, other in zip(first, results, strict=True):
            np.testing.assert_array_equal(ops.to_numpy(one), ops.to_numpy(other))
    assert (ops.to_numpy(first[0]) != ops.to_numpy(first[2])).any()  # what is rounded is something else


def test_groups_of_columns_are_laid_out_by_themselves(ops):
    x, whole, part = numbers(ops, 4, 3, 2 * WIDTH), stored(ops, 5, np.asarray, 8, 2 * WIDTH), stored(ops, 6, np.asarray)
    found = ops.linear(x, whole), ops.grouped_linear(x, part, 2)
    assert made(ops) == 2
    activations.forget_all()
    expected = ops.grouped_linear(x, part, 2), ops.linear(x, whole)
    np.testing.assert_array_equal(ops.to_numpy(found[0]), ops.to_numpy(expected[1]))
    np.testing.assert_array_equal(ops.to_numpy(found[1]), ops.to_numpy(expected[0]))


def test_the_routed_experts_and_the_shared_one_share_their_input(ops):
    x = numbers(ops, 7, 3, WIDTH)
    one, two, three = (
        Expert(*(stored(ops, seed, quantise_fp4, WIDTH) for seed in range(n, n + 3))) for n in (8, 11, 14)
    )
    routing = Routing(numbers(ops, 17, 3, 2), ops.asarray(np.array([[0, 1], [1, 0], [0, 1]])))
    ops.experts(x, routing, [two, three], 10.0, True)
    ops.expert(x, numbers(ops, 18, 3), one, 10.0, True)
    assert made(ops) == 1


def test_another_input_with_the_name_of_a_dead_one_is_laid_out(ops):
    """Python may give the place of an array that is gone to the next one."""
    weight, first = stored(ops, 19, np.asarray), numbers(ops, 20, 1, WIDTH)
    ops.linear(first, weight)
    [((_, *of_the_product), kept)] = activations._kept.items()
    del first
    gc.collect()
    second = numbers(ops, 21, 1, WIDTH)
    activations._kept[ops.device.address(second), *of_the_product] = kept  # as if it had come to stand there
    found = ops.to_numpy(ops.linear(second, weight))
    np.testing.assert_allclose(found, second.inner @ weight.inner.T, rtol=0, atol=1e-4)
    assert made(ops) == 2


def test_the_same_numbers_in_another_shape_are_laid_out_once(ops):
    x, weight = numbers(ops, 22, 2, 3, WIDTH), stored(ops, 23, np.asarray)
    found = ops.linear(x, weight), ops.linear(x.reshape(6, WIDTH), weight)
    assert made(ops) == 1
    np.testing.assert_array_equal(ops.to_numpy(found[0]).reshape(6, -1), ops.to_numpy(found[1]))
    part = ops.linear(x.reshape(6, WIDTH)[:2], weight)  # begins at the same place
    assert made(ops) == 2
    np.testing.assert_array_equal(ops.to_numpy(part), ops.to_numpy(found[1])[:2])


@pytest.mark.parametrize("width", [128, 200, 1024, 1028, 4096])
@pytest.mark.parametrize("rows", [1, 8, 9])
def test_a_norm_of_few_rows_lays_them_out(ops, rows, width):
    """The bits are those of a norm and a product by themselves, one row among many."""
    many, norm = np.random.default_rng(24).standard_normal((9, width), np.float32), numbers(ops, 25, width)
    many[:2] *= 1e-35  # too small for three pieces; the second row but for one number
    many[1, 100] = 1
    packed, dense = stored(ops, 26, quantise_fp8, 16, width), stored(ops, 27, np.asarray, 16, width)
    x = ops.rms_norm(ops.asarray(many[:rows]), norm, 1e-6)
    found = x, ops.linear(x, packed, True), ops.linear(x, dense)
    assert made(ops) == (0 if rows <= 8 else 2)
    expected = ops.rms_norm(ops.asarray(many), norm, 1e-6)
    activations.forget_all()
    expected = expected, ops.linear(expected, packed, True), ops.linear(expected, dense)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ops.to_numpy(one), ops.to_numpy(other)[:rows])


@pytest.mark.parametrize("tokens", [1, 3, 8, 9])
def test_products_of_one_input_share_a_launch(ops, tokens):
    """Those that are stored alike, of few tokens. A weight of 13 rows does not end with a whole vector."""
    x = numbers(ops, 1, tokens, WIDTH)
    weights = [stored(ops, seed, quantise_fp8, rows) for seed, rows in ((2, 40), (3, 13), (4, 16))]
    weights += [stored(ops, seed, np.asarray, rows) for seed, rows in ((5, 13), (6, 20))]
    expected = [ops.to_numpy(ops.linear(x, weight, True)) for weight in weights]
    for _ in range(2):  # the second time with what the first has left
        ops.device.launched.clear()
        found = ops.linears(x, weights, True)
        assert len(ops.device.launched) == (2 if tokens <= 8 else len(weights))
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(ops.to_numpy(one), other)


@pytest.mark.parametrize("store", [np.asarray, quantise_fp8])
def test_weights_that_were_multiplied_together_can_be_gone(ops, store):
    x, weights = numbers(ops, 1, 2, WIDTH), [stored(ops, 2, store), stored(ops, 3, store)]
    ops.linears(x, weights)
    watched = [weakref.ref(weight) for weight in weights]
    del weights
    gc.collect()
    assert [one() for one in watched] == [None, None]


@pytest.mark.parametrize("tokens", [1, 3, 8, 9])
def test_a_grouped_product_lays_out_its_result_rounded(ops, tokens):
    """A row of two chunks, the second not whole: each is rounded by whichever of its blocks is done last."""
    x, part = numbers(ops, 1, tokens, 2 * WIDTH), stored(ops, 2, quantise_fp8, 2 * 80)
    packed, dense = stored(ops, 3, quantise_fp8, 16, 160), stored(ops, 4, np.asarray, 16, 160)
    middle = ops.grouped_linear(x, part, 2)
    before = made(ops)
    found = ops.linear(middle, packed, True), ops.linear(middle, dense)
    assert made(ops) - before == (1 if tokens <= 8 else 2)
    activations.forget_all()
    for one, weight in zip(found, (packed, dense), strict=True):
        np.testing.assert_array_equal(ops.to_numpy(one), ops.to_numpy(ops.linear(middle, weight, True)))


@pytest.mark.parametrize("tokens", [1, 3])
def test_the_first_product_of_experts_makes_what_the_second_takes(ops, tokens):
    """The bits are those of a launch between them, which an expert has that is not rounded, or has many tokens."""
    x, share = np.random.default_rng(1).standard_normal((60, WIDTH), np.float32), numbers(ops, 2, 60)
    matrices = Expert(stored(ops, 3, quantise_fp4, 160), stored(ops, 4, quantise_fp4, WIDTH, 160),
                      stored(ops, 5, quantise_fp4, 160))  # fmt: skip
    found = ops.expert(ops.asarray(x[:tokens]), share[:tokens], matrices, 2.0, True)
    assert "prepare_hidden" not in ops.device.launched
    together = ops.expert(ops.asarray(x), share, matrices, 2.0, True)
    assert "prepare_hidden" in ops.device.launched
    np.testing.assert_array_equal(ops.to_numpy(found), ops.to_numpy(together)[:tokens])


def prepared_queries(ops, seed):
    """Queries of the indexer, which the launch that makes them prepares for its scores."""
    positions, frequencies = ops.asarray(np.array([[3, 5]])), numbers(ops, 2, 4)
    return ops.index_queries(numbers(ops, seed, 1, 2, 8, 64), positions, frequencies, True)


def test_queries_are_prepared_by_the_launch_that_makes_them(ops):
    queries, keys, weights = prepared_queries(ops, 1), numbers(ops, 3, 1, 20, 64), numbers(ops, 4, 1, 2, 8)
    found = ops.index_scores(queries, keys, weights)
    assert ops.device.launched == ["index_queries", "index_scores"]
    first = ops.index_scores(queries[:, :1], keys, weights[:, :1])  # begins at the same place
    assert ops.device.launched.count("prepare_queries") == 1
    np.testing.assert_array_equal(ops.to_numpy(found)[:, :1], ops.to_numpy(first))


def test_other_queries_in_the_place_of_dead_ones_are_prepared(ops):
    first, keys, weights = prepared_queries(ops, 1), numbers(ops, 3, 1, 20, 64), numbers(ops, 4, 1, 2, 8)
    [((_, *of_the_rows), kept)] = indexer._prepared_last.items()
    del first
    gc.collect()
    assert not indexer._prepared_last
    second = numbers(ops, 5, 1, 2, 8, 64)
    indexer._prepared_last[ops.device.address(second), *of_the_rows] = kept  # as if it had come to stand there
    ops.index_scores(second, keys, weights)
    assert ops.device.launched.count("prepare_queries") == 1


def test_only_the_last_inputs_are_kept(ops):
    inputs, weight = (
        [numbers(ops, seed, 1, WIDTH) for seed in range(activations.MOST_KEPT + 1)],
        stored(ops, 9, np.asarray),
    )
    for x in inputs:
        ops.linear(x, weight)
    ops.linear(inputs[1], weight)
    assert made(ops) == len(inputs)
    ops.linear(inputs[0], weight)
    assert made(ops) == len(inputs) + 1
    assert len(activations._kept) == activations.MOST_KEPT
    del inputs, x
    gc.collect()
    assert not activations._kept


def test_visits_to_one_expert_are_grouped_once_for_each_number_of_tokens(ops):
    matrices = Expert(*(stored(ops, seed, quantise_fp4, WIDTH) for seed in (1, 2, 3)))
    counts = []
    for tokens in (3, 4, 3):
        ops.expert(numbers(ops, tokens, tokens, WIDTH), numbers(ops, 9, tokens), matrices, 10.0, True)
        counts.append(ops.device.launched.count("group_visits"))
    assert counts == [1, 2, 2]
