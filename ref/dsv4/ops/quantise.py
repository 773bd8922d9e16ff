"""Block scales, fake quantisation of activations, and quantised weights (report §3.4, §5.2.1).

A block of numbers shares one power-of-two scale, the smallest that brings the block's largest magnitude into the
range of the small format. Fake quantisation rounds to the format and back, so that float arithmetic sees exactly
the values that a quantised cache or a quantised matrix product would see.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dsv4.ops import formats
from dsv4.ops.types import Array, Bytes

FP4_BLOCK = 32
"""Input columns that share one scale of an FP4 weight, and channels that share one of an FP4 activation."""

FP8_WEIGHT_BLOCK = 128
"""Rows and columns of the square that shares one scale of an FP8 weight of V4."""

FP8_SQUARE = FP8_WEIGHT_BLOCK, FP8_WEIGHT_BLOCK

FP4_FLOOR = 6 * 2.0**-126
"""The largest magnitude of an FP4 block is taken as at least this, so that its scale is a normal float32."""

NVFP4_GROUP = 16
"""Channels of a compressed entry of V4.1 that share one scale."""

NVFP4_FLOOR = 6 * 2.0**-9
"""The largest magnitude of such a group is taken as at least this: its scale is then the smallest of E4M3."""

FP4_LARGEST_POWER = 125
"""The exponent of the largest scale with which the largest FP4 code, 6, is still a finite float32."""

FP8_LARGEST_POWER = 119
"""The exponent of the largest scale with which the largest FP8 code, 448, is still a finite float32."""

FP8_FLOOR = 1e-4
"""The largest magnitude of an FP8 block is taken as at least this, so that zeros get a scale."""


@dataclass(frozen=True)
class Fp8Weight:
    """A matrix in FP8 E4M3 with one E8M0 scale per block of so many rows and columns; blocks at the edges are partial.

    codes [out, in] uint8; scales [⌈out/rows⌉, ⌈in/columns⌉] uint8; block: rows and columns, 128 × 128 in V4, 32 × 32 in
    V4.1, 1 × 32 in the table of an Engram.
    """

    codes: Bytes
    scales: Bytes
    block: tuple[int, int] = FP8_SQUARE

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of the matrix that this stands for."""
        return self.codes.shape[0], self.codes.shape[1]


