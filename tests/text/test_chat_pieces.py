"""From messages to pieces or ids and back: what the encoder writes, the parser reads, wherever it is cut."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsv4 import chat
from dsv4.errors import ChatError
from dsv4.text.chat import Control, Text
from text.asked import ASKED, tokenizer_of_v41

QUESTION = {"role": "user", "content": "?"}
END = "<｜end▁of▁sentence｜>"
KINDS = ('" string="true">', '" string="false">')

NAMES = ['">\n', '">\n\n</', '">\n<', '" string="', '"']
CALLS = [
    "\n\n<",
    "\n\n<｜DSML｜tool_calls>\n",
    "\n\n<｜DSML｜ calls>\n",
    '<｜DSML｜invoke name="',
    "</｜DSML｜parameter>\n",
    "</",
    "<",
    "｜",
    "\n",
]
format_text = st.sampled_from([*chat.CONTROL_TOKENS, "<｜System｜>", *KINDS, *NAMES, *CALLS, "\ufffd"])


TOKENIZER = tokenizer_of_v41(Path(__file__).parents[1] / "data" / "tokenizer")


def call(name, text):
    return {"type": "function", "function": {"name": name, "arguments": text}}


def names_of(texts):
    """Parameter names that can be written."""
    return texts.filter(lambda name: not any(kind in name for kind in KINDS))


def arguments_of(texts):
    scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
    values = st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
        max_leaves=3,
    )
    objects = st.dictionaries(names_of(texts), values, max_size=2)
    return objects.map(lambda value: json.dumps(value, ensure_ascii=False))


def turns_of(texts):
    """Messages of the assistant with `texts` in all places that hold text."""
    calls = st.lists(st.builds(call, texts, arguments_of(texts)), max_size=2)
    fields = {"reasoning_content": texts, "content": texts, "tool_calls": calls}
    return st.fixed_dictionaries({"role": st.just("assistant"), **fields})


texts = st.lists(format_text | st.text(max_size=3), max_size=4).map("".join)
plain_texts = texts.map(lambda text: text.replace("｜", "|").replace("think>", "think"))
turns = turns_of(texts)


def completion_of(turn, mode, revision="0731"):
    """The pieces that the model writes to give `turn`."""
    prompt = chat.encode_pieces([QUESTION], mode, drop_thinking=False, revision=revision)
    whole = chat.encode_pieces([QUESTION, turn], mode, False, revision=revision, add_generation_prompt=False)
    assert whole[: len(prompt)] == prompt
    return whole[len(prompt) :]


def beginnings(pieces):
    """Everything that a completion of these pieces can have been before it was whole."""
    for number, piece in enumerate(pieces):
        lengths = range(1, len(piece.text)) if isinstance(piece, Text) else ()
        yield pieces[:number]
        yield from ([*pieces[:number], Text(piece.text[:length])] for length in lengths)


def hold_beginning(message, whole, text, whole_text, mode):
    """What must hold for the message that was read from `text`, the beginning of a completion."""
    assert whole["reasoning_content"].startswith(message["reasoning_content"])
    assert whole["content"].startswith(message["content"])
    assert message["tool_calls"] in ([], whole["tool_calls"])
    assert text.endswith(message["unfinished"])
    read = text[: len(text) - len(message["unfinished"])]
    if message["tool_calls"]:
        assert read == whole_text.removesuffix(END)
    else:
        between = [""] if mode == "non-think" else ["", "</think>"]
        assert read in [message["reasoning_content"] + closing + message["content"] for closing in between]


@given(turns, st.sampled_from(ASKED))
def test_parse_reads_what_encode_writes(turn, asked):
    mode, revision = asked
    expected = {**turn, "reasoning_content": "" if mode == "non-think" else turn["reasoning_content"]}
    pieces = completion_of(turn, mode, revision)
    assert chat.parse(pieces, mode, revision=revision) == expected
    ids = TOKENIZER.encode_pieces(pieces)
    assert TOKENIZER.decode_pieces(ids) == pieces
    assert chat.parse(TOKENIZER.decode_pieces(ids), mode, revision=revision) == expected


@given(texts | arguments_of(texts), texts)
def test_a_message_that_was_read_is_written_as_it_was(text, name):
    """Also where `arguments` was no JSON object, and so is not what is read."""
    pieces = completion_of({"role": "assistant", "tool_calls": [call(name, text)]}, "high")
    assert completion_of(chat.parse(pieces, "high"), "high") == pieces


@given(turns_of(plain_texts), st.sampled_from(ASKED))
def test_text_is_read_as_its_pieces_are_where_nothing_in_it_looks_like_a_control_token(turn, asked):
    mode, revision = asked
    pieces = completion_of(turn, mode, revision)
    assert chat.parse(chat.join(pieces), mode, revision=revision) == chat.parse(pieces, mode, revision=revision)


@settings(max_examples=15)
@given(turns, st.sampled_from([("non-think", "april"), ("high", "april"), ("high", "v4.1")]))
def test_pieces_that_are_cut_anywhere_give_the_beginning_of_the_message(turn, asked):
    mode, revision = asked
    pieces = completion_of(turn, mode, revision)
    whole = chat.parse(pieces, mode, revision=revision)
    for beginning in beginnings(pieces):
        message = chat.parse(beginning, mode, require_end=False, revision=revision)
        hold_beginning(message, whole, chat.join(beginning), chat.join(pieces), mode)


@settings(max_examples=15)
@given(turns_of(plain_texts), st.sampled_from(["non-think", "high"]))
def test_a_text_that_is_cut_anywhere_gives_the_beginning_of_the_message(turn, mode):
    text = chat.join(completion_of(turn, mode))
    whole = chat.parse(text, mode)
    for length in range(len(text)):
        hold_beginning(chat.parse(text[:length], mode, require_end=False), whole, text[:length], text, mode)


@settings(max_examples=10)
@given(turns, st.sampled_from(["non-think", "high"]))
def test_ids_that_are_cut_anywhere_give_the_beginning_of_the_message(turn, mode):
    """Also within a character, which is then unfinished."""
    pieces = completion_of(turn, mode)
    whole = chat.parse(pieces, mode)
    ids = TOKENIZER.encode_pieces(pieces)
    for length in range(len(ids)):
        beginning = TOKENIZER.decode_pieces(ids[:length])
        message = chat.parse(beginning, mode, require_end=False)
        hold_beginning(message, whole, chat.join(beginning), chat.join(pieces), mode)


# --- control tokens, and text that only looks like them ----------------------------------------------------------

ADDING = {"role": "assistant", "content": "ok", "tool_calls": [call("add", '{"a": "x", "b": 2}')]}
ADD = completion_of(ADDING, "non-think")


def test_text_of_a_control_token_is_text_and_the_token_is_malformed():
    answer = "ok\n\n<｜DSML｜tool_calls>\n<think><｜end▁of▁sentence｜>"
    assert chat.parse([Text(answer), Control(END)])["content"] == answer
    with pytest.raises(ChatError, match=r"found '<｜User｜>ok<｜end▁of▁sentence｜>' at character 2$"):
        chat.parse([Text("a "), Control("<｜User｜>"), Text("ok"), Control(END)])


@pytest.mark.parametrize("number", [number for number, piece in enumerate(ADD) if isinstance(piece, Control)])
def test_what_looks_like_a_token_of_the_format_does_not_make_a_call(number):
    pieces = [*ADD[:number], Text(ADD[number].text), *ADD[number + 1 :]]
    try:
        message = chat.parse(pieces, require_end=False)
    except ChatError as error:
        assert "expected" in str(error)
    else:
        assert message["tool_calls"] != chat.parse(ADD)["tool_calls"] or message["unfinished"] == END


@pytest.mark.parametrize("place", ['invoke name="a', 'parameter name="a', "tool_", "invok", "parameter>"])
def test_a_control_token_in_names_and_between_is_malformed(place):
    number = next(number for number, piece in enumerate(ADD) if place in piece.text)
    before, _, after = ADD[number].text.partition(place)
    pieces = [*ADD[:number], Text(before + place), Control("<｜User｜>"), Text(after), *ADD[number + 1 :]]
    with pytest.raises(ChatError, match=r"found '.*<｜User｜>"):
        chat.parse(pieces)


def test_a_control_token_of_another_kind_is_malformed():
    with pytest.raises(ChatError, match="found '<｜▁pad▁｜><｜end▁of▁sentence｜>'"):
        chat.parse([Text("ok"), Control("<｜▁pad▁｜>"), Control(END)])
