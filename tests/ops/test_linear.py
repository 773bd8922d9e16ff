"""Matrix products, compared with sums written out one product at a time, over weights of every storage form."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4.ops import Fp4Weight, Fp8Weight, Ops, dequantise
from dsv4.ops.map_arrays import map_arrays
from dsv4.ops.quantise import quantise_fp4, quantise_fp8
from ops.naive import FP8, fake_quant, matrix_vector
from strategies import indices, laid_out, normal, sizes
from verdicts import as_good, close, exact, hold

STORE = {
    "fp8": quantise_fp8,
    "mx": lambda weight: quantise_fp8(weight, (32, 32)),
    "fp4": quantise_fp4,
    "bf16": lambda weight: weight.astype(ml_dtypes.bfloat16),
}
every_storage = pytest.mark.parametrize("storage", STORE)
every_product = pytest.mark.parametrize("round_inputs", [False, True])


def naive_linear(x, weight):
    """y = x @ W.T, one row and one product at a time, in float64."""
    result = np.zeros((*x.shape[:-1], weight.shape[0]))
    for row in np.ndindex(x.shape[:-1]):
        result[row] = matrix_vector(weight, x[row])
    return result


def size_of_terms(x, weight):
    """The largest sum of magnitudes that goes into one number of x @ W.T."""
    return (np.abs(x).astype(np.float64) @ np.abs(weight).astype(np.float64).T).max(initial=0)


@given(data=st.data(), leading=st.lists(sizes(0, 3), max_size=3), width=sizes(0, 40), out=sizes())
def test_linear_is_the_sum_of_products(ops, data, leading, width, out):
    x, weight = data.draw(normal(*leading, width)), data.draw(normal(out, width))
    hold(ops, "linear", naive_linear, x, weight, magnitude=size_of_terms(x, weight))


@every_storage
@every_product
@given(data=st.data(), rows=sizes(), blocks=sizes(1, 5), out=st.sampled_from([1, 3, 130]))
def test_products_with_stored_weights(ops, round_inputs, storage, data, rows, blocks, out):
    x = data.draw(normal(rows, 32 * blocks, scale=data.draw(st.sampled_from([1e-3, 1, 100]))))
    weight = STORE[storage](data.draw(normal(out, 32 * blocks)))
    values = dequantise(weight, np.float64)
    rounds = round_inputs and storage != "bf16"  # a dense weight's input never is
    seen = fake_quant(x, 128, FP8) if rounds else x.astype(np.float64)
    truth, terms = seen @ values.T, size_of_terms(seen, values)
    wide = ops.linear(x.astype(np.float64), weight, round_inputs)
    assert wide.dtype == np.float64
    close(wide, truth, terms)
    found = ops.linear(x, weight, round_inputs)
    assert found.dtype == np.float32
    as_good(found, truth, Ops.linear(x, weight, round_inputs), terms)


def test_linear_rounds_its_input_only_where_asked(ops):
    x = np.array([[1 + 2.0**-20] + [0.0] * 31], np.float32)
    weight = quantise_fp8(np.eye(2, 32, dtype=np.float32))
    assert ops.linear(x, weight)[0, 0] == x[0, 0]
    assert ops.linear(x, weight, True)[0, 0] == 1.0


def test_the_input_is_rounded_in_blocks_of_128(ops):
    x = np.zeros((1, 192), np.float32)
    x[0, [0, 64, 128]] = 448 * 1024, 1.0, 1.0  # beside 448·1024, 1.0 is a tie with zero
    weight = np.zeros((3, 192), np.float32)
    weight[[0, 1, 2], [0, 64, 128]] = 1.0
    exact(ops.linear(x, quantise_fp8(weight), True), np.array([[448 * 1024, 0, 1]], np.float32))


def test_each_token_has_input_scales_of_its_own(ops):
    x = np.zeros((2, 128), np.float32)
    x[0, 0], x[1, 5] = 448 * 1024, 1.0
    weight = np.ones((1, 128), np.float32)
    exact(ops.linear(x, quantise_fp8(weight), True), np.array([[448 * 1024], [1]], np.float32))


def test_a_packed_byte_is_two_columns_and_its_scale_a_power_of_two(ops):
    packed = np.array([[0x21] + [0] * 15 + [0x70] + [0] * 15], np.uint8)
    weight = Fp4Weight(packed, np.array([[129, 126]], np.uint8))  # 4 · (0.5, 1), then 0.5 · (0, 6)
    x = np.zeros((4, 64), np.float32)
    x[[0, 1, 2, 3], [0, 1, 32, 33]] = 1
    exact(ops.linear(x, weight), np.array([[2], [4], [0], [3]], np.float32))


def test_edge_squares_have_scales_of_their_own(ops):
    codes = np.full((129, 130), 0x38, np.uint8)  # all ones
    weight = Fp8Weight(codes, np.array([[127, 128], [129, 130]], np.uint8))
    x = np.zeros((2, 130), np.float32)
    x[0, 127], x[1, 128] = 1, 1
    expected = np.array([[1.0] * 128 + [4], [2.0] * 128 + [8]], np.float32)
    exact(ops.linear(x, weight), expected)


@every_product
@given(data=st.data(), leading=st.lists(sizes(0, 3), max_size=2), storages=st.lists(st.sampled_from([*STORE, ""])))
def test_products_of_one_input_are_those_of_each_weight(ops, round_inputs, data, leading, storages):
    x = data.draw(normal(*leading, 160))
    dense = [data.draw(normal(data.draw(st.sampled_from([1, 3, 130])), 160)) for _ in storages]
    weights = [STORE[storage](matrix) if storage else matrix for storage, matrix in zip(storages, dense, strict=True)]
    for dtype in (np.float32, np.float64):
        found = ops.linears(x.astype(dtype), weights, round_inputs)
        assert isinstance(found, tuple)
        for one, weight in zip(found, weights, strict=True):
            assert one.dtype == dtype
            alone = ops.linear(x.astype(dtype), weight, round_inputs)
            close(one, alone.astype(np.float64), size_of_terms(x, dequantise(weight)))


def test_one_input_is_rounded_weight_by_weight(ops):
    x = np.array([[1 + 2.0**-20] + [0.0] * 31], np.float32)
    dense = np.eye(2, 32, dtype=np.float32)
    weights = quantise_fp8(dense), dense, dense.astype(ml_dtypes.bfloat16), quantise_fp4(dense)
    for order in (weights, weights[1:3], weights[::-1]):
        for found, weight in zip(ops.linears(x, order, True), order, strict=True):
            assert found[0, 0] == (x[0, 0] if isinstance(weight, np.ndarray) else 1.0)


def test_a_weight_may_stand_among_others_twice(ops):
    x, weight = np.eye(3, 5, dtype=np.float32), np.arange(20, dtype=np.float32).reshape(4, 5)
    for found, factor in zip(ops.linears(x, [weight, 2 * weight, weight]), (1, 2, 1), strict=True):
        exact(found, factor * weight.T[:3])


def test_weights_may_lie_in_any_order(ops):
    """Column by column, and narrower than what a kernel goes through at once."""
    x, weight = np.eye(3, 5, dtype=np.float32), np.arange(20, dtype=np.float32).reshape(4, 5)
    by_columns = np.asfortranarray(weight)
    for found in (ops.linear(x, by_columns), *ops.linears(x, [by_columns, weight])):
        exact(found, weight.T[:3])
    exact(ops.grouped_linear(np.eye(2, 10, dtype=np.float32), by_columns, 2)[0], np.array([0, 5, 0, 0], np.float32))


def test_one_weight_that_does_not_fit_is_an_error(ops):
    with pytest.raises(ValueError, match=r"x has 33 channels, but the weight \(2, 32\)"):
        ops.linears(np.ones((1, 33), np.float32), [np.ones((2, 33), np.float32), np.ones((2, 32), np.float32)])


def naive_grouped(x, weight, groups):
    """Each group of channels with its own run of rows."""
    rank, width = weight.shape[0] // groups, weight.shape[1]
    result = np.zeros((*x.shape[:-1], weight.shape[0]))
    for row in np.ndindex(x.shape[:-1]):
        for group in range(groups):
            own_channels = x[row][group * width : (group + 1) * width]
            own_rows = weight[group * rank : (group + 1) * rank]
            result[row][group * rank : (group + 1) * rank] = matrix_vector(own_rows, own_channels)
    return result


@given(data=st.data(), leading=st.lists(sizes(0, 3), max_size=2), groups=sizes(1), width=sizes(1, 9), rank=sizes(1))
def test_grouped_linear_gives_each_group_its_own_rows(ops, data, leading, groups, width, rank):
    x, weight = data.draw(normal(*leading, groups * width)), data.draw(normal(groups * rank, width))
    terms = 16 * max(1, np.abs(x).max(initial=0)) * np.abs(weight).max()
    hold(ops, "grouped_linear", naive_grouped, x, weight, groups, magnitude=terms)


@given(data=st.data(), group=st.integers(0, 3))
def test_a_group_does_not_see_the_others(ops, data, group):
    x, weight = data.draw(normal(2, 3, 32)), data.draw(normal(12, 8))
    alone = np.zeros_like(x)
    alone[..., 8 * group : 8 * group + 8] = x[..., 8 * group : 8 * group + 8]
    all_groups, only_one = ops.grouped_linear(x, weight, 4), ops.grouped_linear(alone, weight, 4)
    own = slice(3 * group, 3 * group + 3)
    close(only_one[..., own], all_groups[..., own], magnitude=100)
    assert not np.delete(only_one, np.arange(12)[own], axis=-1).any()


@every_storage
def test_grouped_linear_takes_stored_weights_and_an_input_that_is_not_rounded(ops, storage):
    generator = np.random.default_rng(5)
    x = generator.standard_normal((2, 3, 64)).astype(np.float32)
    weight = STORE[storage](generator.standard_normal((6, 32)).astype(np.float32))
    truth = naive_grouped(x.astype(np.float64), dequantise(weight, np.float64), 2)
    close(ops.grouped_linear(x.astype(np.float64), weight, 2), truth)
    as_good(ops.grouped_linear(x, weight, 2), truth, Ops.grouped_linear(x, weight, 2))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, ml_dtypes.bfloat16])
@given(data=st.data(), leading=st.lists(sizes(0, 3), max_size=3), vocabulary=sizes(1, 9))
def test_embedding_takes_rows(ops, dtype, data, leading, vocabulary):
    table = data.draw(normal(vocabulary, 5)).astype(dtype)
    ids = np.maximum(data.draw(indices(*leading, rows=vocabulary)), 0)
    expected = np.zeros((*leading, 5), np.float64 if dtype == np.float64 else np.float32)
    for position in np.ndindex(*leading):
        expected[position] = table[ids[position]]
    exact(ops.embedding(ids, table), expected)


@given(data=st.data())
def test_stored_weights_may_lie_anyhow_in_memory(ops, data):
    weight = np.random.default_rng(3).standard_normal((130, 160)).astype(np.float32)
    x = data.draw(normal(2, 160))
    for packed in (quantise_fp8(weight), quantise_fp4(weight)):
        moved = map_arrays(packed, lambda part: data.draw(laid_out(part)))
        close(ops.linear(x, moved), ops.linear(x, packed), magnitude=100)


@pytest.mark.parametrize("bad_id", [-1, 7, 1000])
def test_an_id_outside_the_table_is_an_error(ops, bad_id):
    with pytest.raises(IndexError, match=rf"0 … 6, found .*{bad_id}"):
        ops.embedding(np.array([[0, bad_id]]), np.zeros((7, 2), np.float32))


@every_product
@pytest.mark.parametrize("storage", [None, "fp8", "fp4"])
def test_a_product_needs_as_many_channels_as_the_weight(ops, round_inputs, storage):
    weight = np.ones((2, 32), np.float32)
    with pytest.raises(ValueError, match="x has 33 channels, but the weight"):
        ops.linear(np.ones((1, 33), np.float32), STORE[storage](weight) if storage else weight, round_inputs)


@pytest.mark.parametrize(("channels", "rows", "groups"), [(8, 3, 2), (6, 4, 2), (8, 4, 4)])
def test_groups_must_fit(ops, channels, rows, groups):
    with pytest.raises(ValueError, match=f"{groups} groups of .* do not fit {channels} channels"):
        ops.grouped_linear(np.ones((1, channels), np.float32), np.ones((rows, 4), np.float32), groups)
