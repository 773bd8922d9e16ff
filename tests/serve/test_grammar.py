"""Constrained answers: whatever is drawn from what may come is well formed, and the schema's."""

import json
from itertools import cycle

import numpy as np
import pytest

import serve.needed  # noqa: F401
from dsv4.errors import ChatError
from dsv4.serve.fields import RequestError
from dsv4.serve.grammar import Grammars
from dsv4.text import chat
from dsv4.text.chat.tags import V41_TAGS
from dsv4.text.chat.templates import DSML
from serve.scripted import CONTROL_IDS, TOKENIZER

STOPS = frozenset({TOKENIZER.eos_id})
GRAMMARS = Grammars(TOKENIZER, TOKENIZER.vocab_size, STOPS)
OF_V41 = Grammars(TOKENIZER, TOKENIZER.vocab_size, STOPS, V41_TAGS)
SCHEMA = {
    "type": "object",
    "properties": {"kind": {"enum": ["a", "é"]}, "size": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["kind", "size"],
    "additionalProperties": False,
}
NAME = 'odd "name" <｜User｜> {name}'
TOOLS = [
    {"name": NAME, "parameters": {"type": "object", "properties": {"é": {"type": "string"}, "n": {"type": "boolean"}}}},
    {"name": "none"},
    {
        "name": "deep",
        "parameters": {
            "type": "object",
            "properties": {"a": {"$ref": "#/$defs/a"}, "b": {"enum": ["x"]}},
            "required": ["a"],
            "$defs": {"a": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2}},
        },
    },
]
ENDS = {CONTROL_IDS[token] for token in (DSML, "</think>")} | STOPS


def drawn(grammar, seed: int, patience: int = 12) -> list[int]:
    """An answer of tokens that may come, chosen by chance; what leads on is preferred once a text has become long."""
    random, ids, since = np.random.default_rng(seed), [], 0
    closing = cycle(TOKENIZER.encode("</"))
    while not ids or ids[-1] not in STOPS:
        allowed = np.nonzero(grammar.allowed())[0]
        leading = sorted(ENDS & set(allowed.tolist()))
        if since > patience and not leading and (token := next(closing)) in allowed:
            leading = [token]  # a text comes to its end by these characters
        ids.append(int(random.choice(leading if leading and since > patience else allowed)))
        since = 0 if ids[-1] in ENDS else since + 1
        grammar.accept(ids[-1])
        assert len(ids) < 3000
    return ids


def read(ids: list[int], thinking: bool, revision: str = "april") -> dict:
    """The message, which is well formed."""
    try:
        return chat.parse(TOKENIZER.decode_pieces(ids), "high" if thinking else "non-think", revision=revision)
    except ChatError as error:
        raise AssertionError(str(error)) from error


@pytest.mark.parametrize("thinking", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_an_answer_of_a_schema_is_json_of_it(seed, thinking):
    ids = drawn(GRAMMARS.json(SCHEMA, thinking, "response_format"), seed)
    message = read(ids, thinking)
    value = json.loads(message["content"])
    assert value.keys() == {"kind", "size"} and value["kind"] in ("a", "é") and 0 <= value["size"] <= 99
    assert not message["tool_calls"]


@pytest.mark.parametrize("thinking", [False, True])
@pytest.mark.parametrize("one", [False, True])
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("grammars", "revision"), [(GRAMMARS, "april"), (OF_V41, "v4.1")], ids=["v4", "v4.1"])
def test_calls_that_have_to_come_are_well_formed_and_the_tools_own(grammars, revision, seed, one, thinking):
    ids = drawn(grammars.calls(TOOLS, one, thinking, "tools"), seed)
    message = read(ids, thinking, revision)
    calls = [call["function"] for call in message["tool_calls"]]
    assert message["content"] == "" and (len(calls) == 1 if one else calls)
    for call in calls:
        arguments = json.loads(call["arguments"])
        if call["name"] == "none":
            assert arguments == {}
        elif call["name"] == NAME:
            assert set(arguments) <= {"é", "n"} and isinstance(arguments.get("é", ""), str)
            assert isinstance(arguments.get("n", True), bool)
        else:
            assert call["name"] == "deep" and set(arguments) - {"b"} == {"a"} and arguments.get("b", "x") == "x"
            assert all(isinstance(item, bool) for item in arguments["a"]) and len(arguments["a"]) <= 2


def test_without_calls_every_other_token_may_come():
    allowed = GRAMMARS.no_calls().allowed()
    assert np.nonzero(~allowed)[0].tolist() == [CONTROL_IDS[DSML]]


@pytest.mark.parametrize("schema", [{"type": "king"}, {"$ref": "#/$defs/none"}, {"pattern": "(", "type": "string"}])
def test_a_schema_that_cannot_be_followed_is_refused(schema):
    with pytest.raises(RequestError, match="response_format: expected a schema"):
        GRAMMARS.json(schema, False, "response_format")
