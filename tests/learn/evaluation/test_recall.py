"""Replies are right where the model's likeliest tokens are the answer's."""

import numpy as np
import pytest

import tiny
from dsv4.errors import TextError
from dsv4.learn.evaluation import Reply, recall_accuracy, recall_replies
from dsv4.learn.texts.recall import RecallDocument
from dsv4.learn.texts.recall_text import Answer
from dsv4.ops import Ops


def test_replies_by_hand():
    model = tiny.model(Ops())
    ids = tiny.tokens(2, 60)
    likeliest = model(ids)[0].argmax(axis=-1)
    ids[21] = likeliest[20]  # changes what follows, not what comes before
    likeliest = model(ids)[0].argmax(axis=-1)
    ids[31:33] = likeliest[30], (likeliest[31] + 1) % tiny.CONFIG.vocab_size
    likeliest = model(ids)[0].argmax(axis=-1)
    ids[32] = (likeliest[31] + 1) % tiny.CONFIG.vocab_size  # the second token of two is wrong
    document = RecallDocument("", ids, (Answer(21, 1, 9), Answer(31, 2, 12), Answer(31, 1, 12)))
    assert recall_replies(model, [document, document]) == 2 * [Reply(9, True), Reply(12, False), Reply(12, True)]
    assert recall_accuracy(model, [document]) == pytest.approx(2 / 3)


def test_an_answer_is_what_greedy_generation_gives():
    from dsv4 import generate

    model = tiny.model(Ops())
    prompt = tiny.tokens(4, 50)
    answer = [token.id for token in generate(model, prompt, 3, temperature=0, stop_ids=())]
    ids = np.array([*prompt, *answer, 1])
    assert recall_accuracy(model, [RecallDocument("", ids, (Answer(50, 3, 40),))]) == 1


def test_documents_without_answers_are_refused():
    with pytest.raises(TextError, match="expected answers, found none"):
        recall_accuracy(tiny.model(Ops()), [RecallDocument("", tiny.tokens(0, 9), ())])
