"""Rotary position embedding on the last channels: mirrors dsv4.ops.rope."""

import numpy as np
from numba import prange, types

from dsv4.ops import rope as reference
from dsv4.ops.types import Array, Ints
from dsv4_accel.numba.arrays import are_float32, compact
from dsv4_accel.numba.compile import inlined, kernel, reads, writes
from dsv4_accel.numba.memory import load, load_part, store, store_part
from dsv4_accel.numba.vectors import LANES, choose, exchange_1, floats, fma, splat, words

TOKENS_TOGETHER = 4
"""How many tokens a thread takes at a time."""

TWO_OVER_PI = np.float32(0.6366197723675814)
HALF_PI, HALF_PI_REST, HALF_PI_LAST = (
    np.float32(number) for number in (1.5707963705062866, -4.371138828673793e-08, -1.7151245100058819e-15)
)
"""π/2 as a sum of three float32, the first being the nearest."""

ROUNDER = np.float32(1.5 * 2**23)
"""Added to a number below 2^22, it leaves no room for a fraction: the lowest bits are then the nearest integer."""

LARGEST_ANGLE = np.float32(2**20)
"""Up to here n·HALF_PI taken from an angle leaves an exact remainder, and n is off by no more than the fits allow."""

# sin r = r + r³·(S0 + S1·r² + …), cos r = 1 − r²/2 + r⁴·(C0 + C1·r² + …) for |r| ≤ 0.825, minimax fits of 2^−27.
S0, S1, S2 = (np.float32(number) for number in (-0.16666651, 0.0083319284, -0.00019484101))
C0, C1, C2 = (np.float32(number) for number in (0.041666642, -0.0013887038, 2.4401203e-05))


def rope(x: Array, positions: Ints, frequencies: Array) -> Array:
    """As dsv4.ops.rope.rope."""
    return rotated(x, positions, frequencies, work=4 * x.size)


def rotated(x: Array, positions: Ints, frequencies: Array, work: int) -> Array:
    """As dsv4.ops.rope.rope; work: about how many multiply-adds it takes, 0 to stay in the thread that calls."""
    if not _fit(x, positions, frequencies):
        return reference.rope(x, positions, frequencies)
    turned = np.empty(x.shape, np.float32)
    shape = positions.size, -1, x.shape[-1]
    _rope(
        work,
        compact(x).reshape(shape),
        compact(positions.astype(np.int64, copy=False)).reshape(-1),
        compact(frequencies.astype(np.float32, copy=False)),
        turned.reshape(shape),
    )
    return turned


def _fit(x: Array, positions: Ints, frequencies: Array) -> bool:
    return (
        are_float32(x)
        and x.size > 0
        and positions.shape == x.shape[:2]
        and positions.dtype.kind == "i"
        and x.ndim in (3, 4)
        and frequencies.ndim == 1
        and 0 < 2 * frequencies.size <= x.shape[-1]
    )


@kernel(reads(types.float32, 3), reads(types.int64, 1), reads(types.float32, 1), writes(types.float32, 3))
def _rope(x, positions, frequencies, turned):
    """x, turned [T, H, c]; positions [T]; frequencies [r/2]"""
    tokens, heads, width = x.shape
    first = width - 2 * frequencies.size
    for group in prange((tokens + TOKENS_TOGETHER - 1) // TOKENS_TOGETHER):
        for_channels = _for_channels(frequencies)
        cosines, sines = np.empty_like(for_channels), np.empty_like(for_channels)
        for token in range(group * TOKENS_TOGETHER, min((group + 1) * TOKENS_TOGETHER, tokens)):
            _turn_of_channels(np.float32(positions[token]), for_channels, cosines, sines)
            for head in range(heads):
                _copy(x[token, head], first, turned[token, head])
                _turn(x[token, head], first, cosines, sines, turned[token, head])


@inlined
def _for_channels(frequencies):
    """[r/2] -> [r, up to whole vectors]: each frequency for both channels of its pair, zeros behind."""
    for_channels = np.zeros((2 * frequencies.size + LANES - 1) // LANES * LANES, np.float32)
    for pair in range(frequencies.size):
        for_channels[2 * pair] = for_channels[2 * pair + 1] = frequencies[pair]
    return for_channels


@inlined
def _turn_of_channels(position, frequencies, cosines, sines):
    """The cosine of each channel's angle, and its sine with the sign that belongs to the channel's neighbour."""
    for start in range(0, frequencies.size, LANES):
        angles = splat(position) * load(frequencies, start)
        sine, cosine = sine_and_cosine(angles)
        store(sines, start, sine)
        store(cosines, start, cosine)
    for channel in range(frequencies.size):
        angle = position * frequencies[channel]
        if abs(angle) > LARGEST_ANGLE:
            sines[channel], cosines[channel] = np.sin(np.float64(angle)), np.cos(np.float64(angle))
        if channel % 2 == 0:
            sines[channel] = -sines[channel]


@inlined
def sine_and_cosine(angles):
    """The sines and cosines of 16 angles up to LARGEST_ANGLE: angle = n·π/2 + r, where n turns one into the other.

    angles F32x16. Returns two F32x16.
    """
    shifted = fma(angles, splat(TWO_OVER_PI), splat(ROUNDER))
    n = splat(ROUNDER) - shifted  # −n
    r = fma(n, splat(HALF_PI_LAST), fma(n, splat(HALF_PI_REST), fma(n, splat(HALF_PI), angles)))
    z = r * r
    sine = fma(fma(fma(splat(S2), z, splat(S1)), z, splat(S0)) * z, r, r)
    tail = fma(fma(splat(C2), z, splat(C1)), z, splat(C0))
    cosine = fma(tail, z * z, fma(splat(np.float32(-0.5)), z, splat(np.float32(1))))
    quarter = words(shifted)
    is_odd = quarter & np.uint32(1)
    sine, cosine = choose(is_odd, cosine, sine), choose(is_odd, sine, cosine)
    sign_of_sine, sign_of_cosine = (quarter & np.uint32(2)) << 30, ((quarter + np.uint32(1)) & np.uint32(2)) << 30
    return floats(words(sine) ^ sign_of_sine), floats(words(cosine) ^ sign_of_cosine)


@inlined
def _copy(head, stop, turned):
    """The first channels as they are."""
    for channel in range(stop):
        turned[channel] = head[channel]


@inlined
def _turn(head, first, cosines, sines, turned):
    """The channels from `first` on: x · cosine, plus the neighbour of the pair times the sine that has its sign."""
    for start in range(0, cosines.size, LANES):
        present = head.size - first - start
        numbers = load(head, first + start) if present >= LANES else load_part(head, first + start, present)
        result = fma(numbers, load(cosines, start), exchange_1(numbers) * load(sines, start))
        if present >= LANES:
            store(turned, first + start, result)
        else:
            store_part(turned, first + start, result, present)
