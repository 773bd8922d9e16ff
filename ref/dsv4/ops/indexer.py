"""The lightning indexer: which of the entries that it may see a query of CSA reads (report §2.3.1, eq. 13–17)."""

import numpy as np

from dsv4.ops.chunks import over_queries
from dsv4.ops.packed_rows import Rows, unpacked
from dsv4.ops.types import Array, Ints


def index_scores(queries: Array, keys: Rows, weights: Array) -> Array:
    """score[t, i] = Σ_h weights[t, h] · ReLU(queries[t, h] · keys[i]).

    queries [B, S, h, D]; keys [B, T, D], floats or packed; weights [B, S, h], which may be negative and already hold
    the factors D^−½ · h^−½. Returns [B, S, T] of the queries' dtype. Raises ValueError where the shapes do not fit.
    Source: report eq. 16; the ReLU comes before the weight.
    """
    _require_fit("index_scores", queries, keys, weights)
    keys = unpacked(keys, queries.dtype)
    batch, _, heads, _ = queries.shape

    def some_scores(queries: Array, weights: Array) -> Array:
        products = queries @ keys[:, None].swapaxes(-1, -2)  # [B, S, h, D] @ [B, 1, D, T] -> [B, S, h, T]
        scores: Array = (weights[..., None, :] @ np.maximum(products, 0))[..., 0, :]  # [B, S, 1, h] @ -> [B, S, T]
        return scores

    return over_queries(some_scores, batch * heads * keys.shape[1], queries, weights)


def top_k(scores: Array, visible: Ints, k: int) -> Ints:
    """The k best visible entries of each query, by falling score; among equal scores the lowest entry number.

    scores [B, S, T] float; visible [B, S] integer: entries 0 … visible−1 may be chosen. Returns [B, S, min(k, T)]
    int64 entry numbers, −1 where fewer than k are visible. Raises ValueError for k < 1 or shapes that do not fit.
    Source: report eq. 17; the order among equals is ours, since the report gives none.
    """
    if k < 1 or visible.shape != scores.shape[:2]:
        raise ValueError(f"top_k: k = {k} must be positive and visible {visible.shape} must fit scores {scores.shape}")
    entry = np.arange(scores.shape[-1])
    allowed = entry < visible[..., None]
    order = np.argsort(np.where(allowed, -scores, np.inf), axis=-1, kind="stable")[..., :k]
    return np.where(order < visible[..., None], order, -1)


def index_top_k(queries: Array, keys: Rows, weights: Array, visible: Ints, k: int) -> Ints:
    """The k best visible entries of each query: top_k(index_scores(queries, keys, weights), visible, k).

    One operation, so that the scores of a long prompt are never held all at once, and a backend may score only what is
    visible. queries [B, S, h, D]; keys [B, T, D], floats or packed; weights [B, S, h]; visible [B, S] integer. Returns
    [B, S, min(k, T)] int64 entry numbers by falling score, −1 where fewer than k are visible. Raises ValueError for
    k < 1 or shapes that do not fit. Source: report eq. 16–17; the order among equals as in top_k.
    """
    _require_fit("index_top_k", queries, keys, weights)
    if k < 1 or visible.shape != queries.shape[:2]:
        shapes = f"visible {visible.shape} must fit queries {queries.shape}"
        raise ValueError(f"index_top_k: k = {k} must be positive and {shapes}")
    keys = unpacked(keys, queries.dtype)

    def some_best(queries: Array, weights: Array, visible: Ints) -> Ints:
        return top_k(index_scores(queries, keys, weights), visible, k)

    return over_queries(some_best, len(keys) * keys.shape[1], queries, weights, visible)


def _require_fit(operation: str, queries: Array, keys: Rows, weights: Array) -> None:
    batch, length, heads, width = queries.shape
    if keys.shape[::2] != (batch, width) or weights.shape != (batch, length, heads):
        shapes = f"queries {queries.shape}, keys {keys.shape}, weights {weights.shape}"
        raise ValueError(f"{operation}: {shapes} do not fit")
