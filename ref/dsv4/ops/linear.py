"""Matrix products with dense, FP8 and FP4 weights, and the grouped output projection (report §2.3.1, §3.4)."""

from collections.abc import Sequence

import numpy as np

from dsv4.ops.quantise import FP8_WEIGHT_BLOCK, Weight, dequantise, fake_quant_fp8, is_quantised
from dsv4.ops.types import Array, Ints


def linear(x: Array, weight: Weight, round_inputs: bool = False) -> Array:
    """y = x @ W.T with the values that a dense, FP8 or FP4 weight stands for.

    x [..., in] float; weight [out, in]; round_inputs: whether x is rounded to FP8 first, per token in blocks of 128,
    where the weight is stored in FP8 or FP4, as the released model does. Returns [..., out] of x's dtype, accumulated
    in it. Raises ValueError where x's last axis is not `in`. Source: report §3.4; code: linear with dequantised
    weights, or act_quant then fp8_gemm or fp4_gemm, which accumulate in float32.
    """
    if x.shape[-1] != weight.shape[1]:
        raise ValueError(f"linear: x has {x.shape[-1]} channels, but the weight {weight.shape} takes {weight.shape[1]}")
    if round_inputs and is_quantised(weight):
        x = fake_quant_fp8(x, FP8_WEIGHT_BLOCK)
    return x @ dequantise(weight, x.dtype).T


def linears(x: Array, weights: Sequence[Weight], round_inputs: bool = False) -> tuple[Array, ...]:
    """The products of one x with several weights: what `linear` gives of each.

    x [..., in] float; weights: matrices [out, in], each with an `out` and a storage of its own; round_inputs: as for
    `linear`, of each weight by itself. Returns an array [..., out] for each weight, of x's dtype. Raises ValueError as
    `linear` does. Source: report §2.3.1, where several maps read one hidden state; code: a linear for each.
    """
    return tuple(linear(x, weight, round_inputs) for weight in weights)


def grouped_linear(x: Array, weight: Weight, groups: int) -> Array:
    """One matrix per group of channels: the first half of attention's output projection.

    x [..., in]: `groups` equal runs of channels; weight [groups·rank, in/groups]: group g owns rows
    g·rank … (g+1)·rank−1. Returns [..., groups·rank] of x's dtype: the groups' results side by side, never mixed.
    Raises ValueError where the shapes do not fit. Source: report §2.3.1, grouped output projection; code: wo_a, which
    is stored in FP8 but used dequantised, with an input that is not rounded.
    """
    rows, width = weight.shape
    if rows % groups or x.shape[-1] != groups * width:
        raise ValueError(f"grouped_linear: {groups} groups of {weight.shape} do not fit {x.shape[-1]} channels")
    matrices = dequantise(weight, x.dtype).reshape(groups, rows // groups, width)
    grouped = x.reshape(*x.shape[:-1], groups, 1, width)  # [..., in] -> [..., groups, 1, in/groups]
    result = grouped @ matrices.swapaxes(-1, -2)  # [..., groups, 1, rank]
    return result.reshape(*x.shape[:-1], rows)


def embedding(ids: Ints, table: Array) -> Array:
    """The rows of the embedding table. ids: any shape, integer, 0 … vocab−1; table [vocab, d] dense.

    Returns [..., d] float32 (float64 for a float64 table). Raises IndexError for an id outside the table.
    Source: report §2; code: embed.
    """
    if ids.size and (ids.min() < 0 or ids.max() >= table.shape[0]):
        raise IndexError(f"embedding: token ids must lie in 0 … {table.shape[0] - 1}, found {ids.min()} … {ids.max()}")
    rows = table[ids]
    return rows.astype(np.promote_types(rows.dtype, np.float32))