@dataclass(frozen=True)
class Fp4Weight:
    """A matrix in FP4 E2M1 with one E8M0 scale per 32 input columns.

    packed [out, in/2] uint8, low nibble = even column; scales [out, in/32] uint8.
    """

    packed: Bytes
    scales: Bytes

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of the matrix that this stands for."""
        return self.packed.shape[0], 2 * self.packed.shape[1]


Weight = npt.NDArray[Any] | Fp8Weight | Fp4Weight
"""A matrix [out, in]: dense (float64, float32 or bfloat16) or in one of the two packed forms."""


def is_quantised(weight: Weight) -> bool:
    """Whether a weight is stored in FP8 or FP4."""
    return isinstance(weight, Fp8Weight | Fp4Weight)


def block_scale(largest: Array, format_max: float, floor: float) -> Array:
    """The smallest power of two s with largest ≤ s · format_max, after raising `largest` to `floor`.

    largest: any shape, float, the largest magnitude of each block. Returns the scales, same shape and dtype; NaN
    where `largest` is NaN or infinite. It compares mantissas, which is exact; a rounded ceil(log2(·)) would return
    half the scale for a `largest` just above a power of two times format_max. Source: report §3.4; code: exponent bits.
    """
    fraction, exponent = np.frexp(np.maximum(largest, largest.dtype.type(floor)))
    max_fraction, max_exponent = np.frexp(format_max)
    power = exponent - max_exponent + (fraction > max_fraction)
    return np.where(np.isfinite(largest), np.ldexp(np.ones_like(largest), power), np.nan).astype(largest.dtype)


def fp8_blocks(x: Array, block: int) -> tuple[Bytes, Array]:
    """x as FP8 E4M3 codes with one power-of-two scale per `block` channels.

    x [..., K] float; the last block may be shorter. Returns codes [..., K] uint8 and scales [..., ⌈K/block⌉] of x's
    dtype. A block that holds a NaN or an infinity gets the scale NaN and the codes 0, so that it reads back as NaN.
    Source: report §3.4; code: act_quant.
    """
    scales = block_scale(_largest(x, block), formats.FP8_MAX, FP8_FLOOR)
    return formats.fp8_encode(_divide(x, scales, block)), scales


def fp4_blocks(x: Array, block: int = FP4_BLOCK) -> tuple[Bytes, Array]:
    """x as FP4 E2M1 codes with one power-of-two scale per `block` channels.

    x [..., K] float; the last block may be shorter. Returns codes [..., K] uint8, not packed, and scales
    [..., ⌈K/block⌉] of x's dtype. A block that holds a NaN or an infinity gets the scale NaN and the codes 0.
    Source: report §3.4; code: fp4_act_quant.
    """
    scales = block_scale(_largest(x, block), formats.FP4_MAX, FP4_FLOOR)
    return formats.fp4_encode(_divide(x, scales, block)), scales


def fake_quant_fp8(x: Array, block: int) -> Array:
    """Round x to FP8 E4M3 with one power-of-two scale per `block` channels, and back.

    x [..., K] float; the last block may be shorter. Returns the same shape and dtype. A block that holds a NaN or an
    infinity becomes NaN, so that a bad number stays visible. Source: report §3.4, §5.2.1; code: act_quant in place,
    in blocks of 64 for cached KV; and in blocks of 128 for the input of a quantised linear.
    """
    codes, scales = fp8_blocks(x, block)
    return formats.fp8_decode(codes).astype(x.dtype) * _spread(scales, block, x.shape[-1])


def fake_quant_fp4(x: Array, block: int = FP4_BLOCK) -> Array:
    """Round x to FP4 E2M1 with one power-of-two scale per `block` channels, and back.

    x [..., K] float; the last block may be shorter. Returns the same shape and dtype. A block that holds a NaN or an
    infinity becomes NaN. Source: report §3.4, §5.2.1; code: fp4_act_quant in place, for indexer queries and keys.
    """
    codes, scales = fp4_blocks(x, block)
    return formats.fp4_decode(codes).astype(x.dtype) * _spread(scales, block, x.shape[-1])


def nvfp4_groups(x: Array) -> tuple[Bytes, Bytes]:
    """x as FP4 E2M1 codes with one E4M3 scale per 16 channels, which is no power of two and has no scale above it.

    x [..., K] float; the last group may be shorter. Returns codes [..., K] uint8, not packed, and the codes of the
    scales [..., ⌈K/16⌉] uint8. The scale is the group's largest magnitude over 6, rounded to nearest: where that is
    down, the largest number is clamped to 6. A group with a NaN or an infinity gets the scale NaN and the codes 0.
    Source: V4.1's report §2.4.4; code: act_quant of the compressed entries.
    """
    largest = _largest(x, NVFP4_GROUP)
    wanted = np.maximum(largest, x.dtype.type(NVFP4_FLOOR)) / x.dtype.type(formats.FP4_MAX)
    scale_codes = formats.fp8_encode(np.where(np.isfinite(largest), wanted, np.nan).astype(x.dtype))
    scales = formats.fp8_decode(scale_codes).astype(x.dtype)
    return formats.fp4_encode(_divide(x, scales, NVFP4_GROUP)), scale_codes


def fake_quant_nvfp4(x: Array) -> Array:
    """Round x to FP4 E2M1 with one E4M3 scale per 16 channels, and back, as V4.1 stores its compressed entries.

    x [..., K] float; the last group may be shorter. Returns the same shape and dtype. A group that holds a NaN or an
    infinity becomes NaN. Source: V4.1's report §2.4.4; code: as for `nvfp4_groups`.
    """
    codes, scale_codes = nvfp4_groups(x)
    scales = formats.fp8_decode(scale_codes).astype(x.dtype)
    return formats.fp4_decode(codes).astype(x.dtype) * _spread(scales, NVFP4_GROUP, x.shape[-1])


def quantise_fp8(weight: Array, block: tuple[int, int] = FP8_SQUARE) -> Fp8Weight:
    """A float matrix as FP8 with one scale per block of so many rows and columns. weight [out, in] float32.

    Raises ValueError if the matrix holds a NaN or a magnitude above 448 · 2^119, the largest that a float32 can read
    back. Source: code, the released FP8 weights.
    """
    _require_range(weight, formats.FP8_MAX * 2.0**FP8_LARGEST_POWER, "quantise_fp8")
    (out, width), (high, wide) = weight.shape, block
    rows, columns = -(-out // high), -(-width // wide)
    padded = np.zeros((rows * high, columns * wide), weight.dtype)
    padded[:out, :width] = weight
    blocks = padded.reshape(rows, high, columns, wide)
    scales = block_scale(np.abs(blocks).max(axis=(1, 3)), formats.FP8_MAX, FP8_FLOOR)
    codes = formats.fp8_encode(weight / _spread_blocks(scales, weight.shape, block))
    return Fp8Weight(codes, formats.e8m0_encode(scales), block)


def quantise_fp4(weight: Array) -> Fp4Weight:
    """A float matrix as packed FP4 with one scale per 32 input columns. weight [out, in] float32.

    Raises ValueError if `in` is not a multiple of 32, or if the matrix holds a NaN or a magnitude above 6 · 2^125,
    the largest that a float32 can read back. Source: code, the released expert weights.
    """
    _require_range(weight, formats.FP4_MAX * 2.0**FP4_LARGEST_POWER, "quantise_fp4")
    out, width = weight.shape
    if width % FP4_BLOCK:
        raise ValueError(f"quantise_fp4: the input width must be a multiple of {FP4_BLOCK}, found {width}")
    blocks = weight.reshape(out, width // FP4_BLOCK, FP4_BLOCK)
    scales = block_scale(np.abs(blocks).max(axis=-1), formats.FP4_MAX, FP4_FLOOR)
    codes = formats.fp4_encode(blocks / scales[..., None]).reshape(out, width)
    return Fp4Weight(formats.fp4_pack(codes), formats.e8m0_encode(scales))


def dequantise(weight: Weight, dtype: npt.DTypeLike = np.float32) -> Array:
    """The values of a weight as a dense matrix [out, in] of `dtype`; a dense weight is only cast.

    Exact in float32 and in float64: a code has at most four significant bits and a scale is a power of two.
    Raises ValueError where the scales' shape does not fit the codes'. Source: report §3.4; code: the released files.
    """
    match weight:
        case Fp8Weight(codes, scales, block):
            _require_scales(scales, (-(-codes.shape[0] // block[0]), -(-codes.shape[1] // block[1])))
            values = formats.fp8_decode(codes) * _spread_blocks(formats.e8m0_decode(scales), codes.shape, block)
        case Fp4Weight(packed, scales):
            _require_scales(scales, (packed.shape[0], packed.shape[1] * 2 // FP4_BLOCK))
            blocks = formats.fp4_unpack(packed).reshape(*scales.shape, FP4_BLOCK)
            values = (blocks * formats.e8m0_decode(scales)[..., None]).reshape(weight.shape)
        case _:
            values = weight
    return values.astype(dtype, copy=False)


def _largest(x: Array, block: int) -> Array:
    """The largest magnitude of each block of the last axis. [..., K] -> [..., ⌈K/block⌉]"""
    width = x.shape[-1]
    missing = -width % block
    padded = np.concatenate([x, np.zeros((*x.shape[:-1], missing), x.dtype)], axis=-1)
    blocks = padded.reshape(*x.shape[:-1], (width + missing) // block, block)
    largest: Array = np.abs(blocks).max(axis=-1, initial=0)
    return largest


def _spread(scales: Array, block: int, width: int) -> Array:
    """Each scale repeated over the channels of its block. [..., ⌈K/block⌉] -> [..., K]"""
    return np.repeat(scales, block, axis=-1)[..., :width]


def _divide(x: Array, scales: Array, block: int) -> Array:
    """x over the scale of its block; 0 where that scale is NaN."""
    spread = _spread(scales, block, x.shape[-1])
    return np.where(np.isnan(spread), 0, x / spread).astype(x.dtype)


def _spread_blocks(scales: Array, shape: tuple[int, ...], block: tuple[int, int]) -> Array:
    """Each scale repeated over its block of rows and columns. [⌈out/rows⌉, ⌈in/columns⌉] -> [out, in]"""
    rows = np.repeat(scales, block[0], axis=0)[: shape[0]]
    return np.repeat(rows, block[1], axis=1)[:, : shape[1]]


def _require_range(weight: Array, largest: float, caller: str) -> None:
    outside = ~(np.abs(weight) <= largest)  # also true of a NaN
    if outside.any():
        raise ValueError(f"{caller}: expected magnitudes of at most {largest:.4g}, found {weight[outside].flat[0]}")


def _require_scales(scales: Bytes, expected: tuple[int, int]) -> None:
    if scales.shape != expected:
        raise ValueError(f"dequantise: the scales must have shape {expected}, found {scales.shape}")
