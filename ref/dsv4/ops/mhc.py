"""Manifold-constrained hyper-connections: how n residual streams feed a sub-layer and take its output (report §2.2)."""

from typing import NamedTuple

import numpy as np

from dsv4.ops.elementwise import sigmoid
from dsv4.ops.types import Array


class MhcWeights(NamedTuple):
    """The weights with which one token's streams are read, written and mixed."""

    pre: Array
    """[B, S, n]: the share of each stream in the sub-layer's input."""
    post: Array
    """[B, S, n]: the share of the sub-layer's output that each stream gets."""
    comb: Array
    """[B, S, n, n]: comb[j, i] is the share of old stream j in new stream i; doubly stochastic up to eps."""


def mhc_weights(
    streams: Array, fn: Array, base: Array, scale: Array, iterations: int, eps: float, norm_eps: float
) -> MhcWeights:
    """The three sets of mixing weights of one sub-layer.

    streams [B, S, n, d]; fn [(2+n)n, n·d]; base [(2+n)n]; scale [3]: for pre, post and comb. Returns MhcWeights of
    the streams' dtype. pre = σ(·) + eps, post = 2σ(·) without eps, comb = Sinkhorn of `iterations` rounds.
    Raises ValueError where the shapes do not fit. Source: report §2.2 eq. 3–8; code: hc_split_sinkhorn.
    """
    n = streams.shape[2]
    mixes = _mixes(streams, fn, norm_eps)
    _check("mhc_weights", (2 + n) * n, 3, mixes, base, scale)
    return mhc_split(mixes, base, scale, n, iterations, eps)


def mhc_split(mixes: Array, base: Array, scale: Array, n: int, iterations: int, eps: float) -> MhcWeights:
    """The mixing weights from the projected streams.

    mixes [..., (2+n)n]: n for pre, n for post, n·n for comb, row by row; base [(2+n)n]; scale [3]. Returns MhcWeights
    with leading axes as in mixes. Source: report §2.2 eq. 3–8, behind the projection; code: hc_split_sinkhorn.
    """
    dtype = mixes.dtype.type
    base, scale = base.astype(dtype), scale.astype(dtype)
    pre = sigmoid(mixes[..., :n] * scale[0] + base[:n]) + dtype(eps)
    post = 2 * sigmoid(mixes[..., n : 2 * n] * scale[1] + base[n : 2 * n])
    comb = mixes[..., 2 * n :] * scale[2] + base[2 * n :]
    return MhcWeights(pre, post, sinkhorn(comb.reshape(*mixes.shape[:-1], n, n), iterations, eps))


def sinkhorn(logits: Array, iterations: int, eps: float) -> Array:
    """A nearly doubly stochastic matrix: softmax over rows, then columns and rows normalised in turn.

    logits [..., n, n] float; iterations: `hc_sinkhorn_iters`, 20 in the released models. Returns the same shape and
    dtype; columns sum to 1 up to eps, since the last step normalises them. Source: report eq. 2 and eq. 8, which starts
    from exp and goes columns, rows; code: the softmax counts as the first rows, then columns, then (iterations − 1)
    times rows and columns, eps in every divisor.
    """
    tiny = logits.dtype.type(eps)
    # [..., n, n] -> [n, n, ...], one after another in memory: sums over n run along whole rows of tokens
    tokens_last = np.copy(np.moveaxis(logits, (-2, -1), (0, 1)), order="C")
    exponential = np.exp(tokens_last - tokens_last.max(axis=1, keepdims=True))
    comb = exponential / exponential.sum(axis=1, keepdims=True) + tiny
    comb = comb / (comb.sum(axis=0, keepdims=True) + tiny)
    for _ in range(iterations - 1):
        comb = comb / (comb.sum(axis=1, keepdims=True) + tiny)
        comb = comb / (comb.sum(axis=0, keepdims=True) + tiny)
    return np.copy(np.moveaxis(comb, (0, 1), (-2, -1)), order="C")


def mhc_collapse(streams: Array, pre: Array) -> Array:
    """The sub-layer's input Σ_j pre_j · stream_j. streams [B, S, n, d], pre [B, S, n] -> [B, S, d]. Report eq. 1."""
    collapsed: Array = (pre[..., None, :] @ streams)[..., 0, :]
    return collapsed


def mhc_mix(streams: Array, output: Array, post: Array, comb: Array) -> Array:
    """The new streams: stream'_i = post_i · output + Σ_j comb[j, i] · stream_j, so comb is used transposed.

    streams [B, S, n, d]; output [B, S, d]; post [B, S, n]; comb [B, S, n, n]. Returns [B, S, n, d].
    Raises ValueError where the shapes do not fit. Source: report eq. 1; code: hc_post.
    """
    batch, length, n, d = streams.shape
    expected = (batch, length, d), (batch, length, n), (batch, length, n, n)
    found = output.shape, post.shape, comb.shape
    if found != expected:
        raise ValueError(f"mhc_mix: output, post and comb must have shapes {expected}, found {found}")
    return post[..., None] * output[..., None, :] + comb.swapaxes(-1, -2) @ streams


def mhc_head_weights(streams: Array, fn: Array, base: Array, scale: Array, eps: float, norm_eps: float) -> Array:
    """The weights that collapse the streams before the head: σ(·) + eps, as pre.

    streams [B, S, n, d]; fn [n, n·d]; base [n]; scale [1]. Returns [B, S, n]. Source: report §2.2; code: hc_head.
    """
    mixes = _mixes(streams, fn, norm_eps)
    _check("mhc_head_weights", streams.shape[2], 1, mixes, base, scale)
    dtype = mixes.dtype.type
    return sigmoid(mixes * scale.astype(dtype) + base.astype(dtype)) + dtype(eps)


def _check(caller: str, rows: int, scales: int, mixes: Array, base: Array, scale: Array) -> None:
    found = mixes.shape[-1], base.shape, scale.shape
    if found != (rows, (rows,), (scales,)):
        raise ValueError(
            f"{caller}: expected fn with {rows} rows, base ({rows},) and scale ({scales},) for these streams, "
            f"found fn with {found[0]} rows, base {found[1]} and scale {found[2]}"
        )


def _mixes(streams: Array, fn: Array, norm_eps: float) -> Array:
    """The normalised streams of a token, all together, times fn: [B, S, n, d] -> [B, S, rows of fn]"""
    width = streams.shape[-2] * streams.shape[-1]
    if fn.shape[1] != width:
        raise ValueError(f"mhc: fn takes {fn.shape[1]} channels, but the streams have {width}")
    flat = streams.reshape(*streams.shape[:-2], width)  # [B, S, n·d]
    root_mean_square = np.sqrt(np.mean(np.square(flat), axis=-1, keepdims=True) + flat.dtype.type(norm_eps))
    mixes: Array = flat @ fn.astype(flat.dtype).T / root_mean_square
    return mixes
