"""Quantisation-aware training: masters in float32, computation with the values that a file would store (report §5.2.1).

Rounding has no useful derivative, so its gradient is passed straight through: the model computes with `stored_values`
of the masters, the gradient is taken for these, and the optimiser applies it to the masters. Nothing else is needed.
The report computes with FP4 weights in FP8, which loses nothing where the scales of a square lie near each other.
"""

from collections.abc import Callable, Mapping
from functools import partial

import ml_dtypes
import numpy as np

from dsv4.config import Config
from dsv4.learn.tape import DerivedOps
from dsv4.learn.vjp import VJPS
from dsv4.learn.vjp.linear import LinearGradients, linear
from dsv4.learn.vjp.moe import each_by, expert
from dsv4.ops.formats import FP8_MAX
from dsv4.ops.quantise import (
    FP8_FLOOR,
    FP8_WEIGHT_BLOCK,
    block_scale,
    dequantise,
    fake_quant_fp8,
    quantise_fp4,
    quantise_fp8,
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
            return dequantise(quantise_fp4(master.astype(np.float32)), master.dtype)
        case "fp8":
            return dequantise(quantise_fp8(master.astype(np.float32)), master.dtype)
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
    """Q(x): FP8 in blocks of 128, bit for bit what `fake_quant_fp8` gives.

    A step rounds hundreds of arrays, and ml_dtypes' cast takes a quarter of the time of a search in the table of codes.
    It would round a float64 twice, by way of a float32.
    """
    if x.dtype != np.float32:
        return fake_quant_fp8(x, FP8_WEIGHT_BLOCK)
    width = x.shape[-1]
    padded = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, -width % FP8_WEIGHT_BLOCK)])
    blocks = padded.reshape(*x.shape[:-1], padded.shape[-1] // FP8_WEIGHT_BLOCK, FP8_WEIGHT_BLOCK)
    scale = block_scale(np.abs(blocks).max(axis=-1, keepdims=True), FP8_MAX, FP8_FLOOR)
    codes = np.clip(blocks / scale, -FP8_MAX, FP8_MAX).astype(ml_dtypes.float8_e4m3fn)
    return (codes.astype(x.dtype) * scale).reshape(padded.shape)[..., :width]
