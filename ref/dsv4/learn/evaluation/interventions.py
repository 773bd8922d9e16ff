"""The same model with a part of its long-range attention taken away.

How much worse it becomes shows what that part is worth.

An intervention changes operations of a backend and nothing of the model:

    changed = intervened(model, without_csa)
"""

from collections.abc import Callable
from copy import copy
from typing import Any

import numpy as np

from dsv4.model.model import Model
from dsv4.ops import Ops
from dsv4.ops.types import Array, Ints

Intervention = Callable[[Ops], Ops]
"""From a backend to one that is the same but for some operations."""


def intervened(model: Model, intervention: Intervention) -> Model:
    """The model on its backend after an intervention; the model that is given stays as it is."""
    return Model(model.checkpoint, intervention(model.ops), model.rounds, model.dtype)


def random_choice(ops: Ops, seed: int = 0) -> Ops:
    """The indexer's scores are replaced by random ones: each query reads k of its visible entries, drawn blindly.

    The draws follow from the seed and the order of the calls.
    """
    generator = np.random.default_rng(seed)

    def index_top_k(queries: Array, keys: Array, weights: Array, visible: Ints, k: int) -> Ints:
        scores = generator.random((*queries.shape[:2], keys.shape[1]), np.float32)
        return ops.top_k(ops.asarray(scores), visible, k)

    return _with(ops, index_top_k=index_top_k)


def without_csa(ops: Ops) -> Ops:
    """No query reads an entry of a CSA layer: the indexer chooses none."""

    def index_top_k(queries: Array, keys: Array, weights: Array, visible: Ints, k: int) -> Ints:
        return ops.asarray(np.full((*queries.shape[:2], min(k, keys.shape[1])), -1, np.int64))

    return _with(ops, index_top_k=index_top_k)


def without_hca(ops: Ops) -> Ops:
    """No query reads an entry of an HCA layer: attention leaves out all entries that no indexer has chosen."""
    last_choice: list[Ints] = []

    def index_top_k(queries: Array, keys: Array, weights: Array, visible: Ints, k: int) -> Ints:
        last_choice[:] = [ops.index_top_k(queries, keys, weights, visible, k)]
        return last_choice[0]

    def sparse_attention(
        queries: Array, window: Array, window_index: Ints, entries: Array, entry_index: Ints, attn_sink: Array
    ) -> Array:
        is_csa = any(entry_index is choice for choice in last_choice)
        index = entry_index if is_csa else entry_index[..., :0]
        return ops.sparse_attention(queries, window, window_index, entries, index, attn_sink)

    return _with(ops, index_top_k=index_top_k, sparse_attention=sparse_attention)


def without_entries(ops: Ops) -> Ops:
    """No query reads any entry: sliding windows are all that is left."""
    return without_hca(without_csa(ops))


def _with(ops: Ops, **operations: Any) -> Ops:
    """A copy of a backend with other operations of these names."""
    changed = copy(ops)
    for name, operation in operations.items():
        setattr(changed, name, operation)
    return changed
