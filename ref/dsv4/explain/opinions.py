"""What a model would say next: the head's candidates after any layer, and what its MTP module or DSpark drafts."""

from typing import NamedTuple

import numpy as np

from dsv4.model.cache import Cache
from dsv4.model.dspark import BlockDrafter
from dsv4.model.language_model import LanguageModel
from dsv4.ops.elementwise import sigmoid
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
    """What was drafted for the places behind tokens 1 … T − 1, from one token less than the head saw.

    Of DSpark's blocks these are the first places, of which the token before is given.
    """

    opinions: Opinions
    """Of T − 1 places, the first of which is that behind token 1."""
    accepted: Mask
    """[T − 1]: whether the draft is the token that the head itself finds best, as decoding at temperature 0 asks."""
    chance: Array
    """[T − 1] float64: how probable a draft is accepted where both are drawn at temperature 1: Σ min(p, q)."""
    blocks: Ints | None = None
    """[T − 1, γ]: the tokens of DSpark's blocks, each the best one where those before it are taken; None of MTP."""
    confidence: Array | None = None
    """[T − 1, γ]: DSpark's estimate that the main model takes a token, if it took those before it."""


def opinions(model: LanguageModel, streams: Array, ids: Ints) -> Opinions:
    """The candidates that the head finds in the streams [1, T, n, d] of a text ids [T], or in what it takes of V4.1's.

    After another layer than the last, this is a reading of what the head was not trained for.
    """
    chunks = range(0, len(ids), CHUNK)
    heads = (model.ops.to_numpy(model.head(streams[:, start : start + CHUNK]))[0] for start in chunks)
    found = [_judge(logits, _following(ids)[start:][:CHUNK]) for start, logits in zip(chunks, heads, strict=True)]
    return Opinions(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def drafts(model: LanguageModel, states: Array, ids: Ints, cache: Cache | None) -> Drafts | None:
    """The drafts for a text ids [T], from the states that the head takes [1, T, ...]; None where there are none.

    cache: what the states were computed with, for a DSpark drafter, which rolls it back.
    """
    if len(ids) < 2 or model.drafter is None:
        return None
    if model.dspark is not None and cache is not None:
        return _blocks(model, model.dspark, states, ids, cache)
    return _mtp_drafts(model, states, ids)


def _mtp_drafts(model: LanguageModel, states: Array, ids: Ints) -> Drafts:
    logits = model.ops.to_numpy(model.mtp_logits(states[:, :-1], ids[None, 1:]))[0]
    found = []
    for start in range(0, len(logits), CHUNK):
        some = logits[start : start + CHUNK]
        found.append(_compared(model, some, states, ids, 1 + start))
    parts = [np.concatenate(part) for part in zip(*found, strict=True)]
    return Drafts(Opinions(*parts[:4]), *parts[4:])


def _blocks(model: LanguageModel, dspark: BlockDrafter, states: Array, ids: Ints, cache: Cache) -> Drafts:
    """A block behind each token but the first, which is given: the cache holds what stands before it."""
    found, host = [], model.ops.to_numpy
    for place in range(len(ids) - 1, 0, -1):
        cache.rollback(1)
        given = ids[place : place + 1]
        draft = dspark.draft(
            model.draft_block(given, cache), model.ops.asarray(given), lambda logits: logits.argmax(axis=-1)
        )
        first = host(draft.logits)[:, 0]  # [1, vocab]
        judged = _compared(model, first, states, ids, place)
        found.append((*judged, host(draft.ids), sigmoid(host(draft.confidence).astype(np.float64))))
    parts = [np.concatenate(part) for part in zip(*reversed(found), strict=True)]
    return Drafts(Opinions(*parts[:4]), *parts[4:])


def _compared(
    model: LanguageModel, some: Array, states: Array, ids: Ints, first: int
) -> tuple[Array | Ints | Mask, ...]:
    """Drafts' logits [S, vocab] for the places behind tokens first … first + S − 1, beside what the head says there."""
    judged = _judge(some, _following(ids)[first:][: len(some)])
    head = _softmax(model.ops.to_numpy(model.head(states[:, first:][:, : len(some)]))[0])
    accepted = judged.ids[:, 0] == head.argmax(axis=-1)
    return *judged, accepted, np.minimum(head, _softmax(some)).sum(axis=-1)


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
