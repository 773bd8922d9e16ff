"""Block scales, fake quantisation and packed weights against the official outputs, ml_dtypes and examples by hand."""

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dsv4.ops import Fp4Weight, Fp8Weight, dequantise, formats
from dsv4.ops.map_arrays import map_arrays
from dsv4.ops.quantise import block_scale, fp4_blocks, fp8_blocks, quantise_fp4, quantise_fp8
from ops.naive import FLOOR, FP4, FP8, LARGEST, fake_quant, golden, power_of_two_scale
from strategies import extreme, laid_out, normal, sizes
from verdicts import exact

GOLDEN = golden()
both_formats = pytest.mark.parametrize("number_format", [FP4, FP8], ids=["fp4", "fp8"])
both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def rounded(ops, x, block, number_format):
    """The backend's fake quantisation to the format."""
    return ops.fake_quant_fp4(x, block) if number_format is FP4 else ops.fake_quant_fp8(x, block)


@pytest.mark.parametrize("block", [64, 128])
def test_fp8_is_that_of_the_official_code(ops, block):
    exact(ops.fake_quant_fp8(GOLDEN["x"], block), GOLDEN[f"fp8_fake_quant.block{block}"])
    codes, scales = fp8_blocks(GOLDEN["x"], block)
    exact(codes, GOLDEN[f"fp8_codes.block{block}"])
    exact(scales, GOLDEN[f"fp8_scales.block{block}"])


def test_fp4_is_that_of_the_official_code(ops):
    exact(ops.fake_quant_fp4(GOLDEN["x"], 32), GOLDEN["fp4_fake_quant.block32"])
    exact(ops.fake_quant_fp4(GOLDEN["x"]), GOLDEN["fp4_fake_quant.block32"])


def test_weights_are_those_of_the_official_code():
    fp8 = Fp8Weight(GOLDEN["fp8_weight_codes"], GOLDEN["fp8_weight_scales_e8m0"])
    fp4 = Fp4Weight(GOLDEN["fp4_packed"], GOLDEN["fp4_scales_e8m0"])
    assert (fp8.shape, fp4.shape) == ((200, 300), (24, 128))
    exact(dequantise(fp8), GOLDEN["fp8_weight_dequantized"])
    exact(dequantise(fp4), GOLDEN["fp4_dequantized"])
    exact(dequantise(fp4, np.float64), GOLDEN["fp4_dequantized"].astype(np.float64))


@both_formats
@both_dtypes
def test_the_scale_is_found_without_rounding(number_format, dtype):
    exponents = np.arange(-100, 100) if number_format is FP4 else np.arange(-20, 100)
    fits = (LARGEST[number_format] * 2.0**exponents).astype(dtype)
    scales = (2.0**exponents).astype(dtype)
    arguments = (LARGEST[number_format], FLOOR[number_format])
    exact(block_scale(fits, *arguments), scales)
    exact(block_scale(np.nextafter(fits, dtype(0)), *arguments), scales)
    exact(block_scale(np.nextafter(fits, dtype(np.inf)), *arguments), 2 * scales)


@both_formats
@given(largest=st.floats(0, 2.0**127, width=32))
def test_the_scale_is_the_smallest_that_fits(number_format, largest):
    found = block_scale(np.array([largest], np.float32), LARGEST[number_format], FLOOR[number_format])
    exact(found, np.array([power_of_two_scale(largest, number_format)], np.float32))


def test_a_block_of_zeros_has_the_scale_of_the_floor():
    assert fp8_blocks(np.zeros((1, 64), np.float32), 64)[1][0, 0] == 2.0**-22  # 1e-4 / 448, rounded up
    assert fp4_blocks(np.zeros((1, 32), np.float32))[1][0, 0] == 2.0**-126


@both_formats
def test_a_magnitude_just_above_a_full_block_doubles_the_scale(ops, number_format):
    full = np.float32(LARGEST[number_format] * 1024)
    x = np.array([[full, 1024 * 1.5], [np.nextafter(full, np.float32(np.inf)), 1024 * 1.5]], np.float32)
    expected = [[full, 1536], [full, 2048 if number_format is FP4 else 1536]]  # at scale 2048, 0.75 is an FP4 tie
    exact(rounded(ops, x, 2, number_format), np.array(expected, np.float32))


