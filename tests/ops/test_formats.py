"""The codecs against ml_dtypes for every code, a search over exact fractions for rounding, and examples by hand."""

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4.ops import formats
from ops.naive import FP4, FP8, LARGEST
from strategies import extreme, laid_out, sizes
from verdicts import exact

ENCODE = {FP4: formats.fp4_encode, FP8: formats.fp8_encode}
DECODE = {FP4: formats.fp4_decode, FP8: formats.fp8_decode}
FINITE_CODES = {FP4: np.arange(8, dtype=np.uint8), FP8: np.arange(0x7F, dtype=np.uint8)}
SIGN_BIT = {FP4: np.uint8(8), FP8: np.uint8(128)}

both_formats = pytest.mark.parametrize("number_format", [FP4, FP8], ids=["fp4", "fp8"])
both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def magnitudes(number_format):
    """The magnitudes of the finite codes, as ml_dtypes has them."""
    return FINITE_CODES[number_format].view(number_format).astype(np.float64)


@pytest.mark.parametrize(("number_format", "count"), [(FP4, 16), (FP8, 256)], ids=["fp4", "fp8"])
def test_every_code_is_the_value_of_ml_dtypes(number_format, count):
    codes = np.arange(count, dtype=np.uint8)
    exact(DECODE[number_format](codes), codes.view(number_format).astype(np.float32))


@both_formats
@both_dtypes
def test_every_value_encodes_to_its_code(number_format, dtype):
    codes = np.concatenate([FINITE_CODES[number_format], FINITE_CODES[number_format] | SIGN_BIT[number_format]])
    exact(ENCODE[number_format](DECODE[number_format](codes).astype(dtype)), codes)


@both_formats
@both_dtypes
@pytest.mark.parametrize("sign", [1, -1])
def test_a_tie_goes_to_the_even_code_and_its_neighbours_to_the_nearer_one(number_format, dtype, sign):
    table = magnitudes(number_format)
    middle = ((table[:-1] + table[1:]) / 2).astype(dtype)
    lower = FINITE_CODES[number_format][:-1]
    bit = SIGN_BIT[number_format] if sign < 0 else np.uint8(0)
    encode = ENCODE[number_format]
    exact(encode(sign * middle), np.where(lower % 2 == 0, lower, lower + 1).astype(np.uint8) | bit)
    exact(encode(sign * np.nextafter(middle, dtype(0))), lower | bit)
    exact(encode(sign * np.nextafter(middle, dtype(np.inf))), (lower + 1).astype(np.uint8) | bit)


@pytest.mark.parametrize(("x", "rounded"), [(2.5, 2), (5, 4), (0.75, 1), (0.25, 0), (1.75, 2), (3.5, 4), (1.25, 1)])
def test_fp4_ties_by_hand(x, rounded):
    found = formats.fp4_decode(formats.fp4_encode(np.array([x, -x], np.float32)))
    exact(found, np.array([rounded, -rounded if rounded else -0.0], np.float32))


@pytest.mark.parametrize(("x", "rounded"), [(17, 16), (19, 20), (432, 448), (2.0**-10, 0), (3 * 2.0**-10, 2.0**-8)])
def test_fp8_ties_by_hand(x, rounded):
    found = formats.fp8_decode(formats.fp8_encode(np.array([x, -x], np.float32)))
    exact(found, np.array([rounded, -rounded if rounded else -0.0], np.float32))


@both_formats
@given(data=st.data(), rows=sizes(), columns=sizes(0, 40))
def test_rounding_is_that_of_ml_dtypes(number_format, data, rows, columns):
    x = data.draw(extreme(rows, columns))
    if data.draw(st.booleans()):
        row_largest = np.abs(x).max(axis=-1, keepdims=True, initial=1e-38)
        x = (x / row_largest * np.float32(1.2 * LARGEST[number_format])).astype(np.float32)
    clipped = np.clip(x, -LARGEST[number_format], LARGEST[number_format])
    exact(ENCODE[number_format](x), clipped.astype(number_format).view(np.uint8))


