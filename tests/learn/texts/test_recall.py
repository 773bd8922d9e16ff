"""Recall documents keep their word: where answers stand, how far back they were given, and what is kept apart."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsv4 import Tokenizer, bundled_model
from dsv4.errors import SettingError, TextError
from dsv4.learn.texts.recall import RecallPlan, evaluation_plan, recall_documents
from dsv4.learn.texts.recall_words import KINDS, THINGS, is_held_out, statement

TOKENIZER = Tokenizer.from_file(bundled_model())

PLAYS = [
    [f"LADY.\nThe {n}th line of the first play goes on,\nand on, and has an end." for n in range(60)],
    ["FOOL.\nRing the bell, cover the hall, and open the gate!\nI will not.", "LORD.\nWhat ails thee?"] * 9,
]

plans = st.builds(
    RecallPlan,
    tokens=st.integers(200, 900),
    facts=st.integers(1, 12),
    again=st.integers(1, 4),
    nearest=st.integers(70, 130),
    asked=st.sampled_from([0, 0.5, 1]),
    held_out=st.booleans(),
)

STATED = re.compile(r"^The (\w+) (\w+) hath\.$", re.MULTILINE)


def made(plan, count=3, seed=0):
    return list(recall_documents(TOKENIZER, PLAYS, plan, count, seed))


def kind_of(pairs):
    (kind,) = [kind for kind in KINDS if all(key in kind.keys and answer in kind.answers for key, answer in pairs)]
    return kind


@given(plans, st.integers(0, 5))
@settings(max_examples=25)
def test_answers_stand_where_they_are_said_to_stand(plan, seed):
    for document in made(plan, 2, seed):
        begin, *middle, end = document.ids.tolist()
        assert (begin, middle, end) == (TOKENIZER.bos_id, TOKENIZER.encode(document.text), TOKENIZER.eos_id)
        assert len(document.ids) <= plan.tokens
        last, again = {}, []
        for match in STATED.finditer(document.text):  # found anew in the text, by characters
            key, answer = match.groups()
            start = 1 + len(TOKENIZER.encode(document.text[: match.start(2) - 1]))
            if key in last:
                again.append((start, len(TOKENIZER.encode(f" {answer}")), start - last[key][1]))
                assert last[key][0] == answer
            last[key] = answer, start
        assert [tuple(one) for one in document.answers] == again
        assert min(distance for _, _, distance in again) >= plan.nearest
        kind = kind_of([(key, answer) for key, (answer, _) in last.items()])
        assert len({answer for answer, _ in last.values()}) == len(last) <= plan.facts
        assert all(is_held_out(kind, key, answer) == plan.held_out for key, (answer, _) in last.items())


@given(plans)
@settings(max_examples=15)
def test_nothing_else_in_a_document_says_the_words_that_are_asked_for(plan):
    for document in made(plan, 2):
        said = STATED.findall(document.text)
        for key in {key for key, _ in said}:
            kind = kind_of(set(said))
            rest = document.text.replace(kind.question.format(key=key), "")
            rest = STATED.sub("", rest)
            assert not re.search(rf"\b{key}", rest, re.IGNORECASE)


def test_a_question_comes_before_every_answer_where_the_plan_says_so():
    for document in made(evaluation_plan(400), 10):
        for answer in document.answers:
            before = TOKENIZER.decode(document.ids[: answer.start]).splitlines()
            questions = [kind.question.format(key=before[-1].removeprefix("The ")) for kind in KINDS]
            assert before[-4] in questions


def test_without_that_about_half_of_them_are_asked_for():
    documents = made(RecallPlan(700, 10), 40)
    asked = sum(document.text.count("?\n\n") - document.text.count("thee?\n\n") for document in documents)
    answers = sum(len(document.answers) for document in documents)
    assert 0.4 < asked / answers < 0.6


def test_evaluation_asks_beyond_three_quarters_of_the_document():
    for tokens in (1024, 2048):
        distances = [answer.distance for document in made(evaluation_plan(tokens), 5) for answer in document.answers]
        assert len(distances) > 15 and min(distances) >= 3 * tokens // 4 and max(distances) < tokens


def test_distances_go_from_the_nearest_to_the_whole_document():
    distances = [answer.distance for document in made(RecallPlan(4096, 18), 16) for answer in document.answers]
    assert min(distances) < 100 and max(distances) > 2600 and len(distances) > 16 * 30
    shares = np.histogram(distances, [80, 160, 320, 640, 1280, 4096])[0] / len(distances)
    assert shares.min() > 0.04


def test_training_and_evaluation_share_no_pair():
    for kind in KINDS:
        pairs = [(key, answer) for key in kind.keys for answer in kind.answers]
        held_out = [pair for pair in pairs if is_held_out(kind, *pair)]
        assert len(held_out) == len(kind.keys) == len(pairs) // 20
        for word, words in ((0, kind.keys), (1, kind.answers)):  # none is met in one of the two alone
            assert {pair[word] for pair in held_out} == set(words)
            assert {pair[word] for pair in pairs if pair not in held_out} == set(words)


def test_one_token_tells_which_word_it_is():
    for kind in KINDS:
        last = [TOKENIZER.encode(f" {key}")[-1] for key in kind.keys]
        first = [TOKENIZER.encode(f" {answer}")[0] for answer in kind.answers]
        assert len(set(last)) == len(kind.keys) and len(set(first)) == len(kind.answers) == 20
        assert max(len(TOKENIZER.encode(f" {key}")) for key in THINGS) == 2
        assert statement("ring", "Kate") == "The ring Kate hath."


def test_documents_are_a_function_of_seed_and_number():
    plan = RecallPlan(300, 4)
    texts = [document.text for document in made(plan, 6)]
    assert [document.text for document in made(plan, 4)] == texts[:4]
    assert len(set(texts) | {document.text for document in made(plan, 6, seed=1)}) == 12


@pytest.mark.parametrize(
    ("error", "plan", "plays", "message"),
    [
        (TextError, RecallPlan(300, 4), [[], []], "plays: expected speeches, found none"),
    ],
)
def test_what_is_missing_is_named(error, plan, plays, message):
    with pytest.raises(error, match=message):
        list(recall_documents(TOKENIZER, plays, plan, 1, 0))


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"facts": 0}, "facts"),
        ({"facts": 19}, "facts"),
        ({"facts": 13, "held_out": True}, "facts"),
        ({"again": 0}, "again"),
        ({"nearest": 0}, "nearest"),
        ({"tokens": 143}, "tokens"),
    ],
)
def test_a_plan_without_room_is_refused(options, name):
    with pytest.raises(SettingError, match=f"^{name}: expected an integer"):
        RecallPlan(**({"tokens": 300, "facts": 4} | options))