@both_formats
@given(data=st.data(), rows=sizes(), columns=sizes(0, 11), block=sizes(1, 5))
def test_each_block_is_rounded_by_itself(ops, number_format, data, rows, columns, block):
    x = data.draw(extreme(rows, columns))
    expected = fake_quant(x, block, number_format)
    exact(rounded(ops, x, block, number_format), expected.astype(np.float32))
    exact(rounded(ops, x.astype(np.float64), block, number_format), expected)


@both_formats
@pytest.mark.parametrize("width", [1, 31, 32, 33, 64, 65, 100, 128, 130, 256, 300])
@pytest.mark.parametrize("block", [32, 64, 128])
def test_a_short_last_block_has_a_scale_of_its_own(ops, number_format, width, block):
    x = np.random.default_rng(width).standard_normal((2, width)) * 10.0 ** np.arange(width).clip(0, 30)
    x = x.astype(np.float32)
    exact(rounded(ops, x, block, number_format), fake_quant(x, block, number_format).astype(np.float32))


@both_formats
@given(data=st.data(), columns=sizes(1, 9))
def test_rounding_twice_changes_nothing_more(ops, number_format, data, columns):
    once = rounded(ops, data.draw(extreme(3, columns)), 4, number_format)
    exact(rounded(ops, once, 4, number_format), once)


@both_formats
@given(data=st.data())
def test_values_are_really_rounded(ops, number_format, data):
    x = data.draw(normal(4, 64))
    found = rounded(ops, x, 64, number_format)
    assert (found != x).mean() > 0.9
    step = 2.0**-4 if number_format is FP8 else 0.25  # half the gap of neighbours, relative to the lower one
    large = np.abs(x) > np.abs(x).max(axis=-1, keepdims=True) / 3
    assert (np.abs(found - x) <= step * np.abs(x))[large].all()


@pytest.mark.parametrize("block", [64, 128])
def test_how_many_channels_share_a_scale(ops, block):
    x = np.zeros((1, 128), np.float32)
    x[0, 0], x[0, 64] = 448 * 1024, 1.0  # at scale 1024, 1.0 is a tie with zero
    assert ops.fake_quant_fp8(x, block)[0, 64] == (1.0 if block == 64 else 0.0)


def test_32_channels_share_an_fp4_scale(ops):
    x = np.zeros((1, 64), np.float32)
    x[0, 0], x[0, 31], x[0, 32] = 6.0, 0.2, 0.2  # 0.2 rounds to 0 beside 6, and to 3/16 by itself
    exact(ops.fake_quant_fp4(x)[0, [0, 31, 32]], np.array([6, 0, 0.1875], np.float32))


@both_formats
@both_dtypes
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_bad_number_makes_its_block_nan_and_no_other(ops, number_format, dtype, bad):
    x = np.array([[1, bad, 4, 2, 3]], dtype)
    exact(rounded(ops, x, 2, number_format), np.array([[np.nan, np.nan, 4, 2, 3]], dtype))


@given(data=st.data(), out=st.sampled_from([0, 1, 127, 128, 129]), width=st.sampled_from([0, 1, 128, 130, 260]))
def test_an_fp8_weight_has_one_scale_per_square(data, out, width):
    weight = data.draw(normal(out, width)) * np.float32(data.draw(st.sampled_from([1e-6, 1, 1e6])))
    packed = quantise_fp8(weight)
    assert packed.scales.shape == (math.ceil(out / 128), math.ceil(width / 128))
    expected = np.zeros((out, width))
    for top in range(0, out, 128):
        for left in range(0, width, 128):
            square = weight[top : top + 128, left : left + 128]
            expected[top : top + 128, left : left + 128] = fake_quant(square.reshape(1, -1), square.size, FP8).reshape(
                square.shape
            )
    exact(dequantise(packed), expected.astype(np.float32))


@given(data=st.data(), out=sizes(0, 5), blocks=sizes(0, 3))
def test_an_fp4_weight_has_one_scale_per_32_columns(data, out, blocks):
    weight = data.draw(extreme(out, 32 * blocks))
    packed = quantise_fp4(weight)
    assert (packed.packed.shape, packed.scales.shape) == ((out, 16 * blocks), (out, blocks))
    exact(dequantise(packed), fake_quant(weight, 32, FP4).astype(np.float32))


@both_formats
def test_quantising_what_was_quantised_loses_nothing(number_format):
    weight = np.random.default_rng(1).standard_normal((130, 160)).astype(np.float32)
    quantise = quantise_fp4 if number_format is FP4 else quantise_fp8
    once = dequantise(quantise(weight))
    assert (once != weight).any()
    exact(dequantise(quantise(once)), once)


