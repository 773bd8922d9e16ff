"""Reading completions: the official parser's outputs, the way back from encode, and every kind of malformed text."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4 import chat
from dsv4.errors import ChatError
from text.asked import ASKED

GOLDENS = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "data/chat_parsing.jsonl").read_text(encoding="utf-8").splitlines()
]
END = "<｜end▁of▁sentence｜>"
ADD = (
    '\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name="add">\n'
    '<｜DSML｜parameter name="a" string="false">2</｜DSML｜parameter>\n'
    '<｜DSML｜parameter name="b" string="true">x<y\n</b></｜DSML｜parameter>\n'
    '</｜DSML｜invoke>\n<｜DSML｜invoke name="now">\n\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>'
)
GOOD = f"Easy.</think>ok{ADD}{END}"


def mode_of(golden):
    return "high" if golden["thinking_mode"] == "thinking" else "non-think"


def without_special_text(text):
    for token in (*chat.CONTROL_TOKENS, "<｜System｜>"):
        text = text.replace(token, "")
    return text


def raw_members(arguments):
    """The members of a JSON object's text as (name, value, text of the value), nothing normalised."""
    decoder, position, members = json.JSONDecoder(), 1, []
    while arguments[position] != "}":
        name, position = decoder.raw_decode(arguments, position)
        start = position + len(": ")
        blanks = len(arguments[start:]) - len(arguments[start:].lstrip(" \n\r\t"))
        value, position = decoder.raw_decode(arguments, start + blanks)
        position += len(arguments[position:]) - len(arguments[position:].lstrip(" \n\r\t"))
        members.append((name, value, arguments[start:position]))
        position += len(", ") if arguments[position] == "," else 0
    return members


def written_again(message, thinking):
    """The text of a parsed message, from its fields alone."""
    text = message["reasoning_content"] + "</think>" if thinking else ""
    text += message["content"]
    for number, call in enumerate(message["tool_calls"]):
        text += "\n" if number else "\n\n<｜DSML｜tool_calls>\n"
        text += f'<｜DSML｜invoke name="{call["function"]["name"]}">\n'
        for name, value, raw in raw_members(call["function"]["arguments"]):
            kind, value = ("true", value) if isinstance(value, str) else ("false", raw)
            text += f'<｜DSML｜parameter name="{name}" string="{kind}">{value}</｜DSML｜parameter>\n'
        text += "</｜DSML｜invoke>"
    return text + ("\n</｜DSML｜tool_calls>" if message["tool_calls"] else "") + END


plain_text = st.text(max_size=8).map(without_special_text)
tool_names = st.text("abc_", min_size=1, max_size=5)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | plain_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
parameters = st.dictionaries(st.text("abc é<\\", max_size=4), json_values, max_size=3)
calls = st.lists(
    st.builds(
        lambda name, values: {"type": "function", "function": {"name": name, "arguments": values}},
        tool_names,
        parameters.map(lambda values: json.dumps(values, ensure_ascii=False)),
    ),
    max_size=3,
)


@pytest.mark.parametrize("golden", GOLDENS, ids=range(len(GOLDENS)))
def test_parse_gives_what_the_official_parser_gives(golden):
    if golden["malformed"]:
        with pytest.raises(ChatError, match=r"expected .*, found .* at character \d+"):
            chat.parse(golden["text"], mode_of(golden))
    else:
        assert chat.parse(golden["text"], mode_of(golden)) == golden["expected"]


def test_max_parses_like_high():
    assert chat.parse(GOOD, "max") == chat.parse(GOOD, "high")


def test_values_stay_as_the_model_wrote_them():
    calls_read = chat.parse(GOOD, "high")["tool_calls"]
    assert [call["function"]["name"] for call in calls_read] == ["add", "now"]
    assert [call["function"]["arguments"] for call in calls_read] == ['{"a": 2, "b": "x<y\\n</b>"}', "{}"]
    assert chat.parse(GOOD.replace(">2<", "> 2.50 <"), "high")["tool_calls"][0]["function"]["arguments"].startswith(
        '{"a":  2.50 ,'
    )


