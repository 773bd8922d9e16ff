"""V4.1's pool of candidates: one layer finds promising blocks of entries, later ones choose in them (report §2.3.2).

The pool holds for each query the numbers of its blocks. Block b is entries b·size … b·size + size − 1.
"""

import numpy as np

from dsv4.ops.chunks import over_queries
from dsv4.ops.indexer import index_scores, top_k
from dsv4.ops.packed_rows import Rows, unpacked
from dsv4.ops.types import Array, Ints


def index_candidates(queries: Array, keys: Rows, weights: Array, visible: Ints, size: int, count: int) -> Ints:
    """The pool of each query: candidate_blocks(index_scores(queries, keys, weights), visible, size, count).

    queries [B, S, h, D]; keys [B, T, D], floats or packed; weights [B, S, h]; visible [B, S] integer; size: entries of
    a block; count: blocks of a pool at most. Returns [B, S, min(count, ⌈T/size⌉)] int64 block numbers, −1 where there
    are fewer. Raises ValueError for sizes below 1 or shapes that do not fit.
    """
    keys = unpacked(keys, queries.dtype)

    def some(queries: Array, weights: Array, visible: Ints) -> Ints:
        return candidate_blocks(index_scores(queries, keys, weights), visible, size, count)

    return over_queries(some, len(keys) * keys.shape[1], queries, weights, visible)


def candidate_blocks(scores: Array, visible: Ints, size: int, count: int) -> Ints:
    """The blocks of the best visible entries; the block of the newest visible entry is always among them.

    scores [B, S, T] float; visible [B, S] integer: entries 0 … visible−1 exist for a query. A block counts as much as
    its best visible entry. Returns [B, S, min(count, ⌈T/size⌉)] int64 block numbers, −1 where fewer blocks have a
    visible entry; among equal ones the lowest number. Raises ValueError for sizes below 1 or shapes that do not fit.
    Source: V4.1's report §2.3.2; code: Indexer, where a pool is a mask of entries.
    """
    if size < 1 or visible.shape != scores.shape[:2]:
        shapes = f"visible {visible.shape} must fit scores {scores.shape}"
        raise ValueError(f"candidate_blocks: size = {size} must be positive and {shapes}")
    entries = scores.shape[-1]
    blocks = -(-entries // size)
    seen = np.where(np.arange(entries) < visible[..., None], scores, -np.inf)
    missing = np.full((*scores.shape[:2], blocks * size - entries), -np.inf, scores.dtype)
    best = np.concatenate([seen, missing], axis=-1).reshape(*scores.shape[:2], blocks, size).max(axis=-1)
    newest = np.arange(blocks) == (visible[..., None] - 1) // size
    return top_k(np.where(newest, np.inf, best), -(-visible // size), count)


def index_top_k_among(queries: Array, keys: Rows, weights: Array, visible: Ints, pool: Ints, size: int, k: int) -> Ints:
    """The k best visible entries of each query in its pool: top_k_among of index_scores(queries, keys, weights).

    queries [B, S, h, D]; keys [B, T, D], floats or packed; weights [B, S, h]; visible [B, S] integer; pool [B, S, P]
    integer block numbers, −1 for none; size: entries of a block. Returns [B, S, min(k, T)] int64 entry numbers by
    falling score, −1 where there are fewer. Raises ValueError for sizes below 1 or shapes that do not fit.
    """
    keys = unpacked(keys, queries.dtype)

    def some(queries: Array, weights: Array, visible: Ints, pool: Ints) -> Ints:
        return top_k_among(index_scores(queries, keys, weights), visible, pool, size, k)

    return over_queries(some, len(keys) * keys.shape[1], queries, weights, visible, pool)


def top_k_among(scores: Array, visible: Ints, pool: Ints, size: int, k: int) -> Ints:
    """As `top_k`, but only entries of the query's blocks may be chosen.

    scores [B, S, T] float; visible [B, S] integer; pool [B, S, P] integer block numbers, −1 for none; size: entries of
    a block. Returns [B, S, min(k, T)] int64 entry numbers, −1 where the pool has fewer visible ones. Raises ValueError
    for k or size below 1 or shapes that do not fit. Source: V4.1's report §2.3.2; code: the same while a pool holds at
    least k entries; where it holds fewer, the code may take others, too.
    """
    if k < 1 or size < 1 or not visible.shape == scores.shape[:2] == pool.shape[:2]:
        shapes = f"visible {visible.shape} and pool {pool.shape} must fit scores {scores.shape}"
        raise ValueError(f"top_k_among: k = {k} and size = {size} must be positive, and {shapes}")
    entries = scores.shape[-1]
    blocks = -(-entries // size)
    in_pool = np.zeros((*scores.shape[:2], blocks + 1), bool)  # one more, for the −1
    np.put_along_axis(in_pool, pool, True, axis=-1)
    entry = np.arange(entries)
    allowed = in_pool[..., entry // size] & (entry < visible[..., None])
    order = np.argsort(np.where(allowed, -scores, np.inf), axis=-1, kind="stable")[..., :k]
    return np.where(np.take_along_axis(allowed, order, axis=-1), order, -1)
