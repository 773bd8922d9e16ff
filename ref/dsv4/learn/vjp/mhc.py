"""Hyper-connections and their vector-Jacobian products, Sinkhorn's rounds one by one (report §2.2)."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from dsv4.ops.elementwise import sigmoid
from dsv4.ops.mhc import MhcWeights
from dsv4.ops.types import Array


class MhcGradients(NamedTuple):
    """The gradients of `mhc_weights` and of `mhc_head_weights`, each of its argument's shape and dtype."""

    d_streams: Array
    d_fn: Array
    d_base: Array
    d_scale: Array


class CollapseGradients(NamedTuple):
    """The gradients of `mhc_collapse`."""

    d_streams: Array
    d_pre: Array


class MixGradients(NamedTuple):
    """The gradients of `mhc_mix`."""

    d_streams: Array
    d_output: Array
    d_post: Array
    d_comb: Array


def mhc_weights(
    streams: Array, fn: Array, base: Array, scale: Array, iterations: int, eps: float, norm_eps: float
) -> tuple[MhcWeights, Callable[[MhcWeights], MhcGradients]]:
    """`ops.mhc_weights` and its pullback, which takes the gradients of pre, post and comb.

    With the logits z = mixes · scale + base, one scale for each of the three parts, and s = σ(z):

        d_z = d_pre · s(1 − s)        d_z = d_post · 2s(1 − s)        d_z = sinkhorn's pullback of d_comb
        d_mixes = d_z · scale         d_base = Σ d_z                  d_scale = Σ d_z · mixes

    and the pullbacks of `sinkhorn` and of the projection are those of the functions below. Source: report §2.2.
    """
    n = streams.shape[2]
    mixes, pull_mixes = _mixes(streams, fn, norm_eps)
    parts = [slice(0, n), slice(n, 2 * n), slice(2 * n, None)]
    scale_of_row = np.repeat(scale.astype(mixes.dtype), [n, n, n * n])  # [(2+n)n]
    z = mixes * scale_of_row + base.astype(mixes.dtype)
    shares = sigmoid(z[..., : 2 * n])  # of pre and post
    comb, pull_comb = sinkhorn(z[..., 2 * n :].reshape(*z.shape[:-1], n, n), iterations, eps)
    weights = MhcWeights(shares[..., :n] + mixes.dtype.type(eps), 2 * shares[..., n:], comb)

    def pull(d_weights: MhcWeights) -> MhcGradients:
        slope = shares * (1 - shares)
        d_comb = pull_comb(d_weights.comb).reshape(*mixes.shape[:-1], n * n)
        d_pre, d_post = d_weights.pre * slope[..., :n], d_weights.post * 2 * slope[..., n:]
        d_z = np.concatenate([d_pre, d_post, d_comb], axis=-1)  # [B, S, (2+n)n]
        d_streams, d_fn = pull_mixes(d_z * scale_of_row)
        d_scale = [np.sum(d_z[..., part] * mixes[..., part]) for part in parts]
        return MhcGradients(d_streams, d_fn, d_z.sum(axis=(0, 1)).astype(base.dtype), np.array(d_scale, scale.dtype))

    return weights, pull


def mhc_head_weights(
    streams: Array, fn: Array, base: Array, scale: Array, eps: float, norm_eps: float
) -> tuple[Array, Callable[[Array], MhcGradients]]:
    """`ops.mhc_head_weights` and its pullback: that of pre in `mhc_weights`. Source: report §2.2; code: hc_head."""
    mixes, pull_mixes = _mixes(streams, fn, norm_eps)
    of_dtype = scale.astype(mixes.dtype)
    share = sigmoid(mixes * of_dtype + base.astype(mixes.dtype))

    def pull(d_weights: Array) -> MhcGradients:
        d_z = d_weights * share * (1 - share)
        d_streams, d_fn = pull_mixes(d_z * of_dtype)
        d_scale = np.sum(d_z * mixes).reshape(1).astype(scale.dtype)
        return MhcGradients(d_streams, d_fn, d_z.sum(axis=(0, 1)).astype(base.dtype), d_scale)

    return share + mixes.dtype.type(eps), pull


