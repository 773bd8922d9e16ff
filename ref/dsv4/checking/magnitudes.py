"""How large the terms of each operation's sums are: what an error is measured against where terms can cancel."""

from collections.abc import Callable
from typing import Any

import numpy as np

from dsv4.ops.hadamard import sylvester
from dsv4.ops.indexer import index_scores
from dsv4.ops.linear import linear
from dsv4.ops.moe import Expert, Routing, swiglu
from dsv4.ops.quantise import dequantise

Arguments = tuple[Any, ...]


def magnitude(operation: str, arguments: Arguments) -> float | None:
    """The largest sum of magnitudes behind one number of the result; None where the result itself tells.

    arguments: the operation's, in float64.
    """
    of_operation = MAGNITUDES.get(operation)
    return None if of_operation is None else float(of_operation(*arguments))


def _largest(array: Any) -> float:
    return float(np.abs(array).max(initial=0))


def _product(x: Any, weight: Any, rounds: bool = False) -> float:
    return _largest(np.abs(x) @ np.abs(dequantise(weight, np.float64)).T)


def _products(x: Any, weights: list[Any], rounds: bool = False) -> float:
    return max(_product(x, weight) for weight in weights)


def _grouped(x: Any, weight: Any, groups: int) -> float:
    pieces = x.reshape(*x.shape[:-1], groups, -1)
    return _product(pieces, weight)


def _scores(queries: Any, keys: Any, weights: Any) -> float:
    return _largest(index_scores(np.abs(queries), np.abs(keys), np.abs(weights)))


def _hadamard(x: Any) -> float:
    return _largest(np.abs(x) @ np.abs(sylvester(x.shape[-1])) * x.shape[-1] ** -0.5)


def _attention(queries: Any, window: Any, window_index: Any, entries: Any, entry_index: Any, attn_sink: Any) -> float:
    """Of the rows that are named: others must not count."""
    named = [0.0]
    for rows, index in ((window, window_index), (entries, entry_index)):
        for batch in range(len(rows)):
            named.append(_largest(rows[batch][index[batch][index[batch] >= 0]]))
    return max(named)


def _collapse(streams: Any, pre: Any) -> float:
    return _largest(np.abs(pre)[..., None, :] @ np.abs(streams))


def _mix(streams: Any, output: Any, post: Any, comb: Any) -> float:
    kept = np.abs(comb).swapaxes(-1, -2) @ np.abs(streams)
    return _largest(np.abs(post)[..., None] * np.abs(output)[..., None, :] + kept)


def _expert(x: Any, share: Any, matrices: Expert, limit: float, rounds: bool) -> float:
    """The terms of w2's product, and what an error of the hidden numbers in w1's and w3's does to them."""
    w1, w2, w3 = (dequantise(matrix, np.float64) for matrix in matrices)
    gate, up = linear(x, w1), linear(x, w3)
    hidden = np.abs(swiglu(gate, up, limit))
    through_gate = np.minimum(np.abs(x) @ np.abs(w1).T, limit) * np.minimum(np.abs(up), limit)
    through_up = np.clip(np.abs(gate), 0, limit) * np.minimum(np.abs(x) @ np.abs(w3).T, limit)
    terms = np.abs(share)[:, None] * np.maximum(hidden, np.maximum(through_gate, through_up))
    return _largest(terms @ np.abs(w2).T)


def _experts(x: Any, routing: Routing, expert_list: list[Expert], limit: float, rounds: bool) -> float:
    largest = [_expert(x, np.ones(len(x)), matrices, limit, rounds) for matrices in expert_list]
    return max(largest) * _largest(np.abs(routing.weights).sum(axis=-1))


def _gated(streams: Any, keys_and_value: Any, q_weight: Any, k_weight: Any, eps: float) -> float:
    return _largest(streams) + _largest(keys_and_value[..., -streams.shape[-1] :])


MAGNITUDES: dict[str, Callable[..., float]] = {
    "linear": _product,
    "linears": _products,
    "grouped_linear": _grouped,
    "rope": lambda x, positions, frequencies: _largest(x) * 2**0.5,
    "hadamard": _hadamard,
    "compress": lambda kv, score: _largest(np.where(np.isneginf(score), 0, kv)),
    "index_scores": _scores,
    "sparse_attention": _attention,
    "mhc_weights": lambda *arguments: 8.0,  # as logits of some size come out of sigmoid and Sinkhorn
    "mhc_head_weights": lambda *arguments: 8.0,
    "mhc_collapse": _collapse,
    "mhc_mix": _mix,
    "expert": _expert,
    "experts": _experts,
    "mx_expert": _expert,
    "mx_experts": _experts,
    "engram_gate": _gated,
}