@pytest.mark.parametrize(("byte", "scale"), [(0, 2.0**-127), (1, 2.0**-126), (127, 1.0), (130, 8.0), (252, 2.0**125)])
def test_a_scale_byte_is_an_exponent(byte, scale):
    scales = np.array([[byte]], np.uint8)
    fp8 = Fp8Weight(np.array([[0x38, 0xC0, 0x01]], np.uint8), scales)  # 1, −2, 2^−9
    exact(dequantise(fp8), np.array([[scale, -2 * scale, scale * 2.0**-9]], np.float32))
    fp4 = Fp4Weight(np.array([[0x21] + [0xF6] * 15], np.uint8), scales)  # 0.5, 1, then 4, −6
    exact(dequantise(fp4), (scale * np.array([[0.5, 1] + [4, -6] * 15])).astype(np.float32))


def test_scale_byte_255_makes_its_square_nan():
    weight = Fp8Weight(np.full((1, 130), 0x38, np.uint8), np.array([[255, 127]], np.uint8))
    exact(dequantise(weight), np.array([[np.nan] * 128 + [1, 1]], np.float32))


@given(data=st.data(), out=st.sampled_from([1, 64, 130]), columns=st.sampled_from([32, 128, 160]))
def test_fp4_to_fp8_is_lossless_within_14_powers_of_two(data, out, columns):
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    packed = generator.integers(0, 256, (out, columns // 2)).astype(np.uint8)
    lowest = data.draw(st.integers(116, 200))
    scales = generator.integers(lowest, lowest + 15, (out, columns // 32)).astype(np.uint8)
    weight = dequantise(Fp4Weight(packed, scales))
    assume(np.abs(weight).max() >= 1e-4)
    exact(dequantise(quantise_fp8(weight)), weight)


def test_fp4_to_fp8_loses_beyond_14_powers_of_two():
    packed = np.array([[0x17] * 16 + [0x77] * 16], np.uint8)  # 6 and 0.5, then only 6
    for apart, lossless in ((14, True), (15, False)):
        weight = dequantise(Fp4Weight(packed, np.array([[127, 127 + apart]], np.uint8)))
        assert (dequantise(quantise_fp8(weight)) == weight).all() == lossless


def test_a_dense_weight_is_only_cast():
    weight = np.array([[1.5, -2.25]], ml_dtypes.bfloat16)
    exact(dequantise(weight), np.array([[1.5, -2.25]], np.float32))
    exact(dequantise(weight, np.float64), np.array([[1.5, -2.25]]))


@given(data=st.data())
def test_packed_weights_may_lie_anyhow_in_memory(data):
    for packed, name in (
        (Fp8Weight(GOLDEN["fp8_weight_codes"], GOLDEN["fp8_weight_scales_e8m0"]), "fp8_weight_dequantized"),
        (Fp4Weight(GOLDEN["fp4_packed"], GOLDEN["fp4_scales_e8m0"]), "fp4_dequantized"),
    ):
        moved = map_arrays(packed, lambda part: data.draw(laid_out(part)))
        exact(dequantise(moved), GOLDEN[name])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -3.4e38])
@pytest.mark.parametrize("quantise", [quantise_fp8, quantise_fp4])
def test_a_weight_must_fit_the_format(quantise, bad):
    """The largest magnitudes are those with which the largest code still reads back as a finite float32."""
    weight = np.ones((2, 32), np.float32)
    weight[1, 3] = bad
    with pytest.raises(ValueError, match=f"{quantise.__name__}: expected magnitudes of at most"):
        quantise(weight)


def test_an_fp4_weight_needs_whole_blocks():
    with pytest.raises(ValueError, match="multiple of 32, found 33"):
        quantise_fp4(np.ones((2, 33), np.float32))


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        (Fp8Weight(np.zeros((129, 4), np.uint8), np.zeros((1, 1), np.uint8)), r"\(2, 1\), found \(1, 1\)"),
        (Fp4Weight(np.zeros((2, 32), np.uint8), np.zeros((2, 1), np.uint8)), r"\(2, 2\), found \(2, 1\)"),
    ],
)
def test_scales_must_fit_the_codes(weight, expected):
    with pytest.raises(ValueError, match=expected):
        dequantise(weight)


def test_formats_agree_on_the_largest_values():
    for number_format, largest in ((FP4, formats.FP4_MAX), (FP8, formats.FP8_MAX)):
        assert largest == LARGEST[number_format] == float(ml_dtypes.finfo(number_format).max)
