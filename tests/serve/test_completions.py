"""`/v1/completions`: texts and token ids to go on with, echoed with their log-probabilities, wherever tokens end."""

import pytest

import serve.needed  # noqa: F401
from dsv4.serve.app import application
from serve.asking import ask
from serve.scripted import CONTROL_IDS, TOKENIZER, ScriptedEngine, bytewise, ids_of, service

PATH = "/v1/completions"


def first(script, reason="length", **body):
    return ask(application(service(ScriptedEngine(script, reason))), PATH, {"prompt": "To be"} | body).json["choices"][
        0
    ]


@pytest.mark.parametrize("spelt", [ids_of, bytewise])
def test_the_text_is_the_tokens_text_whole_and_in_a_stream(spelt):
    script = spelt(" or é😀 not")
    assert first(script, max_tokens=100)["text"] == " or é😀 not"
    body = {"prompt": "To be", "stream": True, "max_tokens": 100, "stream_options": {"include_usage": True}}
    events = ask(application(service(ScriptedEngine(script))), PATH, body).events
    choices = [choice for event in events[:-1] for choice in event["choices"]]
    assert "".join(choice["text"] for choice in choices) == " or é😀 not"
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["stop"]
    assert events[-2]["usage"]["completion_tokens"] == len(script)


@pytest.mark.parametrize("spelt", [ids_of, bytewise])
def test_a_stop_text_is_left_out_wherever_it_is_cut(spelt):
    found = first(spelt("one two three", end=False), stop=["o th"], max_tokens=100)
    assert (found["text"], found["finish_reason"]) == ("one tw", "stop")


def test_a_stop_text_that_is_a_control_token_ends_the_text():
    engine = ScriptedEngine([*TOKENIZER.encode("one"), CONTROL_IDS["<｜User｜>"], *ids_of("two")])
    found = ask(application(service(engine)), PATH, {"prompt": "x", "stop": "<｜User｜>"}).json["choices"][0]
    assert (found["text"], found["finish_reason"]) == ("one", "stop")


def test_what_could_begin_a_stop_text_is_given_at_the_end():
    for script, reason in ((ids_of("ab"), "stop"), (ids_of("ab", end=False), "length")):
        found = first(script, stop="bc")
        assert (found["text"], found["finish_reason"]) == ("ab", reason)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("To be <｜User｜>", [TOKENIZER.encode("To be <｜User｜>")]),
        (["a", "b c"], [TOKENIZER.encode("a"), TOKENIZER.encode("b c")]),
        ([5, 6, 7], [[5, 6, 7]]),
        ([[5, 6], [7]], [[5, 6], [7]]),
    ],
)
def test_prompts_are_texts_or_token_ids(prompt, expected):
    engine = ScriptedEngine(lambda job: ids_of(TOKENIZER.decode(job.ids)[:1]))
    body = {"prompt": prompt, "return_token_ids": True, "n": 2}
    found = ask(application(service(engine)), PATH, body).json
    twice = [ids for ids in expected for _ in range(2)]
    assert [choice["prompt_token_ids"] for choice in found["choices"]] == twice
    assert [choice["text"] for choice in found["choices"]] == [TOKENIZER.decode(ids)[:1] for ids in twice]
    assert found["usage"]["prompt_tokens"] == sum(map(len, expected))
    assert found["usage"]["completion_tokens"] == sum(len(choice["token_ids"]) for choice in found["choices"])


def test_a_stream_tells_the_token_ids_of_prompt_and_answer_with_its_last_word():
    body = {"prompt": [[5, 6], [7]], "return_token_ids": True, "stream": True}
    events = ask(application(service(ScriptedEngine(ids_of("x")))), PATH, body).events
    ends = {choice["index"]: choice for event in events[:-1] for choice in event["choices"] if "token_ids" in choice}
    assert all(choice["finish_reason"] for choice in ends.values())
    told = [(ends[number]["prompt_token_ids"], ends[number]["token_ids"]) for number in sorted(ends)]
    assert told == [([5, 6], ids_of("x")), ([7], ids_of("x"))]


@pytest.mark.parametrize("stream", [False, True])
def test_echo_and_log_probabilities_stand_for_prompt_and_answer(stream):
    prompt, answer = TOKENIZER.encode("Où est-il?"), ids_of(" là")
    body = {"prompt": prompt, "echo": True, "logprobs": 2, "stream": stream}
    found = ask(application(service(ScriptedEngine(answer))), PATH, body)
    choices = (
        [choice for event in found.events[:-1] for choice in event["choices"]] if stream else found.json["choices"]
    )
    text = "".join(choice["text"] for choice in choices)
    logprobs: dict = {}
    for choice in choices:
        for name, values in choice["logprobs"].items():
            logprobs.setdefault(name, []).extend(values)
    ids = [*prompt, *answer]
    assert text == "Où est-il? là"
    assert logprobs["token_logprobs"] == [None, *(-token / 1000 for token in ids[1:])]
    assert len(logprobs["tokens"]) == len(logprobs["text_offset"]) == len(ids)
    assert logprobs["top_logprobs"][0] is None
    assert all(word in top for word, top in zip(logprobs["tokens"][1:], logprobs["top_logprobs"][1:], strict=True))
    for place, word in zip(logprobs["text_offset"], logprobs["tokens"], strict=True):
        assert word.startswith(("bytes:", "<｜")) or text.startswith(word, place)


def test_scores_alone_are_those_of_the_prompt():
    engine = ScriptedEngine(ids_of("x"))
    body = {"prompt": [5, 6, 7], "echo": True, "logprobs": 0, "max_tokens": 0}
    found = ask(application(service(engine)), PATH, body).json
    choice = found["choices"][0]
    assert choice["text"] == TOKENIZER.decode([5, 6, 7]) and choice["finish_reason"] == "length"
    assert choice["logprobs"]["token_logprobs"] == [None, -0.006, -0.007]
    assert found["usage"]["completion_tokens"] == 0


def test_an_answer_without_log_probabilities_has_none():
    assert first(ids_of("x"))["logprobs"] is None


REFUSED = [
    ({"prompt": None}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": ""}, "prompt"),
    ({"prompt": 5}, "prompt"),
    ({"prompt": [5000]}, "prompt[0]"),
    ({"prompt": [True]}, "prompt[0]"),
    ({"prompt": ["a", 5]}, "prompt[1]"),
    ({"prompt": [[]]}, "prompt[0]"),
    ({"prompt": [5] * 5000}, "prompt"),
    ({"prompt": "a" * 500000}, "prompt"),
    ({"prompt": ["a"] * 500}, "prompt"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"logprobs": True}, "logprobs"),
    ({"logprobs": 50}, "logprobs"),
    ({"suffix": "b"}, "suffix"),
    ({"best_of": 5}, "best_of"),
    ({"messages": []}, "messages"),
]


@pytest.mark.parametrize(("body", "field"), REFUSED)
def test_what_cannot_be_answered_is_refused_with_the_name_of_the_field(body, field):
    engine = ScriptedEngine(ids_of("x"))
    found = ask(application(service(engine)), PATH, {"prompt": "a"} | body)
    assert found.status == 400 and found.error["param"] == field, found.body
    assert not engine.jobs
