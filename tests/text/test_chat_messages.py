"""Messages as callers give them: tool calls and their results, what may be left out, and what cannot be rendered."""

import json
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4 import chat
from dsv4.errors import ChatError

TOOLS = [{"type": "function", "function": {"name": "add", "description": "Add <think> two numbers"}}]
QUESTION = {"role": "user", "content": "What is 1+1?"}
CALL = {
    "role": "assistant",
    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}],
}


def results(*ids):
    return [{"role": "tool", "tool_call_id": name, "content": str(name)} for name in ids]


def two_calls(first, second):
    """Two calls; `first` and `second` are the ids on the call and on its function."""
    calls = [
        {"id": on_call, "function": {"id": on_function, "name": "f", "arguments": "{}"}}
        for on_call, on_function in (first, second)
    ]
    return {"role": "assistant", "tool_calls": calls}


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        (two_calls(("a", None), ("b", None)), ["a", "b"]),
        (two_calls((None, "a"), (None, "b")), ["a", "b"]),
        (two_calls(("", "a"), ("b", "a")), ["a", "b"]),  # the call's own id comes first, unless it is empty
        (two_calls(("b", "a"), ("a", "b")), ["b", "a"]),
        (two_calls((None, None), ("a", None)), ["b", "a"]),  # an unknown id counts as the first call
        (two_calls((None, None), (None, None)), ["b", "a"]),
    ],
)
def test_results_stand_in_the_order_of_their_calls_wherever_those_have_their_ids(calls, expected):
    text = chat.encode([QUESTION, calls, *results("b", "a")], add_bos=False)
    blocks = "\n\n".join(f"<tool_result>{name}</tool_result>" for name in expected)
    assert text.endswith(f"<｜User｜>{blocks}<｜Assistant｜></think>")


def test_ids_may_be_integers():
    text = chat.encode([QUESTION, two_calls((7, None), (None, 8)), *results(8, 7)], add_bos=False)
    assert text.endswith("<tool_result>7</tool_result>\n\n<tool_result>8</tool_result><｜Assistant｜></think>")


RENDERED = {
    "a result without a call": ([{"role": "tool", "content": "2"}], "<｜User｜><tool_result>2</tool_result>"),
    "a result before its call": (
        [{"role": "tool", "content": "2"}, {"role": "assistant", "content": "x"}, QUESTION],
        "<｜User｜><tool_result>2</tool_result><｜Assistant｜></think>x<｜end▁of▁sentence｜><｜User｜>What is 1+1?",
    ),
    "a result without content": ([QUESTION, {"role": "tool"}], "<｜User｜>What is 1+1?\n\n<tool_result></tool_result>"),
    "a part of a result without text": (
        [{"role": "tool", "content": [{"type": "text"}, {"type": "text", "text": "b"}]}],
        "<｜User｜><tool_result>\n\nb</tool_result>",
    ),
    "a system message without content": ([{"role": "system"}, QUESTION], "<｜User｜>What is 1+1?"),
    "a system message with None": ([{"role": "system", "content": None}, QUESTION], "<｜User｜>What is 1+1?"),
    "a user message without content": ([{"role": "user"}], "<｜User｜>"),
    "empty fields": (
        [{"role": "system", "content": [], "tools": {}, "response_format": ""}, {**QUESTION, "tool_calls": ""}],
        "<｜User｜>What is 1+1?",
    ),
}


@pytest.mark.parametrize(("messages", "expected"), RENDERED.values(), ids=RENDERED.keys())
def test_what_the_official_encoder_renders_is_rendered(messages, expected):
    assert chat.encode(messages, add_bos=False) == expected + "<｜Assistant｜></think>"


def test_a_tool_needs_no_name():
    text = chat.encode([{"role": "system", "tools": [{"function": {"description": "D"}}]}])
    assert '\n\n{"description": "D"}\n\n' in text


def parameters(arguments):
    """The parameters that a call's arguments are written as: (name, string, value)."""
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}
    text = chat.encode([QUESTION, call])
    return re.findall(
        '<｜DSML｜parameter name="(.*?)" string="(true|false)">(.*?)</｜DSML｜parameter>\n', text, re.DOTALL
    )


@pytest.mark.parametrize(
    "arguments", ["not JSON", "", "[1]", "5", '"text"', '"[1]"', "null", '{"a": NaN}', '{"a": -Infinity}', "{'a': 1}"]
)
def test_arguments_that_are_no_json_object_are_one_parameter(arguments):
    assert parameters(arguments) == [("arguments", "true", arguments)]


