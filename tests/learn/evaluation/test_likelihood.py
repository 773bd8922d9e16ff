"""Nats per token are those of the model card, and of a softmax written out for each window alone."""

import re
from pathlib import Path

import numpy as np
import pytest

import tiny
from dsv4 import Tokenizer, bundled_model, load
from dsv4.errors import TextError
from dsv4.learn.evaluation import nats_per_token
from dsv4.ops import Ops

TEMPEST = (Path(__file__).parents[2] / "data/eval/eval.txt").read_text(encoding="utf-8")


def test_by_hand():
    model = tiny.model(Ops())
    ids = tiny.tokens(0, 39)
    expected = []
    for start in (0, 9, 18, 27):  # the window at 36 has no room
        logits = model(ids[start : start + 9])[0]
        chances = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
        expected += [-np.log(chances[place, ids[start + place + 1]]) for place in range(9)]
    for batch in (1, 3, 8):
        assert abs(nats_per_token(model, ids, window=9, batch=batch) - np.mean(expected)) < 1e-12
    assert nats_per_token(model, ids[:37], window=9) == nats_per_token(model, ids, window=9)
    assert nats_per_token(model, ids[:36], window=9) != nats_per_token(model, ids, window=9)


def test_the_bundled_model_has_what_its_card_says():
    ids = Tokenizer.from_file(bundled_model()).encode(TEMPEST)
    found = nats_per_token(load(backend="numpy", fake_quant="off"), ids)
    card = (bundled_model() / "README.md").read_text(encoding="utf-8")
    (stated,) = re.findall(r"^\| this checkpoint \| float32 .*? \| ([0-9.]+) \|", card, re.MULTILINE)
    assert abs(found - float(stated)) < 2e-5


def test_a_text_shorter_than_a_window_is_named():
    with pytest.raises(TextError, match="expected at least a window of 10 tokens, found 9"):
        nats_per_token(tiny.model(Ops()), tiny.tokens(0, 9), window=9)
