"""OpenAI's own client: answers, streams, tools and structured outputs, against a real server."""

import json

import numpy as np
import pytest

import dsv4
import serve.needed  # noqa: F401
from dsv4.text import chat
from serve.scripted import MODEL, TOKENIZER, ScriptedEngine, ids_of
from serve.serving import serving
from serve.test_chat_completions import ADD, HELLO, call_text

openai = pytest.importorskip("openai")
pydantic = pytest.importorskip("pydantic")

NAME = "bundled"


def client_of(server, key="sesame"):
    return openai.OpenAI(base_url=f"{server.address}/v1", api_key=key, max_retries=0, timeout=120)


@pytest.fixture(scope="module")
def client():
    """A client of the bundled model with its real engine."""
    with serving(api_key="sesame") as server, client_of(server) as found:
        yield found


def scripted(script, **more):
    return serving(ScriptedEngine(script), **more)


def generated(ids, **settings) -> list[int]:
    return [token.id for token in dsv4.generate(MODEL, ids, **settings)]


def test_the_answer_is_that_of_generate(client):
    settings = {"temperature": 0.7, "seed": 3}
    found = client.chat.completions.create(model=NAME, messages=HELLO, max_tokens=12, **settings)
    ids = TOKENIZER.encode_pieces(chat.encode_pieces(HELLO))
    expected = generated(ids, max_new_tokens=12, **settings)
    text = TOKENIZER.decode(expected, skip_special=True)
    assert found.choices[0].message.content == text
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (len(ids), len(expected))
    assert found.choices[0].finish_reason == ("stop" if expected[-1] == TOKENIZER.eos_id else "length")


def test_a_stream_has_the_same_text_and_the_usage(client):
    asked = {"model": NAME, "messages": HELLO, "max_tokens": 12, "seed": 3}
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_the_helper_for_streams_gathers_the_same(client):
    with client.chat.completions.stream(model=NAME, messages=HELLO, max_tokens=60, seed=3, stop="\n") as stream:
        for _ in stream:
            pass
        gathered = stream.get_final_completion()
    whole = client.chat.completions.create(model=NAME, messages=HELLO, max_tokens=60, seed=3, stop="\n")
    assert gathered.choices[0].message.content == whole.choices[0].message.content


def test_several_answers_are_each_their_own(client):
    found = client.chat.completions.create(model=NAME, messages=HELLO, max_tokens=8, seed=3, n=3, temperature=1)
    texts = [choice.message.content for choice in found.choices]
    assert [choice.index for choice in found.choices] == [0, 1, 2] and len(set(texts)) > 1
    alone = client.chat.completions.create(model=NAME, messages=HELLO, max_tokens=8, seed=3, temperature=1)
    assert texts[0] == alone.choices[0].message.content


def test_log_probabilities_are_the_models_own(client):
    asked = {"model": NAME, "messages": HELLO, "max_tokens": 4, "temperature": 0, "logprobs": True, "top_logprobs": 3}
    words = client.chat.completions.create(**asked).choices[0].logprobs.content
    assert words
    for word in words:
        assert word.logprob <= 0 and word.top_logprobs[0].logprob == word.logprob
        assert word.top_logprobs[0].token == word.token and len(word.top_logprobs) == 3


def test_structured_outputs_are_parsed_into_their_class(client):
    class Ring(pydantic.BaseModel):
        kind: bool
        size: int = pydantic.Field(ge=0, le=9)

    found = client.chat.completions.parse(model=NAME, messages=HELLO, response_format=Ring, max_tokens=60, seed=1)
    message = found.choices[0].message
    assert isinstance(message.parsed, Ring) and Ring.model_validate_json(message.content) == message.parsed
    assert found.choices[0].finish_reason == "stop"


def test_a_tool_that_has_to_be_called_is_called(client):
    properties = {"yes": {"type": "boolean"}, "n": {"enum": [1, 2]}}
    parameters = {"type": "object", "properties": properties, "required": ["yes", "n"]}
    tools = [{"type": "function", "function": {"name": "judge", "parameters": parameters}}]
    for choice in ("required", {"type": "function", "function": {"name": "judge"}}):
        found = client.chat.completions.create(
            model=NAME, messages=HELLO, tools=tools, tool_choice=choice, parallel_tool_calls=False, seed=5
        )
        calls = found.choices[0].message.tool_calls
        assert found.choices[0].finish_reason == "tool_calls" and len(calls) == 1
        arguments = json.loads(calls[0].function.arguments)
        assert calls[0].function.name == "judge" and calls[0].id.startswith("call_")
        assert arguments["yes"] in (True, False) and arguments["n"] in (1, 2)


def test_a_tool_call_goes_round():
    arguments = {"a": 2, "why": "é\n</"}
    with scripted(ids_of("I add." + call_text(arguments))) as server, client_of(server) as client:
        with client.chat.completions.stream(model=NAME, messages=HELLO, tools=[ADD]) as stream:
            events = list(stream)
        message = stream.get_final_completion().choices[0].message
        assert message.content == "I add." and json.loads(message.tool_calls[0].function.arguments) == arguments
        done = [event for event in events if event.type == "tool_calls.function.arguments.done"]
        assert len(done) == 1 and json.loads(done[0].arguments) == arguments
        answer = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "2"}
        messages = [*HELLO, message.model_dump(), answer]
        assert client.chat.completions.create(model=NAME, messages=messages, tools=[ADD]).usage.prompt_tokens > 0


def test_no_tool_is_called_where_none_may_be(client):
    found = client.chat.completions.create(
        model=NAME, messages=HELLO, tools=[ADD], tool_choice="none", max_tokens=5, temperature=2
    )
    assert not found.choices[0].message.tool_calls


def test_texts_are_continued_and_scored(client):
    prompt = "To be, or not to be"
    ids = TOKENIZER.encode(prompt)
    found = client.completions.create(
        model=NAME,
        prompt=prompt,
        max_tokens=5,
        temperature=0,
        logprobs=1,
        echo=True,
        extra_body={"return_token_ids": True},
    )
    choice = found.choices[0]
    expected = generated(ids, max_new_tokens=5, temperature=0)
    assert choice.token_ids == expected and choice.text == prompt + TOKENIZER.decode(expected)
    logits = MODEL([ids])[0].astype("float64")
    log_probabilities = logits - logits.max(-1, keepdims=True)
    log_probabilities -= np.log(np.exp(log_probabilities).sum(-1, keepdims=True))
    ours = [log_probabilities[place, token] for place, token in enumerate(ids[1:])]
    np.testing.assert_allclose(choice.logprobs.token_logprobs[1 : len(ids)], ours, rtol=1e-4, atol=1e-4)


def test_errors_come_as_the_classes_of_the_client(client):
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model=NAME, messages=HELLO, temperature=9)
    assert refused.value.param == "temperature" and "from 0 to 2" in refused.value.message
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="other").models.list()
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(model=NAME, prompt=[5] * 5000)
    assert refused.value.code == "context_length_exceeded"


def test_the_model_is_listed(client):
    assert [model.id for model in client.models.list()] == [NAME]
