"""Drafts are counted as speculative decoding counts them."""

import numpy as np
import pytest

import tiny
from dsv4.errors import CheckpointError, TextError
from dsv4.learn.evaluation import draft_acceptance, draft_agreement
from dsv4.ops import Ops
from text.test_generate import PROMPTS, drafting


def test_agreement_by_hand():
    model = tiny.model(Ops(), drafting("sometimes"))
    ids = tiny.tokens(1, 47)
    kept = []
    for start in (0, 15, 30):
        window = ids[start : start + 15]
        for place in range(14):
            states = model.states(window[: place + 1])
            draft = model.mtp_logits(states, window[None, 1 : place + 2])[0, -1].argmax()
            kept.append(draft == model(window[: place + 2])[0, -1].argmax())
    found = draft_agreement(model, ids, window=15)
    assert found == pytest.approx(np.mean(kept)) and 0.02 < found < 0.98


@pytest.mark.parametrize(("agreement", "expected"), [("always", 1), ("never", 0)])
def test_a_module_that_always_or_never_agrees(agreement, expected):
    model = tiny.model(Ops(), drafting(agreement))
    assert draft_agreement(model, tiny.tokens(1, 64), window=32) == expected
    assert draft_acceptance(model, PROMPTS, 12) == expected


def test_acceptance_is_the_generations():
    model = tiny.model(Ops(), drafting("sometimes"))
    assert 0 < draft_acceptance(model, PROMPTS, 20) < 1


def test_what_is_missing_is_named():
    with pytest.raises(CheckpointError, match="MTP layer"):
        draft_agreement(tiny.model(Ops(), num_nextn_predict_layers=0, compress_ratios=(0, 4)), tiny.tokens(0, 40), 20)
    with pytest.raises(TextError, match="a window of 50 tokens, found 40"):
        draft_agreement(tiny.model(Ops()), tiny.tokens(0, 40), 50)
