"""Anthropic's own client for `/v1/messages`: answers, streams, thinking and tools, against a real server."""

import json

import pytest

import dsv4
import serve.needed  # noqa: F401
from dsv4.serve.app import application
from dsv4.serve.engine import Engine
from dsv4.text import chat
from serve.asking import ask
from serve.scripted import MODEL, TOKENIZER, ScriptedEngine, ids_of, service
from serve.serving import serving
from serve.test_chat_completions import HELLO, call_text

anthropic = pytest.importorskip("anthropic")

NAME = "bundled"
TOOL = {
    "name": "add",
    "description": "Adds.",
    "input_schema": {"type": "object", "properties": {"a": {"type": "number"}}},
}


def client_of(server):
    return anthropic.Anthropic(base_url=server.address, api_key="sesame", max_retries=0, timeout=120)


def test_the_answer_is_that_of_generate():
    with serving(Engine(MODEL), api_key="sesame") as server, client_of(server) as client:
        found = client.messages.create(
            model=NAME, messages=HELLO, max_tokens=8, system="Be brief.", extra_body={"temperature": 0}
        )
        counted = client.messages.count_tokens(model=NAME, messages=HELLO, system="Be brief.")
    ids = TOKENIZER.encode_pieces(chat.encode_pieces([{"role": "system", "content": "Be brief."}, *HELLO]))
    expected = [token.id for token in dsv4.generate(MODEL, ids, max_new_tokens=8, temperature=0)]
    assert found.content[0].text == TOKENIZER.decode(expected, skip_special=True)
    assert (found.usage.input_tokens, found.usage.output_tokens) == (len(ids), len(expected))
    assert counted.input_tokens == len(ids)
    assert found.stop_reason == ("end_turn" if expected[-1] == TOKENIZER.eos_id else "max_tokens")


def test_a_stream_of_thinking_text_and_a_call():
    engine = ScriptedEngine(ids_of("Hm é.</think>I add." + call_text({"a": 1.5})))
    engine.cached = 4
    with serving(engine) as server, client_of(server) as client:
        thinking = {"type": "enabled", "budget_tokens": 1024}
        with client.messages.stream(
            model=NAME, messages=HELLO, max_tokens=2000, tools=[TOOL], thinking=thinking
        ) as stream:
            kinds = {event.type for event in stream}
        found = stream.get_final_message()
        whole = client.messages.create(model=NAME, messages=HELLO, max_tokens=2000, tools=[TOOL], thinking=thinking)
    assert {"message_start", "content_block_start", "content_block_stop", "message_stop"} <= kinds
    for message in (found, whole):
        assert [block.type for block in message.content] == ["thinking", "text", "tool_use"]
        assert (message.content[0].thinking, message.content[1].text) == ("Hm é.", "I add.")
        assert message.content[2].name == "add" and message.content[2].input == {"a": 1.5}
        assert message.stop_reason == "tool_use" and message.usage.cache_read_input_tokens == 4
    prompt = TOKENIZER.decode(engine.jobs[0].ids)
    assert prompt.endswith("<｜Assistant｜><think>") and '"description": "Adds."' in prompt


def test_a_call_goes_round_into_the_prompt():
    engine = ScriptedEngine(ids_of("x"))
    messages = [
        *HELLO,
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "I add."},
                {"type": "tool_use", "id": "t", "name": "add", "input": {"a": 1}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "1"}]},
                {"type": "text", "text": "So?"},
            ],
        },
    ]
    with serving(engine) as server, client_of(server) as client:
        client.messages.create(model=NAME, messages=messages, max_tokens=5)
    function = {"name": "add", "arguments": '{"a": 1}'}
    call = {"id": "t", "type": "function", "function": function}
    ours = [
        *HELLO,
        {"role": "assistant", "content": "I add.", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "t", "content": "1"},
        {"role": "user", "content": "So?"},
    ]
    assert list(engine.jobs[0].ids) == TOKENIZER.encode_pieces(chat.encode_pieces(ours))


def test_a_last_message_of_the_assistant_is_gone_on_with_and_a_stop_text_is_named():
    engine = ScriptedEngine(ids_of(" world. END of it"))
    with serving(engine) as server, client_of(server) as client:
        messages = [*HELLO, {"role": "assistant", "content": "Hello"}]
        found = client.messages.create(model=NAME, messages=messages, max_tokens=50, stop_sequences=["of", "END"])
    assert found.content[0].text == " world. "
    assert (found.stop_reason, found.stop_sequence) == ("stop_sequence", "END")
    assert TOKENIZER.decode(engine.jobs[0].ids).endswith("</think>Hello")


REFUSED = [
    ({"max_tokens": None}, "max_tokens"),
    ({"messages": [{"role": "system", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "messages[0].content[0]"),
    ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools[0]"),
    ({"tool_choice": {"type": "any"}}, "tool_choice"),
    ({"top_k": 5}, "top_k"),
]


@pytest.mark.parametrize(("body", "field"), REFUSED)
def test_what_cannot_be_answered_is_refused_with_the_name_of_the_field(body, field):
    app = application(service(ScriptedEngine(ids_of("x"))))
    found = ask(app, "/v1/messages", {"messages": HELLO, "max_tokens": 5} | body)
    assert found.status == 400 and field in found.error["message"] and found.json["type"] == "error"


def test_errors_come_as_the_classes_of_the_client():
    with (
        serving(ScriptedEngine(ids_of("x")), api_key="another") as server,
        client_of(server) as client,
        pytest.raises(anthropic.AuthenticationError),
    ):
        client.messages.create(model=NAME, messages=HELLO, max_tokens=5)
    app = application(service(ScriptedEngine(ids_of("ab", end=False), "error", "logits: no number")))
    body = ask(app, "/v1/messages", {"messages": HELLO, "max_tokens": 5, "stream": True}).body.decode()
    last = json.loads(body.strip().rsplit("data: ", 1)[1])
    assert last["type"] == "error" and last["error"]["message"] == "logits: no number"
