"""Products with stored weights at the limits: extreme scale bytes, codes of NaN, infinite inputs, odd shapes.

NaN and infinities must stand where NumPy has them, and what is finite must be as good as NumPy's.
"""

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsv4.ops import Expert, Fp4Weight, Fp8Weight, Ops, Routing, dequantise
from dsv4.ops.map_arrays import map_arrays
from dsv4.ops.quantise import fake_quant_fp8, is_quantised, quantise_fp4, quantise_fp8
from strategies import laid_out
from verdicts import as_good, exact

STORE = {
    "float32": lambda weight: weight,
    "bf16": lambda weight: weight.astype(ml_dtypes.bfloat16),
    "fp8": quantise_fp8,
    "mx": lambda weight: quantise_fp8(weight, (32, 32)),
    "fp4": quantise_fp4,
}
ROWS = {"fp8": 128, "mx": 32, "fp4": 1}
"""Of a weight, that share a scale."""
ONES, HALF_ONES = {"fp4": 0x22, "fp8": 0x38, "mx": 0x38}, {"fp4": 0x9A, "fp8": 0xB0, "mx": 0xB0}
"""Bytes of 1.0, two of them in FP4; and of −0.5, after −1 in FP4."""
every_storage = pytest.mark.parametrize("storage", STORE)
packed_storage = pytest.mark.parametrize("storage", ROWS)

SIDE = 288
"""Rows and columns of a weight: two whole FP8 squares each way and a part of one."""


