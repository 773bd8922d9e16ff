"""exp, log(1 + x) and what is made of them, on 16 numbers at once and on one.

Polynomials instead of calls of a library: a vector takes about as long as one number there, and the bits are the same
on every machine. The functions of one number compute as those of 16 do, so that a number's result does not depend on
where in a row it stands. Errors, in units in the last place: below 1 for exp and log_1_plus, below 2.5 for the others.
"""

import numpy as np

from dsv4_accel.numba.compile import inlined
from dsv4_accel.numba.vectors import choose, extract, floats, fma, greater, maximum, minimum, splat, words

LOG2_E = np.float32(1.4426950408889634)
LN2 = np.float32(0.6931471805599453)
LN2_REST = np.float32(0.6931471805599453 - float(LN2))
"""What LN2 lacks of ln 2."""

ROUNDER = np.float32(1.5 * 2**23)
"""Added to a number below 2^22, it leaves no room for a fraction: the lowest bits are then the nearest integer."""

ROUNDER_BITS = np.uint32(np.float32(ROUNDER).view(np.uint32))

LARGEST, SMALLEST = np.float32(89), np.float32(-105)
"""From here on e^x is infinite, or zero."""

# e^r = 1 + r + r²·(E2 + E3·r + …) for |r| ≤ ln(2)/2, a minimax fit; its relative error is 2^−28.
E2, E3, E4, E5, E6 = (
    np.float32(number) for number in (0.49999994, 0.16666521, 0.041668393, 0.0083687454, 0.0013814531)
)

# 2·atanh(s) = 2s + s·z·(A0 + A1·z + A2·z²) with z = s², for |s| ≤ 1/5, likewise.
A0, A1, A2 = (np.float32(number) for number in (0.66666949, 0.39957610, 0.30365214))


@inlined
def exp(x):
    """e^x of 16 numbers; 0 for −inf, inf for +inf, NaN for NaN. x F32x16. Returns F32x16.

    x = n·ln 2 + r with an integer n and |r| ≤ ln(2)/2. 2^n is multiplied in as two powers, since neither 2^128 nor
    2^−150 is a float32, while the result may be just below the one, or round up from the other.
    """
    x = maximum(splat(SMALLEST), minimum(splat(LARGEST), x))  # a NaN passes
    shifted = fma(x, splat(LOG2_E), splat(ROUNDER))
    n = shifted - splat(ROUNDER)
    r = fma(n, splat(-LN2_REST), fma(n, splat(-LN2), x))
    tail = fma(fma(fma(fma(splat(E6), r, splat(E5)), r, splat(E4)), r, splat(E3)), r, splat(E2))
    power = fma(tail, r * r, r) + splat(np.float32(1))
    n_plus_254 = words(shifted) - np.uint32(ROUNDER_BITS - np.uint32(254))
    half = n_plus_254 >> 1
    return power * floats(half << 23) * floats((n_plus_254 - half) << 23)


@inlined
def log_1_plus(x):
    """ln(1 + x) of 16 numbers in 0 … 1, or NaN. x F32x16. Returns F32x16.

    1 + x = (1 + f)·2^k with k = 1 for x above ½, so that f lies in −¼ … ½ and is exact. With s = f / (2 + f),
    ln(1 + f) = 2·atanh(s) = f − (f²/2 − s·(f²/2 + z·(A0 + …))), which keeps the leading f unrounded.
    """
    is_large = greater(x, splat(np.float32(0.5)))
    f = choose(is_large, fma(x, splat(np.float32(0.5)), splat(np.float32(-0.5))), x)
    s = f / (f + splat(np.float32(2)))
    z = s * s
    half_square = splat(np.float32(0.5)) * f * f
    rest = fma(fma(splat(A2), z, splat(A1)), z, splat(A0)) * z
    log = f - (half_square - s * (half_square + rest))
    return choose(is_large, log + splat(LN2), log)


@inlined
def sigmoid(x):
    """1 / (1 + e^−x) of 16 numbers; 0 where e^−x is beyond float32. x F32x16. Returns F32x16."""
    one = splat(np.float32(1))
    return one / (one + exp(splat(np.float32(0)) - x))


@inlined
def softplus(x):
    """ln(1 + e^x) of 16 numbers, without overflow. x F32x16. Returns F32x16."""
    magnitude = floats(words(x) & np.uint32(0x7FFFFFFF))
    positive = choose(greater(splat(np.float32(0)), x), splat(np.float32(0)), x)  # a NaN passes
    return positive + log_1_plus(exp(splat(np.float32(0)) - magnitude))


@inlined
def sigmoid_of_one(x):
    """1 / (1 + e^−x) of one float32, with the bits that `sigmoid` gives it."""
    return extract(sigmoid(splat(x)), 0)