@pytest.mark.parametrize(("arguments", "value"), [(None, "null"), ([1, "é"], '[1, "é"]'), (5, "5"), (False, "false")])
def test_arguments_that_are_no_text_are_one_parameter_of_json(arguments, value):
    assert parameters(arguments) == [("arguments", "false", value)]


def test_an_object_written_as_a_json_string_is_taken_for_the_object():
    assert parameters(json.dumps(json.dumps({"a": "b", "c": 1}))) == [("a", "true", "b"), ("c", "false", "1")]


def test_numbers_of_any_length_and_values_of_any_depth_are_written():
    long, deep = "9" * 4301, "[" * 5000 + "]" * 5000
    expected = [("a", "false", long), ("b", "false", deep), ("c", "false", "[1e999, 1.5]")]
    assert parameters(f'{{"a": {long}, "b": {deep}, "c": [1e999,1.50]}}') == expected


@pytest.mark.parametrize("kind", ["true", "false"])
def test_a_parameter_name_that_would_be_read_otherwise_is_refused(kind):
    """Written, `x" string="true">y` and the value z are the same text as x and the value `y" string="true">z`."""
    name = f'x" string="{kind}">y'
    with pytest.raises(ChatError, match=r"tool_calls\[0\].function.arguments: expected parameter names without .*"):
        parameters(json.dumps({name: "z"}))
    assert parameters(json.dumps({"x": name})) == [("x", "true", name)]
    assert parameters(json.dumps({name[:-2]: "z"})) == [(name[:-2], "true", "z")]


# --- messages that cannot be rendered ---------------------------------------------------------------------------


