"""Sparse attention and its vector-Jacobian product, in matrix products of neighbouring queries (report §2.3)."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from dsv4.ops.types import Array, Ints

QUERIES_PER_BLOCK = 32
"""How many queries meet their keys in one matrix product: few, since each of them meets the others' window, too."""


class AttentionGradients(NamedTuple):
    """The gradients of `sparse_attention`, each of its argument's shape and dtype."""

    d_queries: Array
    d_window: Array
    d_entries: Array
    d_attn_sink: Array


class _Block(NamedTuple):
    """Some neighbouring queries, what they have seen, and what their gradients need of it."""

    queries: slice
    window_rows: Ints
    entry_rows: Ints
    weights: Array
    """[B, Q, H, K] e^(logit − largest) for these rows, those of the window first; not yet divided by the total."""
    sink: Array
    """[B, Q, H, 1] the same of the sink."""
    total: Array
    """[B, Q, H, 1] the sum of both."""


def sparse_attention(
    queries: Array, window: Array, window_index: Ints, entries: Array, entry_index: Ints, attn_sink: Array
) -> tuple[Array, Callable[[Array], AttentionGradients]]:
    """`ops.sparse_attention` and its pullback.

    With k the rows that a query q names, which are keys and values, s = c^−½, p the softmax of the logits s q·k and of
    the sink, o = Σ p_k k, and g the gradient by o:

        d_logit_k = p_k (g·k − g·o)        d_sink = −Σ p_sink (g·o), over all queries
        d_q = s Σ_k d_logit_k k            d_k = Σ (s d_logit_k q + p_k g), over the queries that name k

    A block of neighbouring queries meets all rows that one of them names, in one matrix product, so that no row is
    copied for each query; what a query itself does not name has the logit −∞. So all rows that are named must be
    finite: one that is not spoils its whole block. A row that is named twice counts twice, as in the operation.
    Arguments as of the operation. Source: report §2.3.1–§2.3.3.
    """
    sink = attn_sink.astype(queries.dtype)[:, None]  # [H, 1]
    scale = queries.dtype.type(queries.shape[-1] ** -0.5)
    output = np.empty_like(queries)
    blocks = []
    for start in range(0, queries.shape[1], QUERIES_PER_BLOCK):
        some = slice(start, start + QUERIES_PER_BLOCK)
        rows = window, window_index[:, some], entries, entry_index[:, some]
        block, output[:, some] = _attend_block(some, queries[:, some] * scale, *rows, sink)
        blocks.append(block)

    def pull(d_output: Array) -> AttentionGradients:
        d_queries = np.zeros_like(queries)
        d_window, d_entries = np.zeros_like(window), np.zeros_like(entries)
        d_sink = np.zeros_like(sink)
        for block in blocks:
            some = block.queries
            keys = np.concatenate([window[:, block.window_rows], entries[:, block.entry_rows]], axis=1)
            d_scaled, d_keys, d_sink_of_block = _pull_block(block, queries[:, some] * scale, keys, d_output[:, some])
            d_queries[:, some] = d_scaled * scale
            d_sink += d_sink_of_block
            d_window[:, block.window_rows] += d_keys[:, : len(block.window_rows)]
            d_entries[:, block.entry_rows] += d_keys[:, len(block.window_rows) :]
        return AttentionGradients(d_queries, d_window, d_entries, d_sink[:, 0].astype(attn_sink.dtype))

    return output, pull


def _attend_block(
    some: slice, queries: Array, window: Array, window_index: Ints, entries: Array, entry_index: Ints, sink: Array
) -> tuple[_Block, Array]:
    """A block's scaled queries [B, Q, H, c], with their own indices [B, Q, K]: what gradients need of it, and o."""
    window_rows, window_times = _named(window_index, window.shape[1])
    entry_rows, entry_times = _named(entry_index, entries.shape[1])
    keys = np.concatenate([window[:, window_rows], entries[:, entry_rows]], axis=1)  # [B, K, c]
    times = np.concatenate([window_times, entry_times], axis=-1)
    weights, of_sink, total = _attend(queries, keys, times, sink)
    return _Block(some, window_rows, entry_rows, weights, of_sink, total), _product(weights, keys) / total


def _attend(queries: Array, keys: Array, times: Ints, sink: Array) -> tuple[Array, Array, Array]:
    """The softmax of scaled queries over their keys and the sink, still without its division.

    queries [B, Q, H, c]; keys [B, K, c]; times [B, Q, K]: how often each query names each key; sink [H, 1]. Returns the
    weights [B, Q, H, K], the sink's and the sum of all, both [B, Q, H, 1].
    """
    logits = _product(queries, keys.swapaxes(-1, -2))
    with np.errstate(divide="ignore"):
        logits += np.log(times, dtype=logits.dtype)[:, :, None]  # 0 for once, −∞ for never
    largest = np.maximum(logits.max(axis=-1, keepdims=True, initial=-np.inf), sink)
    logits -= largest
    weights = np.exp(logits, out=logits)
    of_sink = np.exp(sink - largest)
    return weights, of_sink, weights.sum(axis=-1, keepdims=True) + of_sink


def _pull_block(block: _Block, queries: Array, keys: Array, d_output: Array) -> tuple[Array, Array, Array]:
    """The gradients by a block's scaled queries [B, Q, H, c], by its keys [B, K, c] and by the sink [H, 1]."""
    share = d_output / block.total  # g over the total, so that the weights need no division
    d_logits = _product(share, keys.swapaxes(-1, -2))
    along = np.einsum("bqhk,bqhk->bqh", d_logits, block.weights)[..., None] / block.total  # g·o over the total
    d_logits -= along
    d_logits *= block.weights
    d_keys = _product_over_queries(d_logits, queries)  # as keys
    d_keys += _product_over_queries(block.weights, share)  # as values
    return _product(d_logits, keys), d_keys, -np.sum(block.sink * along, axis=(0, 1))


def _named(index: Ints, count: int) -> tuple[Ints, Ints]:
    """The rows that an index [B, Q, K] of `count` rows names, and how often each query names each: [R], [B, Q, R]."""
    present = index >= 0
    is_named = np.zeros(count, bool)
    is_named[index[present]] = True
    rows = np.flatnonzero(is_named)
    column = np.cumsum(is_named) - 1  # where a named row stands among them
    queries = index.shape[0] * index.shape[1]
    query = np.broadcast_to(np.arange(queries).reshape(*index.shape[:2], 1), index.shape)
    places = query[present] * len(rows) + column[index[present]]
    return rows, np.bincount(places, minlength=queries * len(rows)).reshape(*index.shape[:2], len(rows))


def _product(of_queries: Array, matrices: Array) -> Array:
    """One matrix product for each sequence. [B, Q, H, a] and [B, a, b] -> [B, Q, H, b]"""
    batch, queries, heads, _ = of_queries.shape
    product = of_queries.reshape(batch, queries * heads, of_queries.shape[-1]) @ matrices
    return product.reshape(batch, queries, heads, matrices.shape[-1])


def _product_over_queries(left: Array, right: Array) -> Array:
    """Σ over queries and heads of one times the other. [B, Q, H, a] and [B, Q, H, b] -> [B, a, b]"""
    batch, queries, heads, _ = left.shape
    rows = batch, queries * heads
    return left.reshape(*rows, left.shape[-1]).swapaxes(-1, -2) @ right.reshape(*rows, right.shape[-1])