def numbers(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def stored(storage, seed=1):
    return STORE[storage](numbers(seed, SIDE, SIDE) / np.float32(16))


def parts(weight):
    return [part.copy() for part in vars(weight).values() if isinstance(part, np.ndarray)]


def rebuilt(storage, codes, scales):
    """A weight of this storage with these parts."""
    weight = stored(storage)
    return replace(weight, **dict(zip(vars(weight), (codes, scales), strict=False)))


def products(ops, x, weight, other):
    """x times a weight in every operation that takes one; of two experts one has it as each of its matrices."""
    shares = np.linspace(0.5, 1.5, len(x), dtype=np.float32)
    routing = Routing(shares[:, None], np.arange(len(x))[:, None] % 2)
    pair = [Expert(other, other, other), Expert(weight, weight, weight)]
    with np.errstate(all="ignore"):
        return {
            "linear": ops.linear(x, weight),
            "linear that rounds": ops.linear(x, weight, True),
            "grouped_linear": ops.grouped_linear(np.concatenate([x, 2 * x], axis=1), weight, 2),
            "expert": ops.expert(x, shares, pair[1], 5.0, False),
            "experts": ops.experts(x, routing, pair, 5.0, False),
            "experts that round": ops.experts(x, routing, pair, 5.0, True),
        }


def agree(ops, x, weight, storage):
    """Not finite where NumPy's results are not, in the same way, and elsewhere not far from them; returns NumPy's."""
    other = stored(storage, seed=9)
    found, expected = products(ops, x, weight, other), products(Ops, x, weight, other)
    for name, result in expected.items():
        np.testing.assert_array_equal(np.isnan(found[name]), np.isnan(result), name)
        infinite, finite = np.isinf(result), np.isfinite(result)
        np.testing.assert_array_equal(found[name][infinite], result[infinite], name)
        limit = 1e-5 * np.abs(result[finite]).max(initial=0)
        if name == "experts that round":  # a hidden number on a boundary may be tipped
            limit *= 1000
        np.testing.assert_allclose(found[name][finite], result[finite], rtol=0, atol=limit, err_msg=name)
    return expected


@pytest.mark.parametrize("byte", [0, 1, 127, 253, 254])
@packed_storage
def test_extreme_scale_bytes(ops, storage, byte):
    """2^−127, which is a subnormal float32, to 2^127, where codes above 1 would be infinite."""
    codes, scales = parts(stored(storage))
    codes[:] = np.where(numbers(2, *codes.shape) > 0, ONES[storage], HALF_ONES[storage])
    scales[:] = byte
    weight = rebuilt(storage, codes, scales)
    values = dequantise(weight, np.float64)
    assert np.isfinite(values).all()
    x = numbers(3, 5, SIDE) * np.float32(2.0 ** (-20 if byte > 127 else 100 if byte < 2 else 0))
    truth, terms = x.astype(np.float64) @ values.T, (np.abs(x).astype(np.float64) @ np.abs(values).T).max()
    as_good(ops.linear(x, weight), truth, Ops.linear(x, weight), terms)
    rounded = fake_quant_fp8(x, 128)
    truth = rounded.astype(np.float64) @ values.T
    as_good(ops.linear(x, weight, True), truth, Ops.linear(x, weight, True), terms)


@packed_storage
def test_each_block_has_its_own_scale(ops, storage):
    """All bytes from 100 to 150 side by side; the neighbour's scale would be off by a factor of two at least."""
    codes, scales = parts(stored(storage))
    scales[:] = 100 + np.arange(scales.size).reshape(scales.shape) * 7 % 51
    weight = rebuilt(storage, codes, scales)
    values = dequantise(weight, np.float64)
    for column in range(0, SIDE, 16):
        x = np.zeros((2, SIDE), np.float32)
        x[0, column : column + 16] = numbers(column, 16)
        x[1, column] = 1
        truth = x.astype(np.float64) @ values.T
        exact(ops.linear(x, weight)[1], truth[1].astype(np.float32))
        found, baseline = ops.linear(x, weight)[0] / values_of_blocks(values, column), Ops.linear(x, weight)[0]
        as_good(found, truth[0] / values_of_blocks(values, column), baseline / values_of_blocks(values, column))


def values_of_blocks(values, column):
    """The largest magnitude of each row within 16 columns, by which its result is measured."""
    return np.abs(values[:, column : column + 16]).max(axis=1).astype(np.float32)


@pytest.mark.parametrize("place", [(0, 0), (1, 2), (2, 1), (-1, -1)])
@packed_storage
def test_scales_that_are_nan(ops, storage, place):
    """Exactly the rows with such a scale are NaN, whatever x is there; the other expert is not touched by it."""
    codes, scales = parts(stored(storage))
    scales[place] = 255
    weight = rebuilt(storage, codes, scales)
    x = numbers(4, 6, SIDE)
    x[:2] = 0
    expected = agree(ops, x, weight, storage)
    first = np.arange(len(scales))[place[0]] * ROWS[storage]
    bad = np.arange(first, min(first + ROWS[storage], SIDE))
    assert np.isnan(expected["linear"]).all(axis=0).nonzero()[0].tolist() == list(bad)
    assert np.isfinite(expected["experts"][0::2]).all()
    assert np.isnan(expected["experts"][1::2]).any()


@packed_storage
@pytest.mark.parametrize("tokens", [1, 70])
def test_a_scale_that_is_nan_is_not_infinite(ops, storage, tokens):
    """With ones everywhere nothing cancels, so that an infinite scale would give infinity.

    Also where inputs are rounded: unrounded ones may come in pieces, and a piece of 0 makes infinity a NaN.
    """
    codes, scales = parts(stored(storage))
    codes[:] = ONES[storage]
    scales[:] = 127
    scales[1, 1] = 255
    bad = slice(ROWS[storage], 2 * ROWS[storage])
    for round_inputs in (False, True):
        found = ops.linear(np.ones((tokens, SIDE), np.float32), rebuilt(storage, codes, scales), round_inputs)
        assert np.isnan(found[:, bad]).all()
        assert (np.delete(found, np.r_[bad], axis=1) == SIDE).all()


@pytest.mark.parametrize("code", [0x7F, 0xFF])
@pytest.mark.parametrize("place", [(0, 0), (130, 100), (200, 130), (287, 287)])
@pytest.mark.parametrize("storage", ["fp8", "mx"])
def test_codes_that_are_nan(ops, storage, place, code):
    codes, scales = parts(stored(storage))
    codes[place] = code
    x = numbers(5, 6, SIDE)
    x[:2] = 0
    expected = agree(ops, x, rebuilt(storage, codes, scales), storage)
    assert np.isnan(expected["linear"]).all(axis=0).nonzero()[0].tolist() == [place[0]]


def test_every_code_is_its_value(ops):
    """All 256 codes of FP8 and all 256 pairs of FP4, column by column."""
    codes = np.arange(256, dtype=np.uint8)[None]
    of_fp8 = (
        Fp8Weight(codes, np.full((1, 2), 127, np.uint8)),
        Fp8Weight(codes, np.full((1, 8), 127, np.uint8), (32, 32)),
    )
    for weight in (*of_fp8, Fp4Weight(codes, np.full((1, 16), 127, np.uint8))):
        values = dequantise(weight)
        x = np.eye(weight.shape[1], dtype=np.float32)
        clean = np.where(np.isnan(values), 0, values)
        found = ops.linear(x, weight)[:, 0]
        if np.isnan(values).any():  # then every product with this row is
            assert np.isnan(found).all()
            codes = np.where(np.isnan(values), 0, codes).astype(np.uint8)
            found = ops.linear(x, replace(weight, codes=codes))[:, 0]
        np.testing.assert_array_equal(found, clean[0])
        codes = np.arange(256, dtype=np.uint8)[None]


@every_storage
@pytest.mark.parametrize("column", [0, 17, 129, 287])
def test_inputs_that_are_not_finite(ops, storage, column):
    """They spoil their own token and no other."""
    x, weight = numbers(6, 6, SIDE), stored(storage)
    clean = agree(ops, x, weight, storage)
    own, others = [1, 2, 5], [0, 3, 4]
    x[own, column] = np.inf, -np.inf, np.nan
    spoilt = agree(ops, x, weight, storage)
    for name in ("linear", "linear that rounds", "grouped_linear"):
        assert not np.isfinite(spoilt[name][own]).all(axis=tuple(range(1, spoilt[name].ndim))).any(), name
        assert np.isfinite(spoilt[name][others]).all(), name
    for name, found in products(ops, x, weight, stored(storage, 9)).items():
        np.testing.assert_allclose(found[others], clean[name][others], rtol=0, atol=1e-3, err_msg=name)


@every_storage
def test_infinities_of_both_signs_and_zeros(ops, storage):
    x = np.zeros((3, SIDE), np.float32)
    x[0, [3, 200]], x[1, [3, 4, 5]], x[2] = (np.inf, -np.inf), np.inf, -0.0
    expected = agree(ops, x, stored(storage), storage)
    assert np.isnan(expected["linear"][0]).any()
    assert not expected["linear"][2].any()


@every_storage
@pytest.mark.parametrize("scale", [1e-42, 1e-37, 1e33])
def test_inputs_near_the_ends_of_float32(ops, storage, scale):
    """Subnormal numbers are not taken for zeros, and large ones stay finite, also before a block's scale joins."""
    x, weight = (numbers(7, 5, SIDE) * np.float32(scale)).astype(np.float32), stored(storage)
    values = dequantise(weight, np.float64)
    truth = x.astype(np.float64) @ values.T
    unit = np.finfo(np.float32).smallest_subnormal
    terms = (np.abs(x).astype(np.float64) @ np.abs(values).T).max() + unit / np.finfo(np.float32).eps * SIDE
    as_good(ops.linear(x, weight), truth, Ops.linear(x, weight), terms)
    assert np.abs(ops.linear(x, weight)).max() > 0
    wide = np.concatenate([x, x], axis=1)
    truth = truth.copy()
    as_good(ops.grouped_linear(wide, weight, 2), truth, Ops.grouped_linear(wide, weight, 2), terms)


@every_storage
@pytest.mark.parametrize("tokens", [1, 2, 3, 4, 5, 63, 64, 65, 131])
@pytest.mark.parametrize(("rows", "columns"), [(1, 32), (3, 96), (5, 128), (66, 160), (130, 416), (257, 1152)])
def test_any_number_of_tokens_rows_and_columns(ops, storage, tokens, rows, columns):
    x, weight = numbers(8, tokens, columns), STORE[storage](numbers(9, rows, columns))
    values = dequantise(weight, np.float64)
    rounded = fake_quant_fp8(x, 128) if is_quantised(weight) else x
    for round_inputs, seen in ((False, x), (True, rounded)):
        truth = seen.astype(np.float64) @ values.T
        terms = (np.abs(seen).astype(np.float64) @ np.abs(values).T).max()
        as_good(ops.linear(x, weight, round_inputs), truth, Ops.linear(x, weight, round_inputs), terms)


@pytest.mark.parametrize("tokens", [1, 4, 70])
@pytest.mark.parametrize("columns", [1, 7, 15, 17, 127, 129, 333])
@pytest.mark.parametrize("storage", ["float32", "bf16", "fp8", "mx"])
def test_widths_that_fill_no_block(ops, storage, tokens, columns):
    x, weight = numbers(10, tokens, columns), STORE[storage](numbers(11, 10, columns))
    truth = x.astype(np.float64) @ dequantise(weight, np.float64).T
    terms = (np.abs(x).astype(np.float64) @ np.abs(dequantise(weight, np.float64)).T).max()
    as_good(ops.linear(x, weight), truth, Ops.linear(x, weight), terms)
    pairs = x.repeat(2, axis=0).reshape(tokens, 2 * columns)
    found, baseline = ops.grouped_linear(pairs, weight, 2), Ops.grouped_linear(pairs, weight, 2)
    as_good(found, Ops.grouped_linear(pairs.astype(np.float64), weight, 2), baseline, terms)


@pytest.mark.parametrize("shape", [(0, 64), (64, 0), (0, 0)])
@every_storage
def test_weights_without_rows_or_columns(ops, storage, shape):
    weight = STORE[storage](np.zeros((64, 64), np.float32))
    rows, columns = shape
    match weight:
        case Fp8Weight(codes, scales, (high, wide)):
            codes, scales = codes[:rows, :columns], scales[: -(-rows // high), : -(-columns // wide)]
            weight = replace(weight, codes=codes, scales=scales)
        case Fp4Weight(packed, scales):
            weight = Fp4Weight(packed[:rows, : columns // 2], scales[:rows, : columns // 32])
        case _:
            weight = weight[:rows, :columns]
    for tokens in (0, 1, 5):
        x = np.ones((tokens, columns), np.float32)
        exact(ops.linear(x, weight), np.zeros((tokens, rows), np.float32))
        exact(ops.linear(x, weight, True), np.zeros((tokens, rows), np.float32))
        exact(
            ops.grouped_linear(np.ones((tokens, 2 * columns), np.float32), weight, 2),
            np.zeros((tokens, rows), np.float32),
        )


@packed_storage
@given(data=st.data())
@settings(max_examples=15)
def test_packed_weights_may_lie_anyhow_in_memory(ops, storage, data):
    """Permuted, backwards and with gaps."""
    weight, x = stored(storage), numbers(12, 5, SIDE)
    moved = map_arrays(weight, lambda part: data.draw(laid_out(part)))
    other = stored(storage, 9)
    found, expected = (products(ops, x, one, other) for one in (moved, weight))
    for name, result in expected.items():
        np.testing.assert_allclose(found[name], result, rtol=0, atol=1e-3 * np.abs(result).max(), err_msg=name)


@every_storage
def test_writable_arrays_serve_as_read_only_ones_do(ops, backend, storage):
    """`ops` hands over read-only views, a model its activations as they are."""
    x, weight, other = numbers(13, 5, SIDE), stored(storage), stored(storage, 9)
    given = [backend.asarray(x)] if backend.asarray(x) is x else []
    if not given:
        pytest.skip("the backend's arrays are not NumPy's")
    found, expected = products(backend, x, weight, other), products(ops, x, weight, other)
    for name, result in expected.items():
        exact(found[name], result)
