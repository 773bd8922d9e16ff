"""The actor as judge: what it reads, what its judgements are worth, and that the hidden score is no reward."""

import numpy as np
import pytest

from dsv4.learn.post import judge
from dsv4.learn.post.answers import Answered
from dsv4.learn.post.efforts import Effort
from dsv4.learn.post.judge import judgement, judgements
from dsv4.learn.post.questions import questions
from dsv4.learn.post.recipe import GRPO
from dsv4.learn.post.recording import Choices
from dsv4.learn.post.reinforcement import Reinforcement
from dsv4.learn.post.rollout_log import Rollout
from dsv4.learn.post.worlds.verse import RUBRIC
from dsv4.text.chat import Control, Text
from dsv4.text.chat.templates import END, END_THINK

STAGE = GRPO("verses", "start", ("verse", "sums"), 1, 0.1, 1, (Effort("non-think", 40, 0.2),), questions=2, group=2)


def rollout(tokenizer, text, ends=True, thoughts=None):
    before = [] if thoughts is None else [Text(thoughts), Control(END_THINK)]
    answer = tokenizer.encode_pieces([*before, Text(text), *([Control(END)] if ends else [])])
    return Rollout(np.array([0]), np.array(answer), np.zeros(len(answer)), [None] * len(answer), Choices({}, {}))


@pytest.fixture
def judged_as(monkeypatch, tokenizer):
    """Lets the judge say given things; gives back what it was asked."""

    def say(*texts):
        asked = []

        def draw(model, prompts, drawing, file):
            asked.extend(tokenizer.decode(prompt.tolist()) for prompt in prompts)
            assert len(prompts) == len(texts)
            return [rollout(tokenizer, text, thoughts="tree night, rhyme no") for text in texts]

        monkeypatch.setattr(judge, "draw_rollouts", draw)
        return asked

    return say


@pytest.mark.parametrize(("text", "score"), [("Score: 3", 1), ("Score: 1", 1 / 3), ("Score: 9", 0), ("good", 0)])
def test_a_judgement_without_its_form_is_worth_nothing(text, score, tokenizer):
    thoughts = "tree night, rhyme no"
    assert judgement(rollout(tokenizer, text, thoughts=thoughts).answer, tokenizer) == pytest.approx(score)
    assert judgement(rollout(tokenizer, text, False, thoughts).answer, tokenizer) == 0
    assert judgement(rollout(tokenizer, text).answer, tokenizer) == 0  # a thought that never ends


def test_the_judge_reads_the_rubric_and_the_verse(tokenizer, judged_as, tmp_path):
    question = questions(STAGE, 0, 1)[0]
    texts = ("red moon waits\nby the tree", "  ", "wind sings\nat night", "moon")
    ends = (True, True, True, False)
    answered = [Answered(question, rollout(tokenizer, text, end), end) for text, end in zip(texts, ends, strict=True)]
    asked = judged_as("Score: 2", "Score: 3")
    found = judgements(None, answered, STAGE, tokenizer, tmp_path / "judge.jsonl", 0)
    assert found == pytest.approx([2 / 3, 0, 1, 0])  # what says nothing or has no end is not even read
    rubric = RUBRIC.format(syllables=question.task.facts["syllables"])
    assert f"{rubric}\nred moon waits\nby the tree\nScore?" in asked[0]


def test_the_reward_of_verse_is_the_judgement_and_not_the_hidden_score(tokenizer, judged_as, tmp_path):
    verse, sums = questions(STAGE, 0, 2)
    lesson = Reinforcement.__new__(Reinforcement)  # rewards need neither weights nor a model
    lesson.stage, lesson.tokenizer = STAGE, tokenizer
    lesson.asker = type("Files", (), {"file": lambda self, turn, name: tmp_path / name})()
    right = rollout(tokenizer, sums.task.content)
    poem = rollout(tokenizer, verse.task.content)
    lesson._answered = [Answered(verse, poem, True), Answered(sums, right, True)]
    assert verse.score(poem.answer, tokenizer) > 0
    judged_as("Score: 0")
    found = lesson._rewarded(None, 0)
    assert found == pytest.approx([-0.2 * len(poem.answer) / 40, 1 - 0.2 * len(right.answer) / 40])
