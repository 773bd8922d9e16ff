"""A model whose chat format is V4.1's: efforts, calls in its tags, and system messages that are answered."""

import json
from dataclasses import replace

import pytest

import dsv4
import serve.needed  # noqa: F401
from dsv4.serve.app import application
from dsv4.text import chat
from serve.asking import ask
from serve.scripted import ScriptedEngine, service
from text.asked import tokenizer_of_v41

PATH = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Hello"}]
TOKENIZER = tokenizer_of_v41(dsv4.bundled_model())
ADD = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {"a": {}}}}}


def answered(engine, revision, body, mode="non-think"):
    served = replace(service(engine, revision=revision, mode=mode), tokenizer=TOKENIZER)
    return ask(application(served), PATH, body)


def ids_of(text):
    return [*TOKENIZER.encode(text, allow_special=True), TOKENIZER.eos_id]


@pytest.mark.parametrize(
    ("revision", "effort", "number"),
    [
        ("v4.1", "low", 25),
        ("v4.1", "high", 50),
        ("v4.1", "xhigh", 75),
        ("v4.1", "max", 100),
        ("v4.1-api", "minimal", 50),
        ("v4.1-api", "low", 50),
        ("v4.1-api", "medium", 75),
        ("v4.1-api", "xhigh", 75),
        ("v4.1-api", "max", 100),
        ("v4.1", None, 33),
    ],
)
def test_efforts_lead_to_numbers(revision, effort, number):
    engine = ScriptedEngine(ids_of("x</think>y"))
    answered(engine, revision, {"messages": HELLO, "reasoning_effort": effort}, mode=33)
    assert list(engine.jobs[0].ids) == TOKENIZER.encode_pieces(chat.encode_pieces(HELLO, number, revision="v4.1"))


def test_calls_are_written_and_read_in_the_tags_of_v41():
    call = {"type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    turn = {"role": "assistant", "content": "I add.", "tool_calls": [call]}
    whole = chat.encode([*HELLO, turn], revision="v4.1", add_generation_prompt=False)
    engine = ScriptedEngine(ids_of(whole.partition("</think>")[2].removesuffix("<｜end▁of▁sentence｜>")))
    found = answered(engine, "v4.1", {"messages": HELLO, "tools": [ADD]}).json["choices"][0]
    assert found["message"]["content"] == "I add." and found["finish_reason"] == "tool_calls"
    (read,) = found["message"]["tool_calls"]
    assert (read["function"]["name"], json.loads(read["function"]["arguments"])) == ("add", {"a": 1})
    prompt = TOKENIZER.decode(engine.jobs[0].ids)
    assert prompt.startswith("<｜begin▁of▁sentence｜><｜System｜>") and "<｜DSML｜ calls>" in prompt


def test_a_last_message_of_the_system_is_answered_by_v41_alone():
    messages = [*HELLO, {"role": "system", "content": "Be brief."}]
    engine = ScriptedEngine(ids_of("Hi."))
    assert answered(engine, "v4.1", {"messages": messages}).json["choices"][0]["message"]["content"] == "Hi."
    assert TOKENIZER.decode(engine.jobs[0].ids).endswith("<｜System｜>Be brief.<｜Assistant｜></think>")
    assert answered(engine, "0731", {"messages": messages}).error["param"] == "messages[1].role"


def test_the_token_of_images_is_refused_in_one_line():
    found = answered(ScriptedEngine([]), "v4.1", {"messages": [{"role": "user", "content": "<｜deepseek_image｜>"}]})
    assert found.status == 400
    assert found.error["message"].startswith("messages[0].content: expected text without <｜deepseek_image｜>")
