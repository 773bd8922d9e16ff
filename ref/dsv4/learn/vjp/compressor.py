"""Compressing runs of tokens and its vector-Jacobian product (report §2.3.1–§2.3.2)."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from dsv4.ops import Ops
from dsv4.ops.types import Array


class CompressGradients(NamedTuple):
    """The gradients of `compress`."""

    d_kv: Array
    d_score: Array


class OverlapGradients(NamedTuple):
    """The gradient of `overlap`."""

    d_blocks: Array


def compress(kv: Array, score: Array) -> tuple[Array, Callable[[Array], CompressGradients]]:
    """`ops.compress`, e = Σ_j p_j v_j with p the softmax of the scores over the slots j of a channel, and its pullback.

        d_v_j = p_j d_e        d_score_j = p_j (v_j − e) d_e

    A slot whose score is −∞ has p = 0 and gets no gradient. Source: report §2.3.1 (CSA), §2.3.2 (HCA).
    """
    exponential = np.exp(score - score.max(axis=-2, keepdims=True))
    share = exponential / exponential.sum(axis=-2, keepdims=True)
    entry: Array = (kv * share).sum(axis=-2)

    def pull(d_entry: Array) -> CompressGradients:
        d_kv = share * d_entry[..., None, :]
        return CompressGradients(d_kv, d_kv * (kv - entry[..., None, :]))

    return entry, pull


def overlap(blocks: Array) -> tuple[Array, Callable[[Array], OverlapGradients]]:
    """`ops.overlap` and its pullback, which puts the gradient of each slot back where the slot came from.

    blocks [B, N+1, m, 2c], slots [B, N, 2m, c]. The previous-block channels of the last block and the own channels of
    the first one are in no entry and get zeros. Source: report §2.3.1.
    """
    c, m = blocks.shape[-1] // 2, blocks.shape[2]

    def pull(d_slots: Array) -> OverlapGradients:
        d_blocks = np.zeros_like(blocks)
        d_blocks[:, :-1, :, :c] = d_slots[:, :, :m]
        d_blocks[:, 1:, :, c:] = d_slots[:, :, m:]
        return OverlapGradients(d_blocks)

    return Ops.overlap(blocks), pull
