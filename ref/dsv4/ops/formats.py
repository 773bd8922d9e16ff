"""The number formats of the released checkpoints: FP4 E2M1, FP8 E4M3 and the scale format E8M0 (report §3.4).

Both small floats are a table of magnitudes in rising order of their codes plus a sign bit on top, so one rounding
rule serves both: the nearest magnitude wins, and a tie goes to the even code, which is the even mantissa.
Every function here is exact: no result is rounded except by the definition of the format.
"""

import numpy as np

from dsv4.ops.types import Array, Bytes

FP4_MAX = 6.0
FP8_MAX = 448.0
E8M0_NAN = 255
FP8_NAN = 0x7F

# E2M1: two exponent bits, one mantissa bit, bias 1; the codes 0…7.
FP4_MAGNITUDES = np.array([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])


def _fp8_magnitudes() -> Array:
    """The values of the E4M3 codes 0…126: four exponent bits with bias 7, three mantissa bits, no infinity."""
    exponent, mantissa = np.divmod(np.arange(FP8_NAN), 8)
    subnormal = np.ldexp(mantissa / 8, -6)
    normal = np.ldexp(1 + mantissa / 8, exponent - 7)
    return np.where(exponent == 0, subnormal, normal)


FP8_MAGNITUDES = _fp8_magnitudes()
FP4_VALUES = np.concatenate([FP4_MAGNITUDES, -FP4_MAGNITUDES]).astype(np.float32)
FP8_VALUES = np.concatenate([FP8_MAGNITUDES, [np.nan], -FP8_MAGNITUDES, [np.nan]]).astype(np.float32)
E8M0_VALUES = np.append(np.ldexp(np.float32(1), np.arange(E8M0_NAN) - 127), np.float32(np.nan))
# One byte holds two FP4 codes, and decoding the byte as a pair is four times as fast as splitting it first.
FP4_PAIRS = np.stack([FP4_VALUES[np.arange(256) & 15], FP4_VALUES[np.arange(256) >> 4]], axis=-1)


def fp4_encode(x: Array) -> Bytes:
    """Round to FP4 E2M1, to nearest, ties to even; magnitudes above 6 become 6.

    x: any shape, float32 or float64. Returns the codes 0…15, same shape, uint8: bit 3 is the sign, so −0.0 is 8.
    Raises ValueError for a NaN, which FP4 cannot hold. Source: report §3.4; code: the same (MXFP4).
    """
    if np.isnan(x).any():
        raise ValueError("fp4_encode: a NaN has no FP4 code")
    return _nearest(x, FP4_MAGNITUDES) | (np.signbit(x).astype(np.uint8) << np.uint8(3))


def fp4_decode(codes: Bytes) -> Array:
    """The values of FP4 codes. codes: any shape, uint8, 0…15. Returns float32, same shape. IndexError above 15."""
    return FP4_VALUES[codes]


def fp4_pack(codes: Bytes) -> Bytes:
    """Two codes per byte along the last axis: the even column in the low nibble, the odd one in the high nibble.

    codes [..., K] uint8, 0…15. Returns [..., K/2] uint8. Raises ValueError for an odd K. Source: code.
    """
    if codes.shape[-1] % 2:
        raise ValueError(f"fp4_pack: the last axis must be even, found {codes.shape[-1]}")
    low, high = codes[..., 0::2], codes[..., 1::2]
    return low | (high << np.uint8(4))


def fp4_unpack(packed: Bytes) -> Array:
    """The values of packed FP4. packed [..., K/2] uint8. Returns [..., K] float32, column 2i from the low nibble."""
    pairs = FP4_PAIRS.take(packed, axis=0)  # [..., K/2] -> [..., K/2, 2]
    return pairs.reshape(*packed.shape[:-1], 2 * packed.shape[-1])


def fp8_encode(x: Array) -> Bytes:
    """Round to FP8 E4M3, to nearest, ties to even; magnitudes above 448 become 448, a NaN becomes 0x7f.

    x: any shape, float32 or float64. Returns the codes, same shape, uint8; bit 7 is the sign. Source: report §3.4.
    """
    codes = _nearest(x, FP8_MAGNITUDES) | (np.signbit(x).astype(np.uint8) << np.uint8(7))
    return np.where(np.isnan(x), np.uint8(FP8_NAN), codes)


def fp8_decode(codes: Bytes) -> Array:
    """The values of FP8 E4M3 codes; 0x7f and 0xff are NaN. codes: any shape, uint8. Returns float32, same shape."""
    return FP8_VALUES.take(codes)


def e8m0_encode(scales: Array) -> Bytes:
    """The bytes of power-of-two scales: 2^(e−127) becomes e, a NaN becomes 255.

    scales: any shape, float32 or float64. Returns uint8, same shape.
    Raises ValueError for a number that is not a power of two between 2^−127 and 2^127. Source: OCP MX format.
    """
    fraction, exponent = np.frexp(scales)  # scales = fraction · 2^exponent with fraction in [0.5, 1)
    is_nan = np.isnan(scales)
    valid = is_nan | ((fraction == 0.5) & (exponent >= -126) & (exponent <= 128))
    if not valid.all():
        raise ValueError(f"e8m0_encode: {scales[~valid].flat[0]} is not a power of two between 2^-127 and 2^127")
    return np.where(is_nan, E8M0_NAN, exponent + 126).astype(np.uint8)


def e8m0_decode(codes: Bytes) -> Array:
    """The scales 2^(e−127) of bytes e; 255 is NaN. codes: any shape, uint8. Returns float32, same shape.

    Byte 0 is 2^−127, a subnormal float32: it is not zero.
    """
    return E8M0_VALUES[codes]


def _nearest(x: Array, magnitudes: Array) -> Bytes:
    """The codes of the magnitudes nearest to |x|, ties to the even code; beyond the last one, the last one."""
    halfway = ((magnitudes[:-1] + magnitudes[1:]) / 2).astype(x.dtype)  # exact: the tables have few mantissa bits
    size = np.abs(x)
    code = np.searchsorted(halfway, size, side="left").astype(np.uint8)  # a tie lands on the lower code
    is_tie = size == np.append(halfway, np.nan).astype(x.dtype)[code]  # the last magnitude has no tie above it
    round_up: Bytes = (is_tie & (code % 2 == 1)).astype(np.uint8)
    return code + round_up
