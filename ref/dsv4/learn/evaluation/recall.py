"""How many recall questions a model answers: the whole answer, greedily."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from dsv4.errors import TextError
from dsv4.learn.texts.recall import RecallDocument
from dsv4.model.model import Model


class Reply(NamedTuple):
    """What became of one answer."""

    distance: int
    """How many tokens back it had been given."""
    is_right: bool
    """Whether each of its tokens is the model's likeliest, given what stands before."""


def recall_replies(model: Model, documents: Iterable[RecallDocument]) -> list[Reply]:
    """The replies to all answers of some documents, in order.

    Documents go through the model as they are, one after the other; an answer counts as right where the argmax of the
    logits is right for each of its tokens, which is when greedy generation would have given it.
    """
    replies = []
    for document in documents:
        chosen = model.ops.to_numpy(model(document.ids[None, :-1]))[0].argmax(axis=-1)  # at t the token t + 1
        for start, length, distance in document.answers:
            wanted = document.ids[start : start + length]
            replies.append(Reply(distance, bool((chosen[start - 1 : start - 1 + length] == wanted).all())))
    return replies


def recall_accuracy(model: Model, documents: Iterable[RecallDocument]) -> float:
    """The share of answers that are right. Raises TextError for documents without any."""
    replies = recall_replies(model, documents)
    if not replies:
        raise TextError("documents: expected answers, found none")
    return float(np.mean([reply.is_right for reply in replies]))
