"""The rotary embedding against complex rotations written out pair by pair, and YaRN against frequencies by hand."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4.ops.rope import rope_frequencies, yarn_frequencies
from strategies import generators, laid_out, normal, sizes
from verdicts import close, exact, hold

RELEASED = {"base": 160000, "factor": 16, "original_context": 65536, "beta_fast": 32, "beta_slow": 1}
"""The compressing layers of both released models; r is 64."""


OFFICIAL = json.loads((Path(__file__).parents[1] / "data/rope_frequencies.json").read_text(encoding="utf-8"))
"""The released code's own table, computed in float32 by torch: frequencies, and turns around position 2^20, as bits."""

FREQUENCIES = {"plain": rope_frequencies(64, 10000.0), "yarn": yarn_frequencies(64, **RELEASED)}
"""Those of the layers without compression, and of those with it, in both released models."""


def numbers_of(bits):
    return np.array(bits, np.int32).view(np.float32)


def naive_rope(x, positions, frequencies):
    """Channel pair (2i, 2i+1) of the last r channels times e^(i · position · frequency_i)."""
    result = x.astype(np.float64)
    first = x.shape[-1] - 2 * len(frequencies)
    for place in np.ndindex(x.shape[:-1]):
        for i, frequency in enumerate(frequencies):
            angle = float(positions[place[:2]]) * float(frequency)
            pair = complex(x[place][first + 2 * i], x[place][first + 2 * i + 1]) * complex(
                math.cos(angle), math.sin(angle)
            )
            result[place][first + 2 * i], result[place][first + 2 * i + 1] = pair.real, pair.imag
    return result


@st.composite
def vectors_and_positions(draw, length, largest_position=60):
    """x [B, S, c] or [B, S, H, c], positions [B, S] in any order, and r/2 frequencies."""
    batch, pairs, unrotated = draw(sizes(0, 3)), draw(sizes(1, 4)), draw(sizes(0, 3))
    heads = draw(st.sampled_from([(), (0,), (1,), (3,)]))
    x = draw(normal(batch, length, *heads, unrotated + 2 * pairs))
    positions = draw(generators).integers(-largest_position, largest_position + 1, (batch, length))
    frequencies = draw(generators).uniform(0, 1, pairs)
    return x, draw(laid_out(positions)), frequencies.astype(np.float32)


@given(data=st.data(), length=sizes())
def test_rope_turns_pairs_of_neighbours(ops, data, length):
    x, positions, frequencies = data.draw(vectors_and_positions(length))
    hold(ops, "rope", naive_rope, x, positions, frequencies, magnitude=4)


def test_a_quarter_turn_by_hand(ops):
    x = np.arange(1.0, 7).reshape(1, 1, 6)
    found = ops.rope(x, np.array([[1]]), np.array([math.pi / 2, math.pi]))
    close(found, np.array([[[1, 2, -4, 3, -5, -6]]], float))  # (3, 4) by 90°, (5, 6) by 180°, the first two stay


@pytest.mark.parametrize(
    "position", [1, 355, 2**10 + 1, 103993, 2**20 - 1, 2**20 + 1, 2**23 + 1, -(2**19), -(2**22) - 3]
)
def test_large_angles_are_as_exact_as_small_ones(ops, position):
    """355 and 103993 are nearly multiples of π, where the sine is small; from 2^20 on another way is gone."""
    x = np.tile(np.array([1, 0, 0, 1], np.float32), 9)[None, None]
    turned = ops.rope(x, np.array([[position]]), np.ones(18, np.float32))[0, 0]
    cosine, sine = math.cos(position), math.sin(position)
    found, expected = turned.reshape(9, 2, 2), np.array([[cosine, sine], [-sine, cosine]])
    assert np.abs(found - expected).max() < 2e-7
    assert np.abs(found[:, 0, 1] - sine).max() < 1e-6 * abs(sine)


@given(data=st.data())
def test_other_channels_and_position_zero_stay_as_they_are(ops, data):
    x = data.draw(normal(2, 3, 2, 10))
    frequencies = np.array([1.0, 0.1, 0.01])
    turned = ops.rope(x, np.array([[7, 0, 1], [0, 5, 9]]), frequencies)
    exact(turned[..., :4], x[..., :4])
    exact(turned[0, 1], x[0, 1])
    assert (turned[0, 0, :, 4:] != x[0, 0, :, 4:]).all()


@given(data=st.data(), length=sizes(1))
def test_the_inverse_is_the_rotation_by_minus_the_position(ops, data, length):
    x, positions, frequencies = data.draw(vectors_and_positions(length, 10**6))
    x = x.astype(np.float64)
    close(ops.rope(ops.rope(x, positions, frequencies), -positions, frequencies), x)


@given(data=st.data(), length=sizes(1))
def test_rope_keeps_the_length_of_a_vector(ops, data, length):
    x, positions, frequencies = data.draw(vectors_and_positions(length))
    turned = ops.rope(x.astype(np.float64), positions, frequencies)
    close(np.linalg.norm(turned, axis=-1), np.linalg.norm(x.astype(np.float64), axis=-1))