@pytest.mark.parametrize("value", ["9" * 4301, "-1e9999", "[" * 5000 + "]" * 5000, '{"a": {}, "a": []}', "\t1\n"])
def test_any_json_is_a_value(value):
    arguments = chat.parse(GOOD.replace(">2<", f">{value}<"), "high")["tool_calls"][0]["function"]["arguments"]
    assert arguments == f'{{"a": {value}, "b": "x<y\\n</b>"}}'


def test_names_may_hold_double_quotes():
    text = GOOD.replace('"add"', '"diagonal 6""').replace('"b"', '"a "quoted" name"')
    function = chat.parse(text, "high")["tool_calls"][0]["function"]
    assert function["name"] == 'diagonal 6"'
    assert json.loads(function["arguments"]) == {"a": 2, 'a "quoted" name': "x<y\n</b>"}


def test_a_string_parameter_may_hold_the_text_of_thinking_tokens():
    arguments = chat.parse(GOOD.replace("x<y", "<think>"), "high")["tool_calls"][0]["function"]["arguments"]
    assert json.loads(arguments)["b"] == "<think>\n</b>"


@given(plain_text, plain_text, calls, st.sampled_from(ASKED))
def test_parse_undoes_encode(reasoning, content, tool_calls, asked):
    mode, revision = asked
    turn = {"role": "assistant", "reasoning_content": reasoning, "content": content, "tool_calls": tool_calls}
    question = {"role": "user", "content": "?"}
    prompt = chat.encode([question], mode, drop_thinking=False, revision=revision)
    whole = chat.encode([question, turn], mode, False, revision=revision, add_generation_prompt=False)
    assert whole.startswith(prompt)
    message = chat.parse(whole.removeprefix(prompt), mode, revision=revision)
    assert message == {**turn, "reasoning_content": "" if mode == "non-think" else reasoning}


# --- malformed text ---------------------------------------------------------------------------------------------

