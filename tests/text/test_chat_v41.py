"""V4.1's chat format: the official texts of deepseek-recipe 0.2.0, and each rule that V4 does not have."""

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4 import chat
from dsv4.errors import ChatError
from dsv4.text.chat import Control, Text
from dsv4.text.chat.check import read_mode
from dsv4.text.chat.templates import V41_EFFORTS

GOLDENS = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "data/chat_v41.jsonl").read_text(encoding="utf-8").splitlines()
]
BEGIN, END = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
TOOLS = [{"type": "function", "function": {"name": "add"}}]
SYSTEM, QUESTION = {"role": "system", "content": "S"}, {"role": "user", "content": "Q"}
ANSWER = {"role": "assistant", "content": "A", "reasoning_content": "R"}


def line(effort):
    return f"Reasoning Effort: {effort} (range 1-100, the higher the value, the more thorough the reasoning)\n\n"


def written(*messages, mode="high", **arguments):
    """The text behind the begin token."""
    return chat.encode(messages, mode, revision="v4.1", **arguments).removeprefix(BEGIN)


def asked_for(golden):
    """The messages and the mode of an official case, as its request says them."""
    messages = [dict(message) for message in golden["messages"]]
    if golden["tools"]:
        messages[0]["tools"] = golden["tools"]
    disabled = golden["api"].get("thinking") == {"type": "disabled"}
    return messages, "non-think" if disabled else golden["api"].get("reasoning_effort", "high")


@pytest.mark.parametrize("golden", GOLDENS, ids=range(len(GOLDENS)))
def test_encode_gives_the_official_text(golden):
    messages, mode = asked_for(golden)
    assert chat.encode(messages, mode, revision="v4.1-api") == golden["expected"]


@pytest.mark.parametrize("golden", GOLDENS, ids=range(len(GOLDENS)))
def test_every_token_of_the_official_text_is_a_piece_of_control(golden):
    messages, mode = asked_for(golden)
    texts = [piece.text for piece in chat.encode_pieces(messages, mode, revision="v4.1-api") if isinstance(piece, Text)]
    assert not any(token in text for token in (*chat.CONTROL_TOKENS, "<｜System｜>") for text in texts)


# --- system messages and the effort -----------------------------------------------------------------------------


def test_the_system_token_comes_once_at_the_start_and_before_each_later_system_message():
    assert written(SYSTEM, QUESTION) == f"<｜System｜>{line(50)}S<｜User｜>Q<｜Assistant｜><think>"
    assert written(QUESTION) == f"<｜System｜>{line(50)}<｜User｜>Q<｜Assistant｜><think>"
    assert written(SYSTEM, QUESTION, mode="non-think") == "<｜System｜>S<｜User｜>Q<｜Assistant｜></think>"
    assert written(QUESTION, mode="non-think") == "<｜User｜>Q<｜Assistant｜></think>"
    assert written(QUESTION, SYSTEM, mode="non-think") == "<｜User｜>Q<｜System｜>S<｜Assistant｜></think>"
    assert written(SYSTEM, SYSTEM, mode="non-think") == "<｜System｜>S<｜System｜>S<｜Assistant｜></think>"


def test_a_later_system_message_is_answered_and_makes_earlier_reasoning_old():
    text = written(QUESTION, ANSWER, SYSTEM, ANSWER, mode=7, add_generation_prompt=False)
    old, new = "<｜User｜>Q<｜Assistant｜></think>A", "<｜System｜>S<｜Assistant｜><think>R</think>A"
    assert text == f"<｜System｜>{line(7)}{old}{END}{new}{END}"


def test_the_first_system_message_is_answered_where_it_is_the_last_alone():
    assert written(SYSTEM) == f"<｜System｜>{line(50)}S<｜Assistant｜><think>"
    assert written(SYSTEM, ANSWER, mode="non-think", add_generation_prompt=False) == f"<｜System｜>SA{END}"


def test_tools_of_a_message_anywhere_keep_all_reasoning():
    later = {**SYSTEM, "tools": TOOLS}
    assert "R</think>A" not in written(QUESTION, ANSWER, SYSTEM, QUESTION)
    assert "<think>R</think>A" in written(QUESTION, ANSWER, later, QUESTION)