def sinkhorn(logits: Array, iterations: int, eps: float) -> tuple[Array, Callable[[Array], Array]]:
    """`ops.mhc.sinkhorn` and its pullback through each of its rounds.

    Every normalisation is y = x / s with s = Σ x + eps, over a row or a column, so that

        d_x = (d_y − Σ d_y · y) / s

    and going backwards x = y · s: only the sums are kept. The softmax p = e^l / Σ e^l at the start, to which eps is
    added, has d_l = p (d_p − Σ d_p · p). One linear system for the fixed point, instead of all rounds, would be wrong:
    20 rounds stop before it, and eps moves it. logits [..., n, n]. Source: report §2.2.
    """
    tiny = logits.dtype.type(eps)
    rows, columns = 1, 0
    axes = [columns] + [rows, columns] * (iterations - 1)
    tokens_last = _tokens_last(logits)
    exponential = np.exp(tokens_last - tokens_last.max(axis=rows, keepdims=True))
    softmax = exponential / exponential.sum(axis=rows, keepdims=True)
    comb = softmax + tiny
    sums = []
    for axis in axes:
        total = comb.sum(axis=axis, keepdims=True) + tiny
        comb = comb / total
        sums.append(total)
    last = comb

    def pull(d_result: Array) -> Array:
        comb, d_comb = last, _tokens_last(d_result)
        for axis, total in zip(reversed(axes), reversed(sums), strict=True):
            d_comb = (d_comb - (d_comb * comb).sum(axis=axis, keepdims=True)) / total
            comb = comb * total
        d_logits = softmax * (d_comb - (d_comb * softmax).sum(axis=rows, keepdims=True))
        return np.moveaxis(d_logits, (0, 1), (-2, -1))

    return np.moveaxis(last, (0, 1), (-2, -1)), pull


def mhc_collapse(streams: Array, pre: Array) -> tuple[Array, Callable[[Array], CollapseGradients]]:
    """`ops.mhc_collapse`, x = Σ_j pre_j · X_j, and its pullback.

        d_X_j = pre_j · d_x        d_pre_j = d_x · X_j

    Source: report §2.2.
    """

    def pull(d_x: Array) -> CollapseGradients:
        return CollapseGradients(pre[..., None] * d_x[..., None, :], np.einsum("bsnd,bsd->bsn", streams, d_x))

    return np.einsum("bsn,bsnd->bsd", pre, streams), pull


def mhc_mix(streams: Array, output: Array, post: Array, comb: Array) -> tuple[Array, Callable[[Array], MixGradients]]:
    """`ops.mhc_mix`, X'_i = post_i · o + Σ_j comb[j, i] · X_j, and its pullback; comb is used as it is, not transposed.

        d_X_j = Σ_i comb[j, i] · d_X'_i        d_comb[j, i] = X_j · d_X'_i
        d_o = Σ_i post_i · d_X'_i              d_post_i = o · d_X'_i

    Source: report §2.2; code: hc_post.
    """

    def pull(d_streams: Array) -> MixGradients:
        return MixGradients(
            comb @ d_streams,
            np.einsum("bsn,bsnd->bsd", post, d_streams),
            np.einsum("bsnd,bsd->bsn", d_streams, output),
            streams @ d_streams.swapaxes(-1, -2),
        )

    return post[..., None] * output[..., None, :] + comb.swapaxes(-1, -2) @ streams, pull


def _mixes(streams: Array, fn: Array, norm_eps: float) -> tuple[Array, Callable[[Array], tuple[Array, Array]]]:
    """The normalised streams of a token times fn, [B, S, n, d] -> [B, S, rows], and the pullback to streams and fn.

    With f the token's streams side by side, r = sqrt(mean f² + eps) and mixes = fn f / r:

        d_fn = Σ (d_mixes / r) fᵀ        d_f = fnᵀ d_mixes / r − f (d_mixes · mixes) / (n d r²)
    """
    width = streams.shape[-2] * streams.shape[-1]
    flat = streams.reshape(-1, width)  # [T, n·d]
    matrix = fn.astype(flat.dtype, copy=False)
    root = np.sqrt(np.einsum("tw,tw->t", flat, flat) / width + flat.dtype.type(norm_eps))[:, None]
    mixes = flat @ matrix.T / root

    def pull(d_mixes: Array) -> tuple[Array, Array]:
        d_rows = d_mixes.reshape(mixes.shape)
        share = d_rows / root
        inward = np.sum(d_rows * mixes, axis=-1, keepdims=True) / (width * np.square(root))
        d_flat = share @ matrix
        d_flat -= flat * inward
        return d_flat.reshape(streams.shape), (share.T @ flat).astype(fn.dtype)

    return mixes.reshape(*streams.shape[:2], len(fn)), pull


def _tokens_last(matrices: Array) -> Array:
    """[..., n, n] -> [n, n, ...] in that order in memory, so that sums over n run along whole rows of tokens."""
    return np.ascontiguousarray(np.moveaxis(matrices, (-2, -1), (0, 1)))
