"""Differences in four bits or two: what comes back, and how many bytes go."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4.learn.diloco.few_bits import BLOCK, pack, unpack


@given(st.integers(0, 1000), st.integers(0, 3 * BLOCK + 1), st.floats(1e-30, 1e30), st.sampled_from([2, 4]))
def test_each_number_comes_back_at_most_half_a_scale_away(seed, count, size, bits):
    array = (np.random.default_rng(seed).standard_normal(count) * size).astype(np.float32)
    packed = pack(array, bits)
    assert len(packed.codes) == -(-count * bits // 8) and len(packed.scales) == -(-count // BLOCK)
    distance = np.abs(unpack(packed).astype(np.float64) - array)
    assert np.all(distance <= np.repeat(packed.scales, BLOCK)[:count].astype(np.float64) * 0.5000005)


def test_codes_by_hand():
    """The scale is 1: 7 → 7, −7 → −7, 2.5 → 2 and 3.5 → 4 (half to even), .4 → 0; the fifth byte is half empty."""
    array = np.array([[7.0], [-7.0], [2.5], [3.5], [0.4]], np.float32)
    np.testing.assert_array_equal(unpack(pack(array)), [[7], [-7], [2], [4], [0]])
    assert list(pack(array).codes) == [15 | 1 << 4, 10 | 12 << 4, 8 | 8 << 4]


def test_two_bits_by_hand():
    """The scale is the largest number; half of it goes to the even code, 0. The second byte has one code of four."""
    array = np.array([2.0, -2.0, 1.0, -1.01, 0.4], np.float32)
    packed = pack(array, bits=2)
    np.testing.assert_array_equal(unpack(packed), [2, -2, 0, -2, 0])
    assert list(packed.codes) == [3 | 1 << 2 | 2 << 4 | 1 << 6, 2 | 2 << 2 | 2 << 4 | 2 << 6]


def test_a_large_number_costs_its_own_block_alone():
    array = np.full(2 * BLOCK, 0.01, np.float32)
    array[0] = 1000
    found = unpack(pack(array))
    assert np.all(found[1:BLOCK] == 0)
    np.testing.assert_allclose(found[BLOCK:], 0.01, rtol=1e-6)


@pytest.mark.parametrize("value", [0.0, 1e-40, np.finfo(np.float32).max])
def test_the_ends_of_float32(value):
    found = unpack(pack(np.array([value, -value], np.float32)))
    np.testing.assert_allclose(found, [value, -value], rtol=1e-6, atol=1e-37)


def test_an_eighth_of_float32_and_the_scales():
    array = np.ones((64, BLOCK), np.float32)
    assert pack(array).nbytes == array.nbytes / 8 + 4 * 64


@given(st.integers(0, 300))
def test_signs_are_alike(seed):
    array = np.random.default_rng(seed).standard_normal(200).astype(np.float32)
    np.testing.assert_array_equal(unpack(pack(-array)), -unpack(pack(array)))
