"""Answers as they stream: joined, what `chat.parse` makes of the whole; and never markup, wherever the tokens end."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4.errors import ChatError
from dsv4.serve.markup import Arguments, CallBegun, CallEnded, Content, Markup, Reasoning
from dsv4.text import chat
from dsv4.text.chat import Control, Text
from dsv4.text.chat.tags import tags_of
from dsv4.text.chat.templates import CONTROL_TOKENS, DSML, END, END_THINK
from text.asked import ASKED

WORDS = st.text(st.sampled_from('a<\n/"\\é😀>｜'), max_size=8) | st.sampled_from(
    [
        "\n\n<",
        "\n\n",
        "<",
        "</",
        f"<{DSML}tool_calls>",
        f"\n\n<{DSML}tool_calls>\n",
        f"\n\n<{DSML} calls>\n",
        END,
        "</think>",
        '" string="true">',
    ]
)
NAMES = st.text(st.sampled_from("ab\" <>'é"), min_size=1, max_size=5)
VALUES = WORDS | st.integers() | st.booleans() | st.none() | st.lists(WORDS, max_size=2)
CALLS = st.tuples(NAMES, st.dictionaries(NAMES, VALUES, max_size=3))
ANSWERS = st.fixed_dictionaries({"reasoning": WORDS, "content": WORDS, "calls": st.lists(CALLS, max_size=3)})


def pieces_of(answer, mode: str, revision: str = "april"):
    """The answer as the format writes it, behind its prompt."""
    calls = [
        {"type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        for name, arguments in answer["calls"]
    ]
    message = {"role": "assistant", "content": answer["content"], "tool_calls": calls}
    if mode != "non-think":
        message["reasoning_content"] = answer["reasoning"]
    question = [{"role": "user", "content": "?"}]
    before = chat.encode_pieces(question, mode, revision=revision)
    whole = chat.encode_pieces([*question, message], mode, revision=revision, add_generation_prompt=False)
    return whole[len(before) :]


def cut(pieces, sizes: list[int]):
    """The same pieces, texts cut to these sizes in turn."""
    turn = 0
    for piece in pieces:
        if isinstance(piece, Control):
            yield piece
            continue
        rest = piece.text
        while rest:
            size = sizes[turn % len(sizes)]
            yield Text(rest[:size])
            rest, turn = rest[size:], turn + 1


def read(pieces, mode: str, revision: str = "april"):
    """The message that the parts make, and what read them."""
    markup = Markup(mode != "non-think", tags_of(revision))
    message = {"role": "assistant", "content": "", "reasoning_content": "", "tool_calls": []}
    for piece in pieces:
        for part in markup.push(piece):
            match part:
                case Reasoning(text):
                    message["reasoning_content"] += text
                case Content(text):
                    message["content"] += text
                case CallBegun(number, name):
                    assert number == len(message["tool_calls"])
                    message["tool_calls"].append({"type": "function", "function": {"name": name, "arguments": ""}})
                case Arguments(number, text):
                    assert number == len(message["tool_calls"]) - 1
                    message["tool_calls"][-1]["function"]["arguments"] += text
                case CallEnded(number):
                    assert number == len(message["tool_calls"]) - 1
    return message, markup


@given(ANSWERS, st.sampled_from(ASKED), st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_the_parts_are_the_message_wherever_the_text_is_cut(answer, asked, sizes):
    pieces = pieces_of(answer, *asked)
    message, markup = read(cut(pieces, sizes), *asked)
    assert markup.ended and not markup.malformed
    assert message == chat.parse(pieces, asked[0], revision=asked[1])


@given(ANSWERS, st.sampled_from(ASKED), st.data())
def test_nothing_of_an_answer_that_is_cut_is_markup(answer, asked, data):
    pieces = list(cut(pieces_of(answer, *asked), [1]))
    cut_off = pieces[: data.draw(st.integers(0, len(pieces)))]
    message, markup = read(cut_off, *asked)
    whole, _ = read(pieces, *asked)
    kept = chat.parse(cut_off, asked[0], False, asked[1])
    assert not markup.malformed
    for field in ("content", "reasoning_content"):  # a whole parser also waits for control tokens that come as text
        assert whole[field].startswith(message[field]) and message[field].startswith(kept[field])
    for begun, ended in zip(message["tool_calls"], whole["tool_calls"], strict=False):
        assert begun["function"]["name"] == ended["function"]["name"]
        assert ended["function"]["arguments"].startswith(begun["function"]["arguments"])


@given(st.lists(st.sampled_from(CONTROL_TOKENS).map(Control) | WORDS.filter(bool).map(Text), max_size=12))
def test_what_is_malformed_is_so_for_the_parser_too(pieces):
    _, markup = read([*pieces, Control(END)], "non-think")
    try:
        chat.parse([*pieces, Control(END)], "non-think")
    except ChatError:
        well_formed = False
    else:
        well_formed = True
    first_end = next((number for number, piece in enumerate(pieces) if piece == Control(END)), None)
    if first_end is None:  # behind its end, nothing of an answer is read here
        assert (markup.ended and not markup.malformed) == well_formed


@pytest.mark.parametrize("text", [f"\n\n<{DSML}tool_calls>\n", END, "<think>", "</think>"])
def test_text_that_looks_like_a_control_token_is_text(text):
    message, markup = read([Text(text), Control(END)], "non-think")
    assert message["content"] == text and not markup.malformed


def test_a_value_of_text_comes_before_it_is_whole_and_one_of_json_when_it_is():
    pieces = pieces_of({"content": "", "reasoning": "", "calls": [("f", {"a": "long text", "b": [1, 2]})]}, "non-think")
    markup = Markup(False)
    seen = [part.text for piece in cut(pieces, [1]) for part in markup.push(piece) if isinstance(part, Arguments)]
    assert seen == ["{", '"a": ', '"', *"long text", '"', ', "b": ', "[1, 2]", "}"]


def test_reasoning_ends_with_its_token_alone():
    message, _ = read([Text("a</think>b"), Control(END_THINK), Text("c"), Control(END)], "high")
    assert (message["reasoning_content"], message["content"]) == ("a</think>b", "c")


def test_a_value_that_is_no_json_is_not_given_out():
    pieces = pieces_of({"content": "", "reasoning": "", "calls": [("f", {"a": 1})]}, "non-think")
    written = [Text(piece.text.replace(">1<", ">one<")) if isinstance(piece, Text) else piece for piece in pieces]
    message, markup = read(written, "non-think")
    assert markup.malformed and message["tool_calls"][0]["function"]["arguments"] == '{"a": '