def test_old_developer_turns_are_left_out_before_a_later_system_message():
    developer = {"role": "developer", "content": "Rule"}
    assert "Rule" not in written(developer, ANSWER, SYSTEM)
    assert "<｜User｜>Rule" in written(developer, ANSWER, SYSTEM, drop_thinking=False)


def test_an_answer_that_is_last_is_followed_by_the_next_unless_the_model_goes_on_with_it():
    assert written(QUESTION, ANSWER).endswith(f"<｜Assistant｜><think>R</think>A{END}<｜Assistant｜><think>")
    assert written(QUESTION, ANSWER, add_generation_prompt=False).endswith(f"A{END}")
    assert written(QUESTION, {**ANSWER, "wo_eos": True}).endswith("<｜Assistant｜><think>R</think>A")
    assert written(QUESTION, add_generation_prompt=False).endswith("<｜User｜>Q")


def test_a_task_has_its_token_and_its_answer_no_reasoning():
    task = {**QUESTION, "task": "query"}
    assert written(task, mode="non-think") == "<｜User｜>Q<｜query｜>"
    assert written(task, ANSWER, add_generation_prompt=False).endswith(f"<｜User｜>Q<｜query｜>A{END}")
    assert written({**QUESTION, "task": "action"}).endswith("<｜Assistant｜><think><｜action｜>")


# --- efforts ----------------------------------------------------------------------------------------------------


def test_both_official_mappings_of_words_have_a_name():
    assert V41_EFFORTS["v4.1"] == {"low": 25, "high": 50, "xhigh": 75, "max": 100}
    assert V41_EFFORTS["v4.1-api"] == {"low": 50, "high": 75, "max": 100}


@pytest.mark.parametrize(("revision", "efforts"), V41_EFFORTS.items())
def test_a_word_is_the_number_that_its_mapping_has(revision, efforts):
    for word, effort in efforts.items():
        text = chat.encode([QUESTION], word, revision=revision)
        assert text == f"{BEGIN}<｜System｜>{line(effort)}<｜User｜>Q<｜Assistant｜><think>"
        assert text == chat.encode([QUESTION], effort, revision=revision)


@pytest.mark.parametrize("mode", [0, 101, -1, 50.0, True, "50", "medium", None])
def test_an_effort_that_is_none_is_reported(mode):
    expected = (
        r"^mode: expected one of non-think, low, high, xhigh, max, or a number from 1 to 100, as revision v4.1 has"
    )
    with pytest.raises(ChatError, match=expected):
        chat.encode([QUESTION], mode, revision="v4.1")


def test_words_and_numbers_that_a_revision_does_not_know_are_reported():
    with pytest.raises(ChatError, match=r"^mode: expected .*, as revision v4.1-api has them, found 'xhigh'$"):
        chat.encode([QUESTION], "xhigh", revision="v4.1-api")
    with pytest.raises(ChatError, match=r"^mode: expected one of non-think, high, max, as revision april .* found 50$"):
        chat.encode([QUESTION], 50)


def test_a_typed_number_is_an_effort():
    assert [read_mode(text) for text in ("1", "75", "100", "xhigh")] == [1, 75, 100, "xhigh"]
    for text in ("0", "101", "٥", "1e1", "9" * 5000):
        with pytest.raises(ChatError, match=r"^mode: expected one of .* found '?[019٥]"):
            read_mode(text)


# --- tools ------------------------------------------------------------------------------------------------------

CALL = {"type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": "x"}'}}
BLOCK = (
    '\n\n<｜DSML｜ calls>\n<｜DSML｜ invoke name="add">\n'
    '<｜DSML｜ parameter name="a" string="false">1</｜DSML｜ parameter>\n'
    '<｜DSML｜ parameter name="b" string="true">x</｜DSML｜ parameter>\n'
    "</｜DSML｜ invoke>\n</｜DSML｜ calls>"
)