MALFORMED = {
    "no end token": (GOOD.removesuffix(END), "expected '<｜end▁of▁sentence｜>', found the end"),
    "no end token, no calls": ("r</think>ok", "found the end at character 11"),
    "text after the end token": (GOOD + "more", "expected nothing after the end token, found 'more'"),
    "two end tokens": (GOOD + END, "expected nothing after the end token, found '<｜end▁of▁sentence｜>'"),
    "text after the calls": (GOOD.replace(END, "bye" + END), "expected '<｜end▁of▁sentence｜>', found 'bye"),
    "newline after the calls": (GOOD.replace(END, "\n" + END), r"expected '<｜end▁of▁sentence｜>', found '\n"),
    "no end of thinking": ("ok" + END, "expected '</think>', found '<｜end▁of▁sentence｜>' at character 2"),
    "calls while thinking": (GOOD.replace("</think>", ""), "expected '</think>', found '｜DSML｜tool_calls>"),
    "second end of thinking": (GOOD.replace("ok", "o</think>k"), "found '</think>k"),
    "start of thinking": ("<think>" + GOOD, "expected '</think>', found '<think>Easy."),
    "user token in content": (GOOD.replace("ok", "<｜User｜>"), "found '<｜User｜>"),
    "begin token in content": (GOOD.replace("ok", "<｜begin▁of▁sentence｜>"), "found '<｜begin▁of▁sentence｜>"),
    "format token in content": (GOOD.replace("ok", "o｜DSML｜k"), "found '｜DSML｜k"),
    "calls without empty line": (
        GOOD.replace("\n\n<｜DSML｜tool_calls", "\n<｜DSML｜tool_calls"),
        "found '｜DSML｜tool_c",
    ),
    "other block": (
        GOOD.replace("｜tool_calls>\n<", "｜function_calls>\n<"),
        r"expected '\n\n<｜DSML｜tool_calls>\n' or",
    ),
    "no call": (
        "</think>\n\n<｜DSML｜tool_calls>\n</｜DSML｜tool_calls>" + END,
        "expected '<｜DSML｜invoke name=\"', found '</｜DSML｜tool_calls>",
    ),
    "text before a call": (
        GOOD.replace('<｜DSML｜invoke name="add', 'x<｜DSML｜invoke name="add'),
        "found 'x<｜DSML｜inv",
    ),
    "text between calls": (
        GOOD.replace('<｜DSML｜invoke name="now', '\n<｜DSML｜invoke name="now'),
        r"found '\n<｜DSML｜in",
    ),
    "unclosed call": (GOOD.replace("\n</｜DSML｜invoke>", "", 1), "found '<｜DSML｜invoke name=\"now"),
    "unclosed block": (
        GOOD.replace("</｜DSML｜tool_calls>", ""),
        "expected '<｜DSML｜invoke name=\"' or '</｜DSML｜tool_call",
    ),
    "unclosed parameter": (
        GOOD.replace("2</｜DSML｜parameter>", "2"),
        r"expected '</｜DSML｜parameter>\n', found '｜DSML｜",
    ),
    "text between parameters": (
        GOOD.replace('<｜DSML｜parameter name="b', 'x<｜DSML｜parameter name="b'),
        "found 'x<｜DSM",
    ),
    "call without a name": (
        GOOD.replace(' name="add"', ""),
        "expected '<｜DSML｜invoke name=\"', found '<｜DSML｜invoke>",
    ),
    "control token in a name": (GOOD.replace('"add"', '"a<｜User｜>dd"'), "expected '\">\\n', found '<｜User｜>dd"),
    "control token in a parameter's name": (GOOD.replace('"b"', '"<think>"'), "found '<think>\" string="),
    "no string attribute": (
        GOOD.replace(' string="true"', ""),
        'expected \'" string="true">\' or \'" string="false">\'',
    ),
    "odd string attribute": (GOOD.replace('"true"', '"maybe"'), 'found \'" string="maybe">x<y'),
    "parameter is no JSON": (
        GOOD.replace(">2<", ">two<"),
        'expected a JSON value, because of string="false", found \'two',
    ),
    "parameter is empty": (GOOD.replace(">2<", "><"), "expected a JSON value"),
    "parameter holds two values": (GOOD.replace(">2<", '>2, "c": 3<'), "expected a JSON value"),
    "parameter is nested and not closed": (GOOD.replace(">2<", f">{'[' * 5000}<"), "expected a JSON value"),
    "parameter is NaN": (GOOD.replace(">2<", ">NaN<"), "expected a JSON value"),
    "parameter is infinite": (GOOD.replace(">2<", '>{"x": [-Infinity]}<'), "expected a JSON value"),
    "parameter twice": (GOOD.replace('"b"', '"a"'), "expected a parameter name that the call does not have yet"),
    "end token in a value": (
        GOOD.replace("x<y", END),
        r"expected '</｜DSML｜parameter>\n', found '<｜end▁of▁sentence｜>",
    ),
    "format token in a value": (GOOD.replace("x<y", "｜DSML｜"), r"expected '</｜DSML｜parameter>\n', found '｜DSML｜"),
}


