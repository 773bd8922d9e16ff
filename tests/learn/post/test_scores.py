"""Scores on held-out tasks: of a model that knows the answers, and of one that knows none."""

import numpy as np
import pytest

import tiny
from dsv4.errors import SettingError
from dsv4.learn.post import scores
from dsv4.learn.post.efforts import Effort
from dsv4.learn.post.scores import score
from dsv4.learn.post.worlds import WORLDS
from dsv4.ops import Ops
from dsv4.text.decode import Token
from learn.post.stages import MODEL

EFFORT = Effort("high", 40, 0.1)


@pytest.fixture(scope="module")
def model():
    return tiny.model(Ops(), tiny.checkpoint_of(MODEL), dtype=np.float32)


def test_who_knows_the_answers_has_the_full_score(model, tokenizer, monkeypatch):
    """Half of the answers are right, and the other half is cut."""
    tasks = [WORLDS["sums"].task("held-out", number, 3) for number in range(4)]
    whole = [tokenizer.encode_pieces(task.conversation("high")) for task in tasks]

    def knows(model, prompts, window, temperature, seed):
        assert window == 40 and temperature == 0
        for number, (prompt, ids) in enumerate(zip(prompts, whole, strict=True)):
            assert ids[: len(prompt)] == prompt
            answer = ids[len(prompt) :]
            yield from (Token(number, token) for token in (answer if number < 2 else answer[:-1]))

    monkeypatch.setattr(scores, "generate", knows)
    found = score(model, tokenizer, "sums", EFFORT, 4, seed=3)
    assert (found.score, found.ended) == (0.5, 0.5)


def test_who_knows_nothing_has_none(model, tokenizer):
    found = score(model, tokenizer, "strings", Effort("non-think", 4, 0.1), 3)
    assert found.score == 0 and 1 <= found.tokens <= 4


def test_errors(model, tokenizer):
    with pytest.raises(SettingError, match=r"^world: expected one of sums, .*, found 'chess'$"):
        score(model, tokenizer, "chess", EFFORT)
    with pytest.raises(SettingError, match=r"^tasks: expected an integer of at least 1, found 0$"):
        score(model, tokenizer, "sums", EFFORT, 0)
