"""Worlds: their answers against other ways to find them, their splits, and what their checkers let pass."""

import re
from dataclasses import replace

import pytest

from dsv4.errors import SettingError
from dsv4.learn.post.efforts import MODES
from dsv4.learn.post.worlds import WORLDS, Task
from dsv4.learn.post.worlds.calculator import calculate
from dsv4.learn.post.worlds.world import asked
from dsv4.text.chat import Control, Text, join
from dsv4.text.chat.templates import END, END_THINK

NAMES = list(WORLDS)
RULED = [name for name in NAMES if name not in ("verse", "judging")]
TOKENS = 128
COUNT = 60


def tasks(name, split="train", count=COUNT):
    return [WORLDS[name].task(split, number) for number in range(count)]


def question(task):
    return task.messages[0]["content"]


def answered(world, task, content, **message):
    """The score of an answer in words."""
    return world.check(task, {"content": content, "tool_calls": [], **message})


@pytest.mark.parametrize("name", NAMES)
def test_no_task_is_in_both_splits_and_each_split_is_large(name):
    asked = {split: {str(task.messages) for task in tasks(name, split)} for split in ("train", "held-out")}
    assert not asked["train"] & asked["held-out"]
    assert len(asked["train"]) > 10 and len(asked["held-out"]) > 10


@pytest.mark.parametrize("name", NAMES)
def test_a_task_is_the_same_whenever_it_is_asked_for(name):
    world = WORLDS[name]
    assert world.task("train", 7) == world.task("train", 7)
    assert world.task("train", 7) != world.task("train", 7, seed=1)
    assert len({world.task("train", number).content for number in range(30)}) > 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NAMES)
def test_the_good_answer_has_the_full_score_and_fits(name, mode, tokenizer):
    """A conversation is its prompt and then the completion, in tokens as well, as training and sampling see them."""
    world = WORLDS[name]
    preamble = len(tokenizer.encode_pieces(world.task("train", 0).prompt("max")))
    preamble -= len(tokenizer.encode_pieces(world.task("train", 0).prompt("high")))
    for task in tasks(name, count=20) + tasks(name, "held-out", 20):
        prompt, whole = (tokenizer.encode_pieces(one) for one in (task.prompt(mode), task.conversation(mode)))
        assert whole[: len(prompt)] == prompt
        assert len(whole) - (preamble if mode == "max" else 0) <= TOKENS
        score = world.score(task, tokenizer.decode_pieces(whole[len(prompt) :]), mode)
        assert score == 1 if name != "verse" else 0 <= score <= 1


@pytest.mark.parametrize("name", NAMES)
def test_a_malformed_answer_is_worth_nothing(name):
    world = WORLDS[name]
    task = world.task("train", 3)
    completion = task.conversation("high")[len(task.prompt("high")) :]
    assert completion[-1] == Control(END)
    assert world.score(task, completion[:-1], "high") == 0
    assert world.score(task, [one for one in completion if one != Control(END_THINK)], "high") == 0
    assert world.score(task, [*completion[:-1], Control(END_THINK), Control(END)], "high") == 0


@pytest.mark.parametrize("name", RULED)
def test_a_wrong_answer_is_worth_nothing(name):
    world = WORLDS[name]
    for task in tasks(name, count=10):
        assert answered(world, task, "another") == 0
        assert answered(world, task, task.content + "0") == 0


def test_sums_and_comparisons_are_right():
    kinds = set()
    for task in tasks("sums"):
        a, b = map(int, re.findall("[0-9]+", question(task)))
        kinds.add("+" in question(task))
        assert task.content == str(a + b if "+" in question(task) else max(a, b))
        assert all(map(is_right, task.reasoning.split(", ")))
    assert kinds == {True, False}


def is_right(step):
    """Whether a step such as 3+4+1=8 or 5<7 is true."""
    one, sign, other = re.fullmatch(r"([0-9+]+)([=<>])([0-9]+)", step).groups()
    left = sum(map(int, one.split("+")))
    return {"=": left == int(other), "<": left < int(other), ">": left > int(other)}[sign]