def test_tags_have_a_space_behind_the_token_where_they_are_written_and_where_they_are_read():
    text = written(QUESTION, {**ANSWER, "tool_calls": [CALL]}, add_generation_prompt=False)
    assert text.endswith(f"R</think>A{BLOCK}{END}")
    assert chat.parse(f"R</think>A{BLOCK}{END}", 50, revision="v4.1-api")["tool_calls"] == [CALL]


@pytest.mark.parametrize(("writes", "reads"), [("v4.1", "0731"), ("0731", "v4.1")])
def test_the_tags_of_the_other_format_are_malformed(writes, reads):
    turn = {"role": "assistant", "tool_calls": [CALL]}
    text = chat.encode([QUESTION, turn], revision=writes, add_generation_prompt=False)
    with pytest.raises(ChatError, match=r"^completion: expected .* at character 0$"):
        chat.parse(text.partition("</think>")[2], revision=reads)


def test_results_of_tools_and_user_texts_are_one_turn_in_the_order_of_the_calls():
    calls = [{**CALL, "id": "a"}, {**CALL, "id": "b"}]
    results = [{"role": "tool", "tool_call_id": name, "content": name} for name in "ba"]
    text = written(QUESTION, {"role": "assistant", "tool_calls": calls}, *results, QUESTION, mode="non-think")
    turn = "<tool_result>a</tool_result>\n\n<tool_result>b</tool_result>\n\nQ"
    assert text.endswith(f"{END}<｜User｜>{turn}<｜Assistant｜></think>")


def test_the_system_token_is_malformed_in_an_answer_of_v41_and_text_in_one_of_v4():
    text = f"a<｜System｜>b{END}"
    assert chat.parse(text)["content"] == "a<｜System｜>b"
    with pytest.raises(ChatError, match=r"found '<｜System｜>b<.*' at character 1$"):
        chat.parse(text, revision="v4.1")
    pieces = [Text("a<｜System｜>b"), Control(END)]
    assert chat.parse(pieces, revision="v4.1")["content"] == "a<｜System｜>b"


def test_an_unknown_revision_of_an_answer_is_reported():
    with pytest.raises(ChatError, match=r"^revision: expected one of april, 0731, v4.1, v4.1-api, found '4'$"):
        chat.parse(END, revision="4")


# --- the token of images ----------------------------------------------------------------------------------------

IMAGE = "<｜deepseek_image｜>"


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("content", {"role": "user", "content": f"a {IMAGE} b"}),
        ("content", {"role": "tool", "content": [{"type": "text", "text": IMAGE}]}),
        ("reasoning_content", {**ANSWER, "reasoning_content": IMAGE}),
        ("tools", {**SYSTEM, "tools": [{"function": {"name": IMAGE}}]}),
        ("tool_calls", {"role": "assistant", "tool_calls": [{"function": {"name": IMAGE, "arguments": "{}"}}]}),
        ("tool_calls", {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": IMAGE}}]}),
    ],
)
def test_the_image_token_is_refused_wherever_somebody_typed_it(place, message):
    with pytest.raises(ChatError) as caught:
        chat.encode([QUESTION, message], revision="v4.1")
    expected = f"messages[1].{place}: expected text without {IMAGE}, which stands for an image, found it"
    assert str(caught.value) == expected
    assert chat.encode([QUESTION, message], revision="0731")  # for V4, it is text


@given(st.text(max_size=6), st.text(max_size=6))
def test_the_image_token_is_refused_in_any_arguments_however_json_writes_it(before, after):
    for text, escapes in itertools.product((before + IMAGE + after, before + IMAGE[2:] + after), (True, False)):
        call = {"function": {"name": "f", "arguments": json.dumps({"a": [text]}, ensure_ascii=escapes)}}
        messages = [QUESTION, {"role": "assistant", "tool_calls": [call]}]
        if IMAGE in text:
            with pytest.raises(ChatError, match=r"^messages\[1\].tool_calls: expected text without"):
                chat.encode(messages, revision="v4.1")
        else:
            assert IMAGE[2:] in chat.encode(messages, revision="v4.1")
