"""Functions with the mistakes that ports of V4.1 make, in plain NumPy."""

import numpy as np

from dsv4.ops import Ops
from dsv4.ops.candidates import top_k_among
from dsv4.ops.elementwise import sigmoid
from dsv4.ops.formats import fp4_decode, fp4_encode
from dsv4.ops.indexer import index_scores, top_k


def powers_of_two_as_scales(x):
    """As index vectors are rounded, in groups of 16."""
    return Ops.fake_quant_fp4(x, 16)


def scales_that_are_not_rounded(x):
    """The largest number of a group over 6, as it is."""
    width = x.shape[-1]
    padded = np.pad(x, [*[(0, 0)] * (x.ndim - 1), (0, -width % 16)])
    groups = padded.reshape(*x.shape[:-1], padded.shape[-1] // 16, 16)
    scale = np.maximum(np.abs(groups).max(axis=-1, keepdims=True, initial=0), np.float32(6 * 2.0**-9)) / np.float32(6)
    return (fp4_decode(fp4_encode(groups / scale)).astype(x.dtype) * scale).reshape(padded.shape)[..., :width]


def _blocks(queries, keys, weights, visible, size, count, pinned=True, of_block=np.max):
    scores = index_scores(queries, keys, weights)
    entries, blocks = scores.shape[-1], -(-scores.shape[-1] // size)
    seen = np.where(np.arange(entries) < visible[..., None], scores, -np.inf)
    padded = np.pad(seen, [(0, 0), (0, 0), (0, blocks * size - entries)], constant_values=-np.inf)
    best = of_block(padded.reshape(*scores.shape[:2], blocks, size), axis=-1)
    if pinned:
        best = np.where(np.arange(blocks) == (visible[..., None] - 1) // size, np.inf, best)
    return top_k(best, -(-visible // size), count)


def newest_block_only_if_it_is_good(*arguments):
    return _blocks(*arguments, pinned=False)


def mean_of_a_block(*arguments):
    return _blocks(*arguments, of_block=lambda scores, axis: np.where(np.isfinite(scores), scores, 0).mean(axis=axis))


def one_pool_for_all_queries(queries, keys, weights, visible, pool, size, k):
    return Ops.index_top_k_among(queries, keys, weights, visible, np.broadcast_to(pool[:, -1:], pool.shape), size, k)


def others_than_the_pool(queries, keys, weights, visible, pool, size, k):
    """Entries outside the pool come last and are chosen where it holds too few."""
    scores = index_scores(queries, keys, weights)
    among = top_k_among(scores, visible, pool, size, k)
    everything = top_k(scores, visible, scores.shape[-1])
    found = np.full_like(among, -1)
    for at in np.ndindex(among.shape[:2]):
        inside = [entry for entry in among[at] if entry >= 0]
        filled = [*inside, *(entry for entry in everything[at] if entry >= 0 and entry not in inside)][: len(found[at])]
        found[at][: len(filled)] = filled
    return found


def single_weight_divided(*arguments):
    return Ops.route(*arguments)


def inputs_in_blocks_of_128(*arguments):
    return Ops.experts(*arguments)


def shared_inputs_in_blocks_of_128(*arguments):
    return Ops.expert(*arguments)


def _gate(streams, kv, q_weight, k_weight, eps, root=True, sign=True, axes=-1, value_first=False):
    n, d = streams.shape[2:]
    keys, value = (kv[..., d:], kv[..., :d]) if value_first else (kv[..., : n * d], kv[..., n * d :])
    keys = keys.reshape(streams.shape)
    norms = [np.sqrt(np.mean(x * x, axis=axes, keepdims=True) + np.float32(eps)) for x in (streams, keys)]
    dot = (streams * q_weight * k_weight * keys).sum(axis=-1, keepdims=True) / (norms[0] * norms[1])
    dot = dot * np.float32(d**-0.5)
    size = np.sqrt(np.maximum(np.abs(dot), np.float32(1e-6))) if root else np.abs(dot)
    return streams + sigmoid(np.copysign(size, dot) if sign else size) * value[:, :, None]


def right_gate(*arguments):
    return _gate(*arguments)


def value_before_the_keys(*arguments):
    return _gate(*arguments, value_first=True)


def gate_without_the_root(*arguments):
    return _gate(*arguments, root=False)


def gate_without_the_sign(*arguments):
    return _gate(*arguments, sign=False)


def one_norm_for_all_streams(*arguments):
    return _gate(*arguments, axes=(-2, -1))


def multipliers_from_the_oldest(classes, multipliers, moduli):
    return Ops.engram_rows(classes, multipliers[::-1], moduli)


def hashes_of_32_bits(classes, multipliers, moduli):
    return Ops.engram_rows(classes.astype(np.int32), multipliers.astype(np.int32), moduli.astype(np.int32)).astype(
        np.int64
    )


def columns_share_their_rows(classes, multipliers, moduli):
    """Without the offset of each column."""
    offsets = np.cumsum(moduli) - moduli.reshape(-1)
    return Ops.engram_rows(classes, multipliers, moduli) - offsets