@both_formats
@given(x=st.floats(-500, 500) | st.floats(-7, 7) | st.floats(-0.1, 0.1))
def test_no_magnitude_is_nearer_than_the_chosen_one(number_format, x):
    table = [Fraction(value) for value in magnitudes(number_format)]
    distances = [abs(abs(Fraction(x)) - value) for value in table]
    nearest = [code for code, distance in enumerate(distances) if distance == min(distances)]
    expected = nearest[0] if len(nearest) == 1 else next(code for code in nearest if code % 2 == 0)
    found = int(ENCODE[number_format](np.array([x]))[0])
    assert found == expected | (SIGN_BIT[number_format] if np.signbit(x) else 0)


@both_formats
@both_dtypes
def test_what_is_too_large_becomes_the_largest_value(number_format, dtype):
    largest = LARGEST[number_format]
    x = np.array([np.nextafter(dtype(largest), dtype(np.inf)), 1.04 * largest, 1e38, np.inf], dtype)
    exact(DECODE[number_format](ENCODE[number_format](x)), np.full(4, largest, np.float32))
    exact(DECODE[number_format](ENCODE[number_format](-x)), np.full(4, -largest, np.float32))


@both_formats
def test_zeros_and_what_rounds_to_zero_keep_their_sign(number_format):
    x = np.array([0.0, -0.0, 1e-38, -1e-38, 1e-45, -1e-45], np.float32)
    exact(ENCODE[number_format](x), np.tile([np.uint8(0), SIGN_BIT[number_format]], 3))


@both_dtypes
def test_nan_is_fp8_code_7f_and_no_fp4_code(dtype):
    x = np.array([1, np.nan, -np.nan], dtype)
    exact(formats.fp8_encode(x), np.array([0x38, 0x7F, 0x7F], np.uint8))
    with pytest.raises(ValueError, match="NaN"):
        formats.fp4_encode(x)


def test_a_code_beyond_fp4_is_refused():
    with pytest.raises(IndexError):
        formats.fp4_decode(np.array([16], np.uint8))


def test_the_low_nibble_is_the_even_column():
    exact(formats.fp4_pack(np.array([1, 2, 15, 0], np.uint8)), np.array([0x21, 0x0F], np.uint8))
    exact(formats.fp4_unpack(np.array([0x21, 0x0F], np.uint8)), np.array([0.5, 1.0, -6.0, 0.0], np.float32))


@given(data=st.data(), rows=sizes(), pairs=sizes(0, 9))
def test_packing_loses_nothing(data, rows, pairs):
    codes = np.random.default_rng(rows + pairs).integers(0, 16, (rows, 2 * pairs)).astype(np.uint8)
    packed = formats.fp4_pack(data.draw(laid_out(codes)))
    assert packed.shape == (rows, pairs)
    assert packed.dtype == np.uint8
    exact(formats.fp4_unpack(data.draw(laid_out(packed))), formats.fp4_decode(codes))


def test_an_odd_number_of_columns_is_not_packed():
    with pytest.raises(ValueError, match="even, found 3"):
        formats.fp4_pack(np.zeros((2, 3), np.uint8))


def test_every_scale_byte_is_a_power_of_two():
    codes = np.arange(255, dtype=np.uint8)
    exact(formats.e8m0_decode(codes), codes.view(ml_dtypes.float8_e8m0fnu).astype(np.float32))
    hand = formats.e8m0_decode(np.array([0, 127, 128, 254], np.uint8))
    exact(hand, np.array([2.0**-127, 1, 2, 2.0**127], np.float32))


def test_scale_byte_255_is_nan():
    exact(formats.e8m0_decode(np.array([255, 127], np.uint8)), np.array([np.nan, 1], np.float32))


@both_dtypes
def test_every_scale_has_its_byte(dtype):
    scales = np.append(2.0 ** np.arange(-127, 128), np.nan).astype(dtype)
    exact(formats.e8m0_encode(scales), np.arange(256).astype(np.uint8))


@pytest.mark.parametrize("scale", [0.0, -1.0, 3.0, 1.0000001, np.inf, 2.0**128, 2.0**-128])
def test_what_is_no_power_of_two_has_no_scale_byte(scale):
    with pytest.raises(ValueError, match="power of two"):
        formats.e8m0_encode(np.array([1.0, scale]))


def test_a_single_number_is_an_array_without_axes():
    one = np.array(2.0)
    codes = formats.fp4_encode(one), formats.fp8_encode(one), formats.e8m0_encode(one)
    assert [(np.shape(code), int(code)) for code in codes] == [((), 4), ((), 64), ((), 128)]