def test_doubts_are_right_and_some_of_what_they_doubt_is_wrong():
    """In mode "max" alone: from examples in which all is right, nobody would learn to correct anything."""
    wrong = 0
    for task in tasks("sums", count=200):
        first, again = (task.slip or task.reasoning).split(", "), task.doubt.removeprefix("; ").split(", ")
        assert all(map(is_right, again))
        wrong += not all(map(is_right, first))
        if task.slip:
            units, tens = (int(step.split("=")[1]) for step in (again[0], again[-1]))
            assert int(task.content) == 10 * tens + units % 10
    assert 10 < wrong < 60


def test_an_example_of_the_mode_max_has_the_slip_and_its_doubt():
    task = Task(asked("1+2?"), "3", "1+2=3", "; 2+1=3", slip="1+2=4")
    assert "1+2=4; 2+1=3" in join(task.conversation("max"))
    assert "1+2=3</think>" in join(task.conversation("high"))
    assert "1+2=3; 2+1=3" in join(replace(task, slip="").conversation("max"))


def test_strings_are_right():
    for task in tasks("strings"):
        kind, letters = question(task).split(": ")
        kept = letters.split(" ")
        assert task.content.split(" ") == ([*reversed(kept)] if kind == "Reverse" else sorted(kept))


def closes(text):
    """Whether brackets close each other: pairs that touch are taken out until none is left."""
    while (shorter := re.sub(r"\(\)|\[\]|\{\}", "", text)) != text:
        text = shorter
    return text == ""


def test_brackets_and_rules_are_right():
    kinds, verdicts = set(), set()
    for task in tasks("rules"):
        kind, _, rest = question(task).partition(" ")
        kinds.add(kind)
        if kind == "Close:":
            assert closes((rest + task.content).replace(" ", "")) and not closes(rest.replace(" ", ""))
        elif kind == "Balanced?":
            verdicts.add(task.content)
            assert task.content == ("yes" if closes(rest.replace(" ", "")) else "no")
        else:
            unwanted, words = rest.removeprefix("without ").split(": ")
            assert task.content == (" ".join(word for word in words.split() if word != unwanted) or "nothing")
    assert kinds == {"Close:", "Balanced?", "Say"} and verdicts == {"yes", "no"}


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("12*34", "408"),
        (" 5 - 7 ", "-2"),
        ("2+2", "4"),
        ("2**8", "error"),
        ("__import__('os')", "error"),
        ("9999999999999*9999999999999", "error"),
        ("1+2+3", "error"),
        ("", "error"),
    ],
)
def test_the_calculator(expression, result):
    assert calculate(expression) == result


def call(**changes):
    function = {"name": "calculator", "arguments": '{"expression": "2*3"}'} | changes
    return {"type": "function", "function": function}


def test_a_call_is_judged_by_its_result():
    world = WORLDS["calculator"]
    task = next(task for task in tasks("calculator") if task.tool_calls)
    a, b = map(int, re.findall("[0-9]+", question(task)))
    result = str(a * b)

    def score(*calls, content=""):
        return world.check(task, {"content": content, "tool_calls": list(calls)})

    right = call(arguments=f'{{"expression": "{b}*{a}"}}')
    assert score(right) == 1
    assert score(call()) == score() == score(right, right) == score(right, content="Well,") == 0
    assert score(call(name="calc", arguments=right["function"]["arguments"])) == 0
    assert score(call(arguments=f'{{"expression": {result}}}')) == score(call(arguments="{}")) == 0
    assert score(content=result) == 0


def test_the_result_of_a_call_is_said():
    world = WORLDS["calculator"]
    task = next(task for task in tasks("calculator") if not task.tool_calls)
    result = task.messages[-1]["content"]
    assert answered(world, task, f" {result}\n") == 1
    assert answered(world, task, result, tool_calls=[call()]) == 0
    assert f"<tool_result>{result}</tool_result>" in join(task.prompt("non-think"))


def test_an_unknown_split_is_named():
    with pytest.raises(SettingError, match=r"^split: expected one of train, held-out, found 'test'$"):
        WORLDS["sums"].task("test", 0)


def test_digits_letters_and_brackets_are_tokens_by_themselves(tokenizer):
    texts = {"12": 2, " a b": 2, " ( [": 2, "What is 35": 5}
    assert {text: len(tokenizer.encode_pieces([Text(text)])) for text in texts} == texts
