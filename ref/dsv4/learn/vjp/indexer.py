"""The lightning indexer's scores and their vector-Jacobian product (report §2.3.1)."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from dsv4.ops import Ops
from dsv4.ops.types import Array

QUERIES_PER_BLOCK = 64
"""How many queries' products with all keys are in memory at once."""


class IndexGradients(NamedTuple):
    """The gradients of `index_scores`."""

    d_queries: Array
    d_keys: Array
    d_weights: Array


def index_scores(queries: Array, keys: Array, weights: Array) -> tuple[Array, Callable[[Array], IndexGradients]]:
    """`ops.index_scores`, I_i = Σ_h w_h ReLU(z_hi) with z_hi = q_h · k_i, and its pullback.

        d_w_h = Σ_i d_I_i ReLU(z_hi)        d_z_hi = w_h d_I_i where z_hi > 0, else 0
        d_q_h = Σ_i d_z_hi k_i              d_k_i = Σ d_z_hi q_h, over heads and queries

    The products z are computed anew, block by block of queries: kept, they would be the largest array of a long
    sequence. queries [B, S, h, D]; keys [B, T, D]; weights [B, S, h]. Source: report §2.3.1.
    """

    def pull(d_scores: Array) -> IndexGradients:
        d_queries, d_keys, d_weights = (np.zeros_like(array) for array in (queries, keys, weights))
        batch, length, heads, width = queries.shape
        for start in range(0, length, QUERIES_PER_BLOCK):
            some = slice(start, start + QUERIES_PER_BLOCK)
            block, weight = queries[:, some], weights[:, some, :, None]  # [B, Q, h, D], [B, Q, h, 1]
            rows = block.reshape(batch, block.shape[1] * heads, width)  # [B, Q·h, D]
            products = (rows @ keys.swapaxes(-1, -2)).reshape(*block.shape[:3], keys.shape[1])  # [B, Q, h, T]
            d_score = d_scores[:, some]  # [B, Q, T]
            d_weights[:, some] = np.einsum("bqht,bqt->bqh", np.maximum(products, 0), d_score)
            d_products = weight * d_score[:, :, None]
            d_products *= products > 0
            d_products = d_products.reshape(*rows.shape[:2], keys.shape[1])
            d_queries[:, some] = (d_products @ keys).reshape(block.shape)
            d_keys += d_products.swapaxes(-1, -2) @ rows
        return IndexGradients(d_queries, d_keys, d_weights)

    return Ops.index_scores(queries, keys, weights), pull
