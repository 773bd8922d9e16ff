"""Scores on held-out tasks: of a model that knows the answers, and of one that knows none."""

import numpy as np
import pytest

import tiny
from dsv4.errors import SettingError
from dsv4.learn.post import scores
from dsv4.learn.post.efforts import Effort
from dsv4.learn.post.scores import agreement, judge_agreement, score
from dsv4.learn.post.worlds import WORLDS
from dsv4.ops import Ops
from dsv4.text.chat import Control, Text
from dsv4.text.chat.templates import END, END_THINK
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


def test_agreement_by_hand():
    """Of the three pairs with different labels one is in the right order, one in the wrong one, and one is equal."""
    labels, opinions = [0.0, 1.0, 1.0, 1.0], [0.3, 0.9, 0.0, 0.3]
    assert agreement(labels, opinions) == 0.5
    assert agreement([0, 1 / 3, 1], [0, 0.1, 0.2]) == 1
    assert agreement([0, 1 / 3, 1], [0.2, 0.1, 0]) == 0
    assert agreement([0, 1 / 3, 1], [0.2, 0.2, 0.2]) == 0.5
    with pytest.raises(SettingError, match=r"^labels: expected two that differ, found 2 that do not$"):
        agreement([1, 1], [0, 1])


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        pytest.param(lambda points: f"Score: {points}", 1, id="as the rule"),
        pytest.param(lambda points: f"Score: {3 - points}", 0, id="the other way round"),
        pytest.param(lambda points: f"Good: {points}", 0.5, id="without the form"),
    ],
)
def test_a_judge_is_compared_with_the_rule(model, tokenizer, monkeypatch, says, expected):
    tasks = [WORLDS["judging"].task("held-out", number, 2) for number in range(6)]

    def judges(model, prompts, window, temperature, seed):
        assert temperature == 0
        for number, (prompt, task) in enumerate(zip(prompts, tasks, strict=True)):
            assert prompt == tokenizer.encode_pieces(task.prompt("high"))
            judgement = says(round(3 * task.facts["score"]))
            for token in tokenizer.encode_pieces([Control(END_THINK), Text(judgement), Control(END)]):
                yield Token(number, token)

    monkeypatch.setattr(scores, "generate", judges)
    assert len({task.facts["score"] for task in tasks}) > 1
    assert judge_agreement(model, tokenizer, 6, seed=2) == expected