@pytest.mark.parametrize(("text", "report"), MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_text_is_reported(text, report):
    with pytest.raises(ChatError) as caught:
        chat.parse(text, "high")
    assert report in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_position_counts_characters_from_zero():
    with pytest.raises(ChatError, match=r"found '<think>b' at character 2$"):
        chat.parse("ça<think>b")


def test_what_is_no_text_is_reported():
    with pytest.raises(ChatError, match="completion: expected a string or pieces, found NoneType"):
        chat.parse(None)
    with pytest.raises(ChatError, match=r"completion\[1\]: expected a piece, found int"):
        chat.parse([chat.Text("a"), 1])
    with pytest.raises(
        ChatError, match="mode: expected one of non-think, low, high, xhigh, max, or a number from 1 to 100, found 'th"
    ):
        chat.parse(GOOD, "thinking")
    with pytest.raises(ChatError, match="require_end: expected True or False"):
        chat.parse(GOOD, "high", require_end="no")


# --- completions that stop early --------------------------------------------------------------------------------


@pytest.mark.parametrize("length", range(len(GOOD) + 1))
def test_a_completion_that_stops_anywhere_can_be_shown_and_loses_no_character(length):
    text = GOOD[:length]
    whole = chat.parse(GOOD, "high")
    message = chat.parse(text, "high", require_end=False)
    assert message["tool_calls"] in ([], whole["tool_calls"])
    assert whole["reasoning_content"].startswith(message["reasoning_content"])
    assert whole["content"].startswith(message["content"])
    closed = "</think>" if "</think>" in text else ""
    calls_text = ADD if message["tool_calls"] else ""
    end_text = END if text.endswith(END) else ""
    said = message["reasoning_content"] + closed + message["content"] + calls_text
    assert text == said + message["unfinished"] + end_text
    if length < len(GOOD):
        with pytest.raises(ChatError, match="found"):
            chat.parse(text, "high")


@pytest.mark.parametrize(
    ("text", "content", "unfinished"),
    [
        ("ok\n\n<", "ok", "\n\n<"),  # may begin tool calls, or be a part of the answer
        ("ok\n\n", "ok", "\n\n"),
        ("ok\n", "ok", "\n"),
        ("ok\n\n\n", "ok\n", "\n\n"),
        ("ok\n\n<｜DSML", "ok", "\n\n<｜DSML"),
        ("ok\n\n<｜DSML｜tool", "ok", "\n\n<｜DSML｜tool"),
        ("ok<｜end▁of", "ok", "<｜end▁of"),
        ("ok<", "ok", "<"),
        ("ok\n\n<b", "ok\n\n<b", ""),
        ("ok<｜User", "ok<｜User", ""),
        ("caf\ufffd", "caf", "\ufffd"),  # the last byte of a character is missing
        ("ok\n\n\ufffd", "ok\n\n", "\ufffd"),
        ("ok", "ok", ""),
        ("", "", ""),
    ],
)
def test_what_may_begin_something_else_is_unfinished(text, content, unfinished):
    message = chat.parse(text, require_end=False)
    assert (message["content"], message["unfinished"]) == (content, unfinished)


@pytest.mark.parametrize(
    ("text", "reasoning", "unfinished"),
    [("I wonder</thi", "I wonder", "</thi"), ("I wonder\n\n<", "I wonder\n\n", "<"), ("\ufffd", "", "\ufffd")],
)
def test_the_end_of_thinking_may_be_unfinished(text, reasoning, unfinished):
    message = chat.parse(text, "high", require_end=False)
    assert (message["reasoning_content"], message["unfinished"]) == (reasoning, unfinished)


def test_a_whole_completion_has_nothing_unfinished():
    assert chat.parse(GOOD, "high", require_end=False) == {**chat.parse(GOOD, "high"), "unfinished": ""}


def test_no_call_of_an_unfinished_block_is_given():
    text = GOOD[: GOOD.index('<｜DSML｜invoke name="now')]
    message = chat.parse(text, "high", require_end=False)
    assert message["tool_calls"] == []
    assert message["unfinished"] == ADD[: ADD.index('<｜DSML｜invoke name="now')]


@pytest.mark.parametrize("name", [name for name in MALFORMED if not name.startswith("no end token")])
def test_malformed_text_is_reported_also_where_the_end_may_be_missing(name):
    with pytest.raises(ChatError, match="expected"):
        chat.parse(MALFORMED[name][0], "high", require_end=False)


# --- any text ---------------------------------------------------------------------------------------------------

fragments = st.sampled_from(
    [
        *chat.CONTROL_TOKENS,
        "\n",
        "\n\n",
        '"',
        "<",
        "</",
        ">",
        "2",
        "a",
        "",
        *ADD.split("｜DSML｜"),
        " calls>",
        ' invoke name="',
    ]
)
edits = st.lists(st.tuples(st.integers(0, len(GOOD)), st.integers(0, 30), fragments), max_size=3)


@given(st.lists(fragments | st.text(max_size=5)).map("".join), st.sampled_from(ASKED), st.booleans())
def test_any_text_is_parsed_or_reported(text, asked, require_end):
    try:
        message = chat.parse(text, asked[0], require_end, asked[1])
    except ChatError as error:
        assert "expected" in str(error)
    else:
        assert message["role"] == "assistant"


@given(edits)
def test_a_changed_completion_is_reported_or_keeps_every_character(changes):
    text = GOOD
    for start, deleted, inserted in changes:
        text = text[:start] + inserted + text[start + deleted :]
    try:
        message = chat.parse(text, "high")
    except ChatError:
        return
    one_way_to_write_no_parameters = text.replace('">\n\n</｜DSML｜invoke>', '">\n</｜DSML｜invoke>')
    assert written_again(message, thinking=True) == one_way_to_write_no_parameters