@given(data=st.data(), query_at=st.integers(0, 10**4), key_at=st.integers(0, 10**4), shift=st.integers(0, 10**4))
def test_products_depend_on_the_distance_only(ops, data, query_at, key_at, shift):
    x = data.draw(normal(1, 2, 16)).astype(np.float64)
    frequencies = rope_frequencies(16, 10000.0)
    near = ops.rope(x, np.array([[query_at, key_at]]), frequencies)
    far = ops.rope(x, np.array([[query_at + shift, key_at + shift]]), frequencies)
    dot_near, dot_far = near[0, 0] @ near[0, 1], far[0, 0] @ far[0, 1]
    assert abs(dot_near - dot_far) < 1e-10 * np.linalg.norm(x[0, 0]) * np.linalg.norm(x[0, 1])


def test_positions_must_fit(ops):
    with pytest.raises(ValueError, match=r"positions must have shape \(1, 2\), found \(2,\)"):
        ops.rope(np.ones((1, 2, 4), np.float32), np.arange(2), np.ones(2))


@pytest.mark.parametrize("kind", FREQUENCIES)
def test_frequencies_are_the_released_codes_to_the_bit(kind):
    exact(FREQUENCIES[kind], numbers_of(OFFICIAL[kind]["frequencies"]))


@pytest.mark.parametrize("kind", FREQUENCIES)
@pytest.mark.parametrize("place", range(len(OFFICIAL["positions"])), ids=OFFICIAL["positions"])
def test_turns_at_long_positions_are_the_released_codes(ops, kind, place):
    """Frequencies or angles rounded elsewhere turn by up to 0.03 radians more or less there."""
    position = OFFICIAL["positions"][place]
    cosines, sines = (numbers_of(OFFICIAL[kind][name][place]) for name in ("cos", "sin"))
    x = np.tile(np.array([1, 0], np.float32), 32)[None, None]
    for sign in (1, -1):
        turned = ops.rope(x, np.array([[sign * position]]), FREQUENCIES[kind])[0, 0].reshape(32, 2)
        assert np.abs(turned - np.stack([cosines, sign * sines], axis=1)).max() < 3e-7


def test_plain_frequencies():
    found = rope_frequencies(64, 10000.0)
    assert found.shape == (32,)
    close(found[[0, 8, 16, 24]], np.array([1, 0.1, 0.01, 0.001]))
    close(found[1:] / found[:-1], np.full(31, 10000 ** (-1 / 32)))


def test_yarn_of_the_released_models_by_hand():
    """64 · ln(65536 / 64π) / (2 ln 160000) = 15.45…, so low is 15; 64 · ln(65536 / 2π) / … = 24.71, so high is 25."""
    found = yarn_frequencies(64, **RELEASED)
    expected = []
    for i in range(32):
        share_of_slow = 0.0 if i <= 15 else 1.0 if i >= 25 else (i - 15) / 10
        plain = 160000 ** (-i / 32)
        expected.append(plain * (1 - share_of_slow) + plain / 16 * share_of_slow)
    close(found, np.array(expected))
    by_hand = {0: 1.0, 8: 0.05, 15: 3.635539e-3, 16: 2.265625e-3, 20: 2.969778e-4, 24: 1.953125e-5, 25: 5.372313e-6}
    np.testing.assert_allclose([found[i] for i in by_hand], list(by_hand.values()), rtol=1e-6)


def test_yarn_leaves_fast_channels_and_slows_the_slow_ones():
    plain, found = rope_frequencies(64, 160000.0), yarn_frequencies(64, **RELEASED)
    exact(found[:16], plain[:16])
    close(found[25:], plain[25:] / 16)
    assert ((plain / 16 < found) & (found < plain))[16:25].all()
    assert (np.diff(found) < 0).all()


def test_yarn_with_factor_one_is_plain():
    close(yarn_frequencies(64, **RELEASED | {"factor": 1}), rope_frequencies(64, 160000.0))


def test_yarn_without_a_ramp_does_not_divide_by_zero():
    close(yarn_frequencies(2, 10000.0, 16, 10**6, 1, 1), np.array([1.0]))  # low = floor(1.3), high = r − 1 = 1


def test_yarn_clamps_the_ramp_to_the_channels():
    short = yarn_frequencies(8, 10000.0, 4, 64, 32, 1)  # low = floor(−0.5) → 0, high = ceil(1.01) = 2
    close(short, np.array([1, 0.1 * (1 / 2 + 1 / 2 / 4), 0.01 / 4, 0.001 / 4]))
    long = yarn_frequencies(8, 100.0, 4, 50000, 400, 1)  # low = floor(2.6) = 2, high = ceil(7.8) = 8 → r − 1 = 7
    close(long, 100.0 ** (-np.arange(4) / 4) * np.array([1, 1, 1, 4 / 5 + 1 / 5 / 4]))


@pytest.mark.parametrize("count", [0, 2])
def test_frequencies_must_fit(ops, count):
    with pytest.raises(ValueError, match=f"so 1 … 1 frequencies, found {count}"):
        ops.rope(np.zeros((1, 2, 3)), np.zeros((1, 2), np.int64), np.ones(count))