def with_call(**function):
    return [QUESTION, {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}", **function}}]}]


NESTED: list[object] = []
for _ in range(100_000):
    NESTED = [NESTED]

BAD_MESSAGES = {
    "no list": ("hello", "messages: expected a list of messages, found 'hello'"),
    "empty list": ([], "messages: expected at least one message"),
    "no dict": ([QUESTION, "hello"], "messages[1]: expected a dict with a role, found 'hello'"),
    "no role": ([{"content": "x"}], "messages[0].role: expected one of system, developer, user"),
    "unknown role": ([{"role": "robot", "content": "x"}], "messages[0].role: expected one of"),
    "role of a wrong type": ([{"role": ["user"], "content": "x"}], "messages[0].role: expected one of"),
    "user content that is None": ([{**QUESTION, "content": None}], "messages[0].content: expected a string, found N"),
    "user content of a wrong type": ([{"role": "user", "content": 5}], "messages[0].content: expected a string"),
    "system content of a wrong type": ([{"role": "system", "content": 5}], "messages[0].content: expected a string"),
    "empty developer": ([{"role": "developer", "content": ""}], "messages[0].content: expected a string that is not"),
    "reminder without content": ([{"role": "latest_reminder"}], "messages[0].content: expected a string"),
    "tool content that is None": (
        [QUESTION, CALL, {"role": "tool", "content": None}],
        "messages[2].content: expected a string or a list of parts, found None",
    ),
    "tool part without type": (
        [QUESTION, CALL, {"role": "tool", "content": ["x"]}],
        "messages[2].content[0]: expected a dict with a type, found 'x'",
    ),
    "tool part with another text": (
        [QUESTION, CALL, {"role": "tool", "content": [{"type": "text", "text": 5}]}],
        "messages[2].content[0].text: expected a string, found 5",
    ),
    "unknown task": ([{**QUESTION, "task": "dance"}], "messages[0].task: expected one of action, query"),
    "task of a wrong type": ([{**QUESTION, "task": ["query"]}], "messages[0].task: expected one of action, query"),
    "tools on a user message": (
        [{**QUESTION, "tools": TOOLS}],
        "messages[0].tools: expected the field only on a message of role system or developer",
    ),
    "calls on a user message": ([{**QUESTION, **CALL, "role": "user"}], "messages[0].tool_calls: expected the field"),
    "reasoning on a user message": (
        [{**QUESTION, "reasoning_content": "r"}],
        "messages[0].reasoning_content: expected",
    ),
    "tools of a wrong type": ([{"role": "system", "content": "", "tools": {"a": 1}}], "messages[0].tools: expected a"),
    "tool without function": ([{"role": "system", "content": "", "tools": [{}]}], "messages[0].tools[0]: expected a"),
    "tool that is no JSON": (
        [{"role": "system", "content": "", "tools": [{"function": {"name": "f", "x": {1, 2}}}]}],
        "messages[0].tools[0].function: expected a value that JSON can hold",
    ),
    "format of a wrong type": (
        [{"role": "system", "content": "", "response_format": "json"}],
        "messages[0].response_format: expected a JSON schema as a dict, found 'json'",
    ),
    "reasoning of a wrong type": (
        [QUESTION, {"role": "assistant", "reasoning_content": 5}],
        "messages[1].reasoning_content: expected a string or None, found 5",
    ),
    "wo_eos of a wrong type": ([QUESTION, {"role": "assistant", "wo_eos": "no"}], "messages[1].wo_eos: expected True"),
    "calls of a wrong type": (
        [QUESTION, {"role": "assistant", "tool_calls": "f()"}],
        "messages[1].tool_calls: expected",
    ),
    "call without function": (
        [QUESTION, {"role": "assistant", "tool_calls": [{}]}],
        "messages[1].tool_calls[0]: expect",
    ),
    "call id of a wrong type": (
        [QUESTION, {"role": "assistant", "tool_calls": [{"id": [5], "function": {"name": "f", "arguments": "{}"}}]}],
        "messages[1].tool_calls[0].id: expected a string, an integer or None, found [5]",
    ),
    "result id of a wrong type": (
        [QUESTION, CALL, {"role": "tool", "content": "2", "tool_call_id": [5]}],
        "messages[2].tool_call_id: expected a string, an integer or None, found [5]",
    ),
    "call without name": (with_call(name=None), "messages[1].tool_calls[0].function.name: expected a string"),
    "arguments as a dict": (with_call(arguments={}), "function.arguments: expected a string that holds a JSON object"),
    "function id of a wrong type": (with_call(id=[5]), "messages[1].tool_calls[0].function.id: expected a string, an"),
    "no arguments": (
        [QUESTION, {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}],
        "function.arguments: expected a string that holds a JSON object, found None",
    ),
    "arguments that JSON cannot hold": (with_call(arguments={1}), "function.arguments: expected a value that JSON can"),
    "a tool with a number that JSON cannot hold": (
        [{"role": "system", "tools": [{"function": {"name": "f", "x": math.nan}}]}],
        "messages[0].tools[0].function: expected a value that JSON can hold, found one that it cannot",
    ),
    "a response format with such a number": (
        [{"role": "system", "response_format": {"maximum": math.inf}}],
        "messages[0].response_format: expected a value that JSON can hold, found one that it cannot",
    ),
    "content that has no short text": ([{**QUESTION, "content": 10**5000}], "found an integer of about 5001 digits"),
    "content that nests too deeply for one": ([{**QUESTION, "content": NESTED}], "found [[[...]]]"),
}


@pytest.mark.parametrize(("messages", "report"), BAD_MESSAGES.values(), ids=BAD_MESSAGES.keys())
def test_a_bad_message_is_reported_with_its_index_and_field(messages, report):
    with pytest.raises(ChatError) as caught:
        chat.encode(messages)
    assert report in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mode", ["chat", "thinking", "MAX", None, ["max"]])
def test_an_unknown_mode_is_reported_with_the_known_ones(mode):
    with pytest.raises(ChatError, match="mode: expected one of non-think, high, max"):
        chat.encode([QUESTION], mode)


@pytest.mark.parametrize("argument", ["drop_thinking", "add_bos"])
def test_an_argument_that_is_no_truth_value_is_reported(argument):
    with pytest.raises(ChatError, match=f"{argument}: expected True or False, found 'no'"):
        chat.encode([QUESTION], **{argument: "no"})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
message_fields = st.sampled_from(
    ["content", "tools", "task", "response_format", "wo_eos", "reasoning_content", "tool_calls", "tool_call_id"]
)


@given(st.sampled_from(["user", "system", "assistant", "tool", "developer"]), message_fields, json_values)
def test_any_value_of_a_field_is_rendered_or_reported(role, field, value):
    message = {"role": role, "content": "x", field: value}
    try:
        text = chat.encode([QUESTION, CALL, message])
    except ChatError as error:
        assert "messages[2]" in str(error)
    else:
        assert text.startswith("<｜begin▁of▁sentence｜><｜User｜>What is 1+1?<｜Assistant｜></think>")
