"""Attention of many query heads over one shared key-value head, a window and chosen entries (report §2.3)."""

import numpy as np
import numpy.typing as npt

from dsv4.ops.chunks import over_queries
from dsv4.ops.packed_rows import Rows, unpacked
from dsv4.ops.types import Array, Ints, Mask


def sparse_attention(
    queries: Array, window: Rows, window_index: Ints, entries: Rows, entry_index: Ints, attn_sink: Array
) -> Array:
    """Softmax attention over the named window rows and compressed entries, which serve as keys and as values.

    queries [B, S, H, c]; window [B, W, c]; window_index [B, S, K1] integer rows of `window`; entries [B, T, c];
    entry_index [B, S, K2] integer rows of `entries`; an index of −1 names nothing; attn_sink [H] float32. Window and
    entries are floats or packed. Returns [B, S, H, c] of the queries' dtype; zeros for a query whose indices are all
    −1. The logits are q · k / sqrt(c). The sink takes its share of the softmax and gives no value.
    Raises ValueError where the shapes do not fit. Source: report §2.3.1 eq. 19, §2.3.2 eq. 26, §2.3.3 eq. 27.
    """
    c = queries.shape[-1]
    _check(queries, window, window_index, entries, entry_index, attn_sink)
    sink = attn_sink.astype(queries.dtype)
    window, entries = _read_often(window, window_index, sink.dtype), _read_often(entries, entry_index, sink.dtype)

    def attend_to_chosen(queries: Array, window_index: Ints, entry_index: Ints) -> Array:
        kv = np.concatenate(
            [_gather(window, window_index, sink.dtype), _gather(entries, entry_index, sink.dtype)], axis=2
        )
        present = np.concatenate([window_index, entry_index], axis=2) >= 0
        return _attend(queries, kv, present, sink)

    keys_per_query = window_index.shape[2] + entry_index.shape[2]
    return over_queries(attend_to_chosen, len(queries) * keys_per_query * c, queries, window_index, entry_index)


def attention_shares(
    queries: Array, window: Rows, window_index: Ints, entries: Rows, entry_index: Ints, attn_sink: Array
) -> Array:
    """What each query gives to each key and to the sink in `sparse_attention`, which takes the same arguments.

    Returns [B, S, H, K1 + K2 + 1] of the queries' dtype: the window rows of window_index, the entries of entry_index,
    and last the sink; 0 for an index of −1. They sum to 1. Raises ValueError where the shapes do not fit.
    Source: report §2.3.3 eq. 27.
    """
    c = queries.shape[-1]
    _check(queries, window, window_index, entries, entry_index, attn_sink)
    sink = attn_sink.astype(queries.dtype)
    window, entries = _read_often(window, window_index, sink.dtype), _read_often(entries, entry_index, sink.dtype)

    def shares(queries: Array, window_index: Ints, entry_index: Ints) -> Array:
        keys = np.concatenate(
            [_gather(window, window_index, sink.dtype), _gather(entries, entry_index, sink.dtype)], axis=2
        )
        present = np.concatenate([window_index, entry_index], axis=2) >= 0
        weight, of_sink = _weights(queries, keys, present, sink)
        both = np.concatenate([weight, of_sink], axis=-1)
        share: Array = both / both.sum(axis=-1, keepdims=True)
        return share

    keys_per_query = window_index.shape[2] + entry_index.shape[2]
    return over_queries(shares, len(queries) * keys_per_query * c, queries, window_index, entry_index)


def _attend(queries: Array, kv: Array, present: Mask, attn_sink: Array) -> Array:
    """queries [B, S, H, c], kv [B, S, K, c], present [B, S, K] bool, attn_sink [H] -> [B, S, H, c]"""
    weight, of_sink = _weights(queries, kv, present, attn_sink)
    total = weight.sum(axis=-1, keepdims=True) + of_sink
    output: Array = weight @ kv / total
    return output


def _weights(queries: Array, kv: Array, present: Mask, attn_sink: Array) -> tuple[Array, Array]:
    """The softmax before it is divided by its sum, as `_attend`: of the keys [B, S, H, K], of the sink [B, S, H, 1]."""
    scale = queries.dtype.type(queries.shape[-1] ** -0.5)
    logits = queries @ kv.swapaxes(-1, -2) * scale  # [B, S, H, K]
    logits = np.where(present[:, :, None, :], logits, -np.inf)
    sink = attn_sink[:, None]  # [H, 1]
    largest = np.maximum(logits.max(axis=-1, keepdims=True, initial=-np.inf), sink)
    return np.exp(logits - largest), np.exp(sink - largest)


def _read_often(rows: Rows, index: Ints, dtype: npt.DTypeLike) -> Rows:
    """Rows [B, N, c] without packed ones of which an index [B, S, K] names more than there are: unpacked once."""
    return unpacked(rows, dtype) if index.shape[1] * index.shape[2] > rows.shape[1] else rows


def _gather(rows: Rows, index: Ints, dtype: npt.DTypeLike) -> Array:
    """The rows that each query names, zeros for −1. rows [B, N, c], index [B, S, K] -> [B, S, K, c]"""
    if rows.shape[1] == 0:
        return np.zeros((*index.shape, rows.shape[-1]), unpacked(rows, dtype).dtype)
    batch = np.arange(rows.shape[0])[:, None, None]
    named = unpacked(rows[batch, index], dtype)  # of packed rows only these
    return np.where(index[..., None] >= 0, named, 0).astype(named.dtype)


def _check(
    queries: Array, window: Rows, window_index: Ints, entries: Rows, entry_index: Ints, attn_sink: Array
) -> None:
    batch, length, heads, c = queries.shape
    for name, rows, index in (("window", window, window_index), ("entries", entries, entry_index)):
        if rows.shape[::2] != (batch, c) or index.shape[:2] != (batch, length):
            raise ValueError(f"sparse_attention: {name} {rows.shape}, {index.shape} do not fit queries {queries.shape}")
        if index.size and index.max() >= rows.shape[1]:
            raise ValueError(f"sparse_attention: {name} index {index.max()} is beyond the {rows.shape[1]} rows")
    if attn_sink.shape != (heads,):
        raise ValueError(f"sparse_attention: attn_sink must have shape ({heads},), found {attn_sink.shape}")
