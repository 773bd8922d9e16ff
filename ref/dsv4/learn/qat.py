"""Quantisation-aware training: masters in float32, computation with the values that a file would store (report §5.2.1).

Rounding has no useful derivative, so its gradient is passed straight through: the model computes with `stored_values`
of the masters, the gradient is taken for these, and the optimiser applies it to the masters. Nothing else is needed.
The report computes with FP4 weights in FP8, which loses nothing where the scales of a square lie near each other.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import ml_dtypes
import numpy as np

from dsv4.config import Config
from dsv4.learn.tape import DerivedOps
from dsv4.learn.vjp import VJPS
from dsv4.learn.vjp.linear import LinearGradients, linear
from dsv4.learn.vjp.moe import each_by, expert
from dsv4.ops.formats import FP4_MAX, FP8_MAX
from dsv4.ops.quantise import (
    FP4_BLOCK,
    FP4_FLOOR,
    FP4_LARGEST_POWER,
    FP8_FLOOR,
    FP8_LARGEST_POWER,
    FP8_WEIGHT_BLOCK,
    block_scale,
    fake_quant_fp8,
    require_range,
)
from dsv4.ops.types import Array
from dsv4.parameters import Parameter, parameters


def stored_values(config: Config, masters: Mapping[str, Array]) -> dict[str, Array]:
    """`stored_value` of each master, by name: what a released checkpoint of them would hold.

    masters: float arrays by official name. Returns new arrays of the same shapes and dtypes, but for those that are
    stored in float32: they are the masters themselves. Raises KeyError for what is no parameter of the configuration.
    """
    table = parameters(config)
    return {name: stored_value(table[name], master) for name, master in masters.items()}


def stored_value(parameter: Parameter, master: Array) -> Array:
    """A master as its released format stores it: rounded, and read back.

    FP4 with a scale per 32 columns for routed experts (FP8 where the configuration says so), FP8 with a scale per
    128 × 128 square for the other linear maps, bf16 for embeddings, norms, router and compressors, float32 as it is.
    master: float32 or float64, of the parameter's shape. Returns the same shape and dtype. The gradient of the result
    counts as that of the master. Raises ValueError where the format cannot hold a value, or FP4 the width.
    Source: report §5.2.1: the experts' weights, straight through; §3.4: the formats. Not in the report: FP8 and bf16
    are rounded, too, since a small model loses by them as well.
    """
    match parameter.format:
        case "fp4":
            require_range(master, FP4_MAX * 2.0**FP4_LARGEST_POWER, parameter.name)
            if master.shape[-1] % FP4_BLOCK:
                raise ValueError(f"{parameter.name}: expected a multiple of {FP4_BLOCK} columns, found {master.shape}")
            return _in_squares(master, 1, FP4_BLOCK, FP4)
        case "fp8":
            require_range(master, FP8_MAX * 2.0**FP8_LARGEST_POWER, parameter.name)
            return _in_squares(master, FP8_WEIGHT_BLOCK, FP8_WEIGHT_BLOCK, FP8)
        case "bf16":
            return master.astype(ml_dtypes.bfloat16).astype(master.dtype)
        case _:
            return master


class StoredOps(DerivedOps):
    """A tape for weights that stand for stored ones: the inputs of their products are rounded, straight through.

    A released model rounds the input of a product with an FP8 or FP4 matrix. On a tape the same matrix is an array of
    floats, which does not say so; here every product that is asked to round does.
    """

    def __init__(self) -> None:
        one = partial(expert, rounded=rounded)
        super().__init__({**VJPS, "linear": rounded_linear, "expert": one, "experts": partial(each_by, one)})


def rounded_linear(
    x: Array, weight: Array, round_inputs: bool = False
) -> tuple[Array, Callable[[Array], LinearGradients]]:
    """y = Q(x) Wᵀ, where Q rounds to FP8 in blocks of 128 if round_inputs says so, and its pullback: Q counts as 1.

    Source: report §3.4, the rounding; §5.2.1, straight through.
    """
    return linear(rounded(x) if round_inputs else x, weight)


def rounded(x: Array) -> Array:
    """Q(x): FP8 in blocks of 128, bit for bit what `fake_quant_fp8` gives. x [..., K]; the same shape and dtype."""
    if x.dtype != np.float32:  # a float64 would be rounded twice
        return fake_quant_fp8(x, FP8_WEIGHT_BLOCK)
    return _in_squares(x.reshape(-1, x.shape[-1]), 1, FP8_WEIGHT_BLOCK, FP8).reshape(x.shape)


class Format(NamedTuple):
    """A format of few bits, as far as rounding needs it."""

    largest: float
    floor: float
    """The largest magnitude of a block counts as this where it is smaller."""
    smallest_normal: float
    fraction_bits: int


FP8 = Format(FP8_MAX, FP8_FLOOR, smallest_normal=2.0**-6, fraction_bits=3)
FP4 = Format(FP4_MAX, FP4_FLOOR, smallest_normal=1.0, fraction_bits=1)


def _in_squares(x: Array, rows: int, columns: int, form: Format) -> Array:
    """x [R, K] rounded with one power of two as the scale of each rows × columns square; the same shape and dtype.

    A step rounds hundreds of arrays. Rounding to multiples takes a tenth of the time of a search in the table of codes,
    and all threads can do it at once.
    """
    height, width = x.shape
    padded = np.pad(x.astype(np.float32), [(0, -height % rows), (0, -width % columns)])
    squares = padded.reshape(padded.shape[0] // rows, rows, padded.shape[1] // columns, columns)
    scale = block_scale(np.abs(squares).max(axis=3, keepdims=True).max(axis=1, keepdims=True), form.largest, form.floor)
    values = np.clip(squares / scale, -form.largest, form.largest)
    return (_nearest(values, form) * scale).reshape(padded.shape)[:height, :width].astype(x.dtype)


def _nearest(x: Array, form: Format) -> Array:
    """The nearest values of a format, ties to even. x float32, no larger than the format's largest.

    The values between two powers of two lie evenly, 2^−fraction_bits of the lower power apart; those below the smallest
    normal one lie as far apart as those above it.
    """
    power = (x.view(np.int32) & EXPONENT).view(np.float32)  # the power of two at or below |x|
    step = np.maximum(power, np.float32(form.smallest_normal)) * np.float32(2.0**-form.fraction_bits)
    nearest: Array = np.rint(x / step) * step
    return nearest


EXPONENT = 0x7F800000
"""The bits of a float32's exponent."""
