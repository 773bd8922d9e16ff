"""Compressing runs of tokens into single entries (report §2.3.1 eq. 9–12, §2.3.2 eq. 20–23)."""

import numpy as np

from dsv4.ops.types import Array


def compress(kv: Array, score: Array) -> Array:
    """One entry per block: a softmax of the scores over the block's slots, channel by channel, weights the values.

    kv, score [..., slots, c] float; a score of −inf excludes its slot, but not all slots of a channel may be
    excluded. Returns [..., c] of kv's dtype, before norm and RoPE. Raises ValueError where the shapes differ.
    Source: report eq. 11–12 (CSA), eq. 22–23 (HCA).
    """
    if kv.shape != score.shape:
        raise ValueError(f"compress: kv {kv.shape} and score {score.shape} must have one shape")
    weight = _exponentials(score)
    entry: Array = (kv * weight).sum(axis=-2) / weight.sum(axis=-2)
    return entry


def slot_shares(score: Array) -> Array:
    """How much each slot counts in the entry that `compress` makes: the softmax over the slots, channel by channel.

    score [..., slots, c] as for `compress`. Returns the same shape and dtype; the slots of a channel sum to 1.
    Source: report eq. 11 (CSA), eq. 22 (HCA).
    """
    weight = _exponentials(score)
    share: Array = weight / weight.sum(axis=-2, keepdims=True)
    return share


def _exponentials(score: Array) -> Array:
    """The softmax over the slots before it is divided by its sum. [..., slots, c] -> the same"""
    exponentials: Array = np.exp(score - score.max(axis=-2, keepdims=True))
    return exponentials


def overlap(blocks: Array) -> Array:
    """The slots of CSA entries: each entry sees the block before its own and its own, through different channels.

    blocks [B, N+1, m, 2c]: consecutive blocks of m tokens, the first one only as predecessor. Returns [B, N, 2m, c]:
    first the m slots of the previous block from channels 0…c−1, then the m slots of the own block from channels
    c…2c−1. Source: report eq. 11–12, where the own series is called a and the previous one b; code: the channels of
    the previous block's series come first.
    """
    c = blocks.shape[-1] // 2
    previous, own = blocks[:, :-1, :, :c], blocks[:, 1:, :, c:]
    return np.concatenate([previous, own], axis=2)
