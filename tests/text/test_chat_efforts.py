"""The efforts: the official texts of 0731 and 0813, and which checkpoint has which."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from dsv4 import chat
from dsv4.checkpoint import config_from_json, read_config41
from dsv4.errors import ChatError
from dsv4.text.chat.revision import revision_of

DATA = Path(__file__).parents[1] / "data"
GOLDENS = [json.loads(line) for line in (DATA / "chat_effort_0731.jsonl").read_text(encoding="utf-8").splitlines()]
TEXTS = json.loads((DATA / "effort_texts_0731.json").read_text(encoding="utf-8"))
QUESTION = {"role": "user", "content": "What is 1+1?"}
BEGIN = "<｜begin▁of▁sentence｜>"


def mode_of(golden):
    """The mode of a golden case: an effort counts only where the model thinks."""
    thinks = golden["kwargs"]["thinking_mode"] == "thinking"
    return golden["kwargs"]["reasoning_effort"] if thinks else "non-think"


@pytest.mark.parametrize("golden", GOLDENS, ids=range(len(GOLDENS)))
def test_efforts_give_the_official_text(golden):
    assert chat.encode(golden["messages"], mode_of(golden), revision="0731") == golden["expected"]


def test_the_official_cases_have_every_mode():
    assert {mode_of(golden) for golden in GOLDENS} == set(chat.EFFORTS["0731"])


@pytest.mark.parametrize("mode", TEXTS)
def test_the_text_of_an_effort_is_the_official_one_and_all_that_it_adds(mode):
    plain = chat.encode([QUESTION], "low", revision="0731").removeprefix(BEGIN)
    assert chat.encode([QUESTION], mode, revision="0731") == BEGIN + TEXTS[mode] + plain
    assert chat.encode([QUESTION], mode, add_bos=False, revision="0731") == TEXTS[mode] + plain


def test_april_max_is_0731_high_and_april_high_is_0731_low():
    assert chat.encode([QUESTION], "max") == chat.encode([QUESTION], "high", revision="0731")
    assert chat.encode([QUESTION], "high") == chat.encode([QUESTION], "low", revision="0731")
    assert chat.encode([QUESTION], "non-think") == chat.encode([QUESTION], "non-think", revision="0731")


def test_low_is_not_aprils():
    expected = r"^mode: expected one of non-think, high, max, as revision april has them, found 'low'$"
    with pytest.raises(ChatError, match=expected):
        chat.encode([QUESTION], "low")


@pytest.mark.parametrize("revision", ["0813", "auto", None, ["april"]])
def test_an_unknown_revision_is_reported_with_the_known_ones(revision):
    with pytest.raises(ChatError, match=r"^revision: expected one of april, 0731, v4.1, v4.1-api, found "):
        chat.encode([QUESTION], revision=revision)


def test_a_completion_in_mode_low_begins_with_the_reasoning():
    message = chat.parse("One and one.</think>2<｜end▁of▁sentence｜>", "low")
    assert (message["reasoning_content"], message["content"]) == ("One and one.", "2")


def test_the_configuration_says_which_texts_unless_told():
    raw = json.loads((DATA / "configs" / "deepseek-v4-flash-0731.json").read_text(encoding="utf-8"))
    config = config_from_json(raw)
    april = replace(config, dspark=None, compress_ratios=config.compress_ratios[:44])
    assert (revision_of(config), revision_of(april)) == ("0731", "april")
    assert (revision_of(config, "april"), revision_of(april, "0731")) == ("april", "0731")
    v41 = read_config41(DATA / "configs" / "deepseek-v4.1-flash.json")
    assert (revision_of(v41), revision_of(v41, "v4.1-api")) == ("v4.1", "v4.1-api")
    with pytest.raises(ChatError, match=r"^revision: expected one of auto, april, 0731, v4.1, v4.1-api, found 'June'$"):
        revision_of(config, "June")
