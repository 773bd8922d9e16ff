"""The loss of a language model: how surprised it is by the next token."""

import numpy as np

from dsv4.learn.losses.labels import labels
from dsv4.ops.types import Array, Ints, Mask


def next_token(logits: Array, ids: Ints, mask: Mask | None = None) -> Array:
    """−1/T Σ_t log softmax(logits_t)[id_(t+1)], in nats: the mean over all tokens that are predicted.

    logits [B, S, vocab] float, of each position for the next one; ids [B, S] integer; mask [B, S]: false at padding,
    None for no padding. T counts the tokens of all sequences that have one before them in their own. Returns one
    number of the logits' dtype. Raises ValueError where no token is predicted. Source: report §4.2.
    """
    wanted = labels(ids, mask, 1)
    count = int(wanted.exist.sum())
    if count == 0:
        raise ValueError("next_token: expected a sequence of two tokens or more, found none")
    return total_surprise(logits, wanted.ids, wanted.exist) / logits.dtype.type(count)


def total_surprise(logits: Array, wanted: Ints, exist: Mask) -> Array:
    """Σ `surprise` over the places where `exist` says so. logits [B, S, vocab]; others [B, S]."""
    total: Array = np.where(exist, surprise(logits, wanted), 0).sum()
    return total


def surprise(logits: Array, wanted: Ints) -> Array:
    """−log softmax(logits)[wanted], in nats. logits [B, S, vocab] float; wanted [B, S] integer -> [B, S]."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_total = np.log(np.exp(shifted).sum(axis=-1))  # [B, S]
    chosen = np.take_along_axis(shifted, wanted[..., None], axis=-1)[..., 0]
    found: Array = log_total - chosen
    return found
