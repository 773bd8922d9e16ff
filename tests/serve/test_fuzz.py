"""Bodies that nobody expected: each is answered or refused, and none is the server's fault.

DSV4_FUZZ_CASES says how many are tried of each kind; more than a test run has time for belong to a run by hand.
"""

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import serve.needed  # noqa: F401
from dsv4.serve.app import application
from serve.asking import ask
from serve.scripted import ScriptedEngine, ids_of, service
from serve.test_chat_completions import ADD

CASES = int(os.environ.get("DSV4_FUZZ_CASES", "150"))

APP = application(service(ScriptedEngine(ids_of("x</think>y\n\n<｜DSML｜tool_calls>\n"))))

TEXTS = st.text(max_size=6) | st.sampled_from(
    [
        "",
        "\x00",
        "\ud800",
        "<｜User｜>",
        "auto",
        "none",
        "required",
        "high",
        "max",
        "enabled",
        "text",
        "json_schema",
        "add",
    ]
)
SCALARS = TEXTS | st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.integers(-2, 3)
NAMES = TEXTS | st.sampled_from(
    ["type", "role", "content", "function", "name", "parameters", "properties", "$ref", "enum"]
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=8
)
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"$ref": "#/$defs/b"}}, "$defs": {"b": {}}}
CALL = {"id": "c", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
CHAT = {
    "messages": [
        {"role": "system", "content": "s"},
        {"role": "user", "content": [{"type": "text", "text": "t"}]},
        {"role": "assistant", "content": None, "reasoning_content": "r", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c", "content": "1"},
    ],
    "tools": [ADD, {"type": "function", "function": {"name": "sub", "parameters": SCHEMA}}],
    "tool_choice": {"type": "function", "function": {"name": "add"}},
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}},
    "thinking": {"type": "enabled"},
    "reasoning_effort": "high",
    "stop": ["a", "b"],
    "temperature": 1,
    "top_p": 0.5,
    "seed": 1,
    "n": 2,
    "max_tokens": 5,
    "logprobs": True,
    "top_logprobs": 1,
    "stream": True,
    "stream_options": {"include_usage": True},
    "parallel_tool_calls": True,
    "logit_bias": {},
}
COMPLETION = {
    "prompt": [[5, 6], "text"],
    "echo": True,
    "logprobs": 1,
    "max_tokens": 3,
    "stop": "a",
    "n": 1,
    "stream": False,
    "temperature": 0,
}
MESSAGES = {
    "system": [{"type": "text", "text": "s"}],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "t"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "r", "signature": ""},
                {"type": "text", "text": "t"},
                {"type": "tool_use", "id": "t", "name": "add", "input": {"a": 1}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "1"}]},
    ],
    "tools": [{"name": "add", "input_schema": SCHEMA}],
    "tool_choice": {"type": "tool", "name": "add", "disable_parallel_tool_use": True},
    "thinking": {"type": "enabled", "budget_tokens": 5},
    "stop_sequences": ["a"],
    "max_tokens": 5,
    "stream": True,
}
BODIES = {"/v1/chat/completions": CHAT, "/v1/completions": COMPLETION, "/v1/messages": MESSAGES}


@st.composite
def changed(draw, value, chance: int = 12):
    """The value with some of its parts replaced, left out or added."""
    if draw(st.integers(0, chance)) == 0:
        return draw(VALUES)
    if isinstance(value, dict):
        kept = {name: draw(changed(part, chance)) for name, part in value.items() if draw(st.integers(0, 7))}
        return kept | (draw(st.dictionaries(NAMES, VALUES, max_size=1)) if draw(st.integers(0, 9)) == 0 else {})
    if isinstance(value, list):
        return [draw(changed(part, chance)) for part in value if draw(st.integers(0, 7))]
    return value


def is_answered(path: str, raw: bytes) -> None:
    found = ask(APP, path, raw, "POST")
    assert 200 <= found.status < 500, (found.status, found.body, raw)
    if found.status != 200:
        assert set(found.error) == {"message", "type", "param", "code"} and found.error["message"], found.body
    elif found.headers["content-type"].startswith("text/event-stream"):
        assert found.events[-1] in ("[DONE]", {"type": "message_stop"}), (found.body, raw)


@pytest.mark.parametrize("path", BODIES)
@settings(max_examples=CASES, deadline=None)
@given(st.data())
def test_a_body_that_is_almost_right_is_answered_or_refused(path, data):
    body = data.draw(changed(BODIES[path]))
    is_answered(path, json.dumps(body).encode())


@pytest.mark.parametrize("path", BODIES)
@settings(max_examples=CASES, deadline=None)
@given(st.data())
def test_bytes_that_are_almost_right_are_answered_or_refused(path, data):
    raw = bytearray(json.dumps(BODIES[path], ensure_ascii=False).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(raw)))
        raw[place : place + data.draw(st.integers(0, 5))] = data.draw(
            st.binary(max_size=4) | st.sampled_from([b"[", b'{"', b"\\u"])
        )
    is_answered(path, bytes(raw))
