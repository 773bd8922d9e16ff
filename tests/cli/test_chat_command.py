"""`dsv4 chat` with a model whose answers are given: which prompts it gets, and what the user is told."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import tiny
from dsv4 import chat
from dsv4.cli import main, text
from dsv4.text.decode import Token
from dsv4.text.generate import generate
from dsv4.text.tokenizer import Tokenizer
from one_by_one import OneByOne

TOKENIZER = Tokenizer.from_file(Path(__file__).parents[1] / "data" / "tokenizer")
END = "<｜end▁of▁sentence｜>"
CONTEXT = 120


class Answer(list):
    """The ids of an answer, as a generation gives them."""

    def __iter__(self):
        return (Token(0, token_id) for token_id in super().__iter__())

    most_tokens = 100


def answer_of(words):
    """The ids of an answer in which what looks like a control token is one."""
    return TOKENIZER.encode(words, allow_special=True)


@pytest.fixture
def talk(monkeypatch, capsys, tmp_path):
    """Talk with a model: lines, its answers, options -> exit status, standard error, the prompts that the model got."""

    def run(lines, answers, *options, dspark=None, context=CONTEXT):
        prompts = []

        def generate(model, ids, *_, **__):
            prompts.append(TOKENIZER.decode_pieces(ids))
            return Answer(answers[len(prompts) - 1])

        typed = iter(lines)
        ends = (TOKENIZER.eos_id,)
        config = SimpleNamespace(max_position_embeddings=context, eos_token_ids=ends, dspark=dspark)
        checkpoint = SimpleNamespace(config=config, directory=tmp_path)
        model = SimpleNamespace(config=config, checkpoint=checkpoint, store=None)
        monkeypatch.setattr(text, "open_model", lambda *_: (model, TOKENIZER))
        monkeypatch.setattr(text, "generate", generate)
        monkeypatch.setattr("builtins.input", lambda _="": next(typed, ""))
        monkeypatch.setattr(sys, "argv", ["dsv4", "chat", *map(str, options)])
        with pytest.raises(SystemExit) as stopped:
            main()
            raise SystemExit(0)
        return stopped.value.code or 0, capsys.readouterr().err, prompts

    return run


def prompt_of(*contents, mode="non-think", revision="april"):
    """The pieces of a prompt from what user and assistant said in turn."""
    roles = ["user", "assistant"] * len(contents)
    messages = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=False)]
    return chat.encode_pieces(messages, mode, revision=revision)


def test_answers_go_into_the_next_prompt(talk):
    status, err, prompts = talk(["Hi", "Bye"], [answer_of(f"Hello{END}"), answer_of(f"Good bye{END}")])
    assert (status, err) == (0, "")
    assert prompts == [prompt_of("Hi"), prompt_of("Hi", "Hello", "Bye")]


@pytest.mark.parametrize(
    ("mode", "malformed"),
    [
        ("non-think", "a</think>b"),
        ("non-think", "｜DSML｜"),
        ("non-think", "half a\n\n<｜DSML｜tool_calls>\nx"),
        ("high", "no end of thinking"),
    ],
)
def test_a_malformed_answer_is_kept_as_text_without_its_end_token(talk, mode, malformed):
    status, err, prompts = talk(["Hi", "Bye"], [answer_of(malformed + END), answer_of(END)], "--mode", mode)
    assert status == 0
    assert err.startswith("(kept as plain text: completion: expected ")
    assert prompts[1] == prompt_of("Hi", malformed, "Bye", mode=mode)


def test_a_turn_reads_only_what_it_adds(monkeypatch):
    """Of the second prompt at most what follows the last but one token of the first, and the tokens of its answer."""
    model = tiny.model(OneByOne(), dtype=np.float32, vocab_size=1024)
    states, read, prompts = model.states, [], []

    def counted(ids, *rest):
        read[-1] += np.size(ids)
        return states(ids, *rest)

    def asked(model, ids, *rest, **settings):
        prompts.append(ids)
        read.append(0)
        return generate(model, ids, *rest, **settings)

    lines = iter(["Hello, how are you today?", "Good."])
    monkeypatch.setattr(model, "states", counted)
    monkeypatch.setattr(text, "generate", asked)
    monkeypatch.setattr(text, "open_model", lambda *_: (model, TOKENIZER))
    monkeypatch.setattr(text, "wanted_settings", lambda *_: {"temperature": 0.0, "top_p": 1.0, "stop_ids": ()})
    monkeypatch.setattr("builtins.input", lambda _="": next(lines, ""))
    monkeypatch.setattr(sys, "argv", ["dsv4", "chat", "-n", "4"])
    with pytest.raises(SystemExit, match="0"):
        main()
    first, second = map(len, prompts)
    assert read[0] == first + 3
    assert read[1] <= second - (first - 1) + 3 < second


def test_a_malformed_answer_that_ran_out_of_tokens_is_kept_whole(talk):
    _, err, prompts = talk(["Hi", "Bye"], [answer_of("a<｜User｜>"), answer_of(END)])
    assert err.startswith("(kept as plain text: completion: expected ")
    assert prompts[1] == prompt_of("Hi", "a<｜User｜>", "Bye")


def test_text_that_looks_like_a_control_token_is_no_malformed_answer(talk):
    words = "</think><｜User｜>\n\n<｜DSML｜tool_calls>\n"
    answers = [TOKENIZER.encode(words) + answer_of(END), answer_of(END)]
    status, err, prompts = talk(["Hi", "Bye"], answers)
    assert (status, err) == (0, "")
    assert prompts[1] == prompt_of("Hi", words, "Bye")


@pytest.mark.parametrize(
    ("dspark", "options", "mode", "revision"),
    [
        (None, [], "high", "april"),
        (object(), [], "high", "0731"),
        (object(), [], "low", "0731"),
        (object(), ["--revision", "april"], "high", "april"),
        (None, ["--revision", "0731"], "low", "0731"),
    ],
)
def test_the_efforts_have_the_texts_of_the_checkpoint_unless_told(talk, dspark, options, mode, revision):
    status, _, prompts = talk(["Hi"], [answer_of(END)], "--mode", mode, *options, dspark=dspark, context=400)
    assert (status, prompts) == (0, [prompt_of("Hi", mode=mode, revision=revision)])


def test_a_mode_that_the_revision_lacks_is_one_line_and_exit_status_2(talk):
    status, err, prompts = talk(["Hi"], [], "--mode", "low")
    assert (status, prompts) == (2, [])
    assert err == "dsv4: mode: expected one of non-think, high, max, as revision april has them, found 'low'\n"
    status, err, prompts = talk(["Hi"], [], "--revision", "June")
    assert (status, prompts) == (2, [])
    assert err == "dsv4: revision: expected one of auto, april, 0731, v4.1, v4.1-api, found 'June'\n"


def test_an_answer_that_ran_out_of_tokens_is_kept_as_far_as_it_is_clear(talk):
    _, err, prompts = talk(["Hi", "Bye"], [answer_of("ok\n\n<"), answer_of(END)])
    assert err == ""
    assert prompts[1] == prompt_of("Hi", "ok", "Bye")


def test_the_oldest_turns_are_left_out_of_a_conversation_that_outgrows_the_context(talk):
    lines = [f"{number} Hello there" for number in range(12)]
    answers = [f"answer {number}" for number in range(12)]
    status, err, prompts = talk(lines, [answer_of(words + END) for words in answers], "--system", "S", "-n", 20)
    assert status == 0
    said = [words for pair in zip(lines, answers, strict=True) for words in pair]
    begun = 0
    for number, prompt in enumerate(prompts):
        system = [chat.Control("<｜begin▁of▁sentence｜>"), chat.Text("S")]
        candidates = [system + prompt_of(*said[start : 2 * number + 1])[1:] for start in range(0, 2 * number + 1, 2)]
        fitting = [fits for fits in candidates if len(TOKENIZER.encode_pieces(fits)) <= CONTEXT - 20]
        assert prompt == fitting[0]
        begun = candidates.index(prompt)
    notes = re.findall(
        rf"\(the model reads at most {CONTEXT} tokens: the oldest (\d+) messages are left out from n", err
    )
    assert len(notes) == err.count("\n") > 1
    assert sum(map(int, notes)) == 2 * begun


def test_a_message_that_is_too_long_is_not_sent_and_the_conversation_goes_on(talk):
    long = "word " * CONTEXT
    status, err, prompts = talk(["Hi", long, "Bye"], [answer_of(f"Hello{END}"), answer_of(END)])
    assert status == 0
    length = len(TOKENIZER.encode_pieces(prompt_of(long.strip())))
    assert err == f"(not sent: the prompt would have {length} tokens, and the model reads at most {CONTEXT})\n"
    assert prompts == [prompt_of("Hi"), prompt_of("Hi", "Hello", "Bye")]


def test_a_message_that_fills_the_context_leaves_less_room_for_the_answer(talk):
    empty = len(TOKENIZER.encode_pieces(prompt_of("")))
    line = "!" * (CONTEXT - empty)
    assert len(TOKENIZER.encode_pieces(prompt_of(line))) == CONTEXT
    status, err, prompts = talk(["Hi", line], [answer_of(f"Hello{END}"), answer_of(END)])
    assert (status, prompts[1]) == (0, prompt_of(line))
    assert "the oldest 2 messages are left out" in err


def test_a_system_message_that_is_too_long_is_one_line_and_exit_status_2(talk):
    status, err, prompts = talk(["Hi"], [], "--system", "word " * CONTEXT)
    assert (status, prompts) == (2, [])
    assert err.startswith(f"dsv4: system message: expected a prompt of at most {CONTEXT} tokens, found ")
    assert err.count("\n") == 1


def test_input_that_is_no_text_is_one_line_and_exit_status_2(talk):
    def lines():
        yield "Hi"
        b"\xff".decode()

    status, err, prompts = talk(lines(), [answer_of(END)])
    assert (status, len(prompts)) == (2, 1)
    assert err == "dsv4: standard input: expected text in utf-8, found invalid start byte\n"
