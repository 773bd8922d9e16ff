"""Text to token ids and back over HTTP."""

import pytest

import serve.needed  # noqa: F401
from dsv4.serve.app import application
from serve.asking import ask
from serve.scripted import CONTROL_IDS, TOKENIZER, ScriptedEngine, service

APP = application(service(ScriptedEngine([])))


@pytest.mark.parametrize("text", ["To be é😀", "a <｜User｜> b", ""])
def test_text_goes_there_and_back_and_holds_no_control_token(text):
    ids = ask(APP, "/tokenize", {"prompt": text, "add_special_tokens": False}).json["tokens"]
    assert ids == TOKENIZER.encode(text)
    assert ask(APP, "/detokenize", {"tokens": ids}).json == {"prompt": text}


def test_the_name_of_a_control_token_alone_is_that_token():
    info = ask(APP, "/tokenizer_info").json
    for name, number in ((info["bos_token"], TOKENIZER.bos_id), (info["eos_token"], TOKENIZER.eos_id)):
        assert CONTROL_IDS[name] == number
        assert ask(APP, "/tokenize", {"prompt": name}).json["tokens"] == [number]


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": 5}, "prompt"),
        ("/detokenize", {"tokens": "x"}, "tokens"),
        ("/detokenize", {"tokens": [5000]}, "tokens[0]"),
        ("/explain", {"ids": []}, "ids"),
        ("/explain", {"ids": [5] * 2000}, "ids"),
        ("/explain", {"ids": [-1]}, "ids[0]"),
        ("/explain", {"ids": [1], "out": "/etc/passwd"}, "out"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_the_name_of_the_field(path, body, field):
    found = ask(APP, path, body)
    assert found.status == 400 and found.error["param"] == field
