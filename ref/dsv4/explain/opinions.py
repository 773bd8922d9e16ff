"""What a model would say next: the head's candidates after any layer, and the drafts of the MTP module."""

from typing import NamedTuple

import numpy as np

from dsv4.model.model import Model
from dsv4.ops.types import Array, Ints, Mask

CANDIDATES = 5
"""How many of the best tokens are kept at each place."""

CHUNK = 256
"""Tokens whose logits are held at once."""


class Opinions(NamedTuple):
    """What is thought of the token that follows each of T tokens."""

    ids: Ints
    """[T, 5]: the best candidates, the best first; among equals the lowest id."""
    shares: Array
    """[T, 5] float64: their probabilities."""
    truth: Array
    """[T] float64: the probability of the token that follows; 0 behind the last one, which nothing follows."""
    rank: Ints
    """[T]: its place among all tokens, 1 for the best; 0 behind the last one."""


class Drafts(NamedTuple):
    """What the MTP module drafted for the places behind tokens 1 … T − 1: it saw one token less than the head."""

    opinions: Opinions
    """Of T − 1 places, the first of which is that behind token 1."""
    accepted: Mask
    """[T − 1]: whether the draft is the token that the head itself finds best, as decoding at temperature 0 asks."""
    chance: Array
    """[T − 1] float64: how probable a draft is accepted where both are drawn at temperature 1: Σ min(p, q)."""


def opinions(model: Model, streams: Array, ids: Ints) -> Opinions:
    """The candidates that the head finds in the streams [1, T, n, d] of a text ids [T].

    After another layer than the last, this is a reading of what the head was not trained for.
    """
    chunks = range(0, len(ids), CHUNK)
    heads = (model.ops.to_numpy(model.head(streams[:, start : start + CHUNK]))[0] for start in chunks)
    found = [_judge(logits, _following(ids)[start:][:CHUNK]) for start, logits in zip(chunks, heads, strict=True)]
    return Opinions(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def drafts(model: Model, states: Array, ids: Ints) -> Drafts | None:
    """The drafts of the MTP module from the streams after the last block, [1, T, n, d]; None where there are none."""
    if model.mtp is None or len(ids) < 2:
        return None
    logits = model.ops.to_numpy(model.mtp_logits(states[:, :-1], ids[None, 1:]))[0]
    found = []
    for start in range(0, len(logits), CHUNK):
        some = logits[start : start + CHUNK]
        judged = _judge(some, _following(ids)[1 + start :][: len(some)])
        head = _softmax(model.ops.to_numpy(model.head(states[:, 1 + start :][:, : len(some)]))[0])
        accepted = judged.ids[:, 0] == head.argmax(axis=-1)
        chance = np.minimum(head, _softmax(some)).sum(axis=-1)
        found.append((*judged, accepted, chance))
    parts = [np.concatenate(part) for part in zip(*found, strict=True)]
    return Drafts(Opinions(*parts[:4]), *parts[4:])


def _following(ids: Ints) -> Ints:
    """[T]: the token behind each one; −1 behind the last."""
    return np.append(ids[1:], -1)


def _judge(logits: Array, truth: Ints) -> Opinions:
    """The opinions that logits [S, vocab] hold, and what they give to the true tokens [S], −1 for none."""
    share = _softmax(logits)
    best = np.argsort(-share, axis=-1, kind="stable")[:, :CANDIDATES]
    known = truth >= 0
    of_truth = np.take_along_axis(share, np.maximum(truth, 0)[:, None], axis=-1)
    rank = 1 + (share > of_truth).sum(axis=-1)
    return Opinions(
        best, np.take_along_axis(share, best, axis=-1), np.where(known, of_truth[:, 0], 0), np.where(known, rank, 0)
    )


def _softmax(logits: Array) -> Array:
    """[S, vocab] -> probabilities in float64"""
    exponential = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    share: Array = exponential / exponential.sum(axis=-1, keepdims=True)
    return share
