"""Matrix products with dense weights and the embedding, with their vector-Jacobian products (report §2.3.1, §3.4)."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from dsv4.ops.types import Array, Ints


class LinearGradients(NamedTuple):
    """The gradients of `linear` and of `grouped_linear`."""

    d_x: Array
    d_weight: Array


class EmbeddingGradients(NamedTuple):
    """The gradient of `embedding`."""

    d_table: Array


def linear(x: Array, weight: Array, round_inputs: bool = False) -> tuple[Array, Callable[[Array], LinearGradients]]:
    """`ops.linear` with a dense weight, y = x Wᵀ, and its pullback.

        d_x = d_y W        d_W = Σ d_y xᵀ, over all rows of x

    x [..., in]; weight [out, in] dense: round_inputs concerns products with FP8 and FP4 weights and does nothing here.
    Source: report §3.4.
    """
    rows = x.reshape(-1, x.shape[-1])  # [T, in]
    matrix = weight.astype(x.dtype, copy=False)

    def pull(d_result: Array) -> LinearGradients:
        d_rows = d_result.reshape(len(rows), len(matrix))
        return LinearGradients((d_rows @ matrix).reshape(x.shape), (d_rows.T @ rows).astype(weight.dtype, copy=False))

    return (rows @ matrix.T).reshape(*x.shape[:-1], len(weight)), pull


def grouped_linear(x: Array, weight: Array, groups: int) -> tuple[Array, Callable[[Array], LinearGradients]]:
    """`ops.grouped_linear` with a dense weight, y_g = x_g W_gᵀ for each group g, and its pullback.

        d_x_g = d_y_g W_g        d_W_g = Σ d_y_g x_gᵀ, over all rows of x

    x [..., in]; weight [groups·rank, in/groups] dense. Source: report §2.3.1, grouped output projection.
    """
    rank, width = len(weight) // groups, weight.shape[1]
    matrices = weight.astype(x.dtype, copy=False).reshape(groups, rank, width)
    grouped = _groups_first(x, groups)  # [groups, T, in/groups]
    result = grouped @ matrices.swapaxes(-1, -2)  # [groups, T, rank]

    def pull(d_result: Array) -> LinearGradients:
        d_grouped = _groups_first(d_result, groups)
        d_matrices = d_grouped.swapaxes(-1, -2) @ grouped  # [groups, rank, in/groups]
        d_x = (d_grouped @ matrices).swapaxes(0, 1).reshape(x.shape)
        return LinearGradients(d_x, d_matrices.reshape(weight.shape).astype(weight.dtype, copy=False))

    return result.swapaxes(0, 1).reshape(*x.shape[:-1], len(weight)), pull


def _groups_first(x: Array, groups: int) -> Array:
    """[..., groups · width] -> [groups, T, width]"""
    width = x.shape[-1] // groups
    return x.reshape(-1, groups, width).swapaxes(0, 1)


def embedding(ids: Ints, table: Array) -> tuple[Array, Callable[[Array], EmbeddingGradients]]:
    """`ops.embedding` and its pullback: each row of the table gets the sum over the tokens that read it.

    ids: any shape; table [vocab, d] dense. The tokens are sorted by id, so that those of one row stand together and
    are added as one run. Source: report §2.
    """

    def pull(d_rows: Array) -> EmbeddingGradients:
        d_table = np.zeros_like(table)
        if ids.size:
            order = np.argsort(ids, axis=None, kind="stable")
            known, first = np.unique(ids.reshape(-1)[order], return_index=True)
            d_table[known] = np.add.reduceat(d_rows.reshape(-1, table.shape[1])[order], first, axis=0)
        return EmbeddingGradients(d_table)

    return table[ids].astype(np.promote_types(table.dtype, np.float32), copy=False), pull
