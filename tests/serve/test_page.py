"""The page at `/` in a real headless Chromium, talking with a real server; nothing else is asked for anything."""

import json
import time

import pytest

import serve.needed  # noqa: F401
from dsv4.serve.engine import Engine
from explain.browser import SECONDS
from serve.scripted import MODEL, TOKENIZER, ScriptedEngine, ids_of
from serve.serving import serving
from serve.test_chat_completions import ADD, call_text


@pytest.fixture
def page(chromium):
    """A browser that has to have no complaint in the end, and to have asked nobody but the server."""
    chromium.complaints.clear()
    chromium.requests.clear()
    yield chromium
    assert chromium.complaints == []


def show(page, server) -> None:
    page.resize(1000, 800)
    page.send("Page.navigate", url="about:blank")
    page.send("Page.navigate", url=server.address)
    until(page, "document.documentElement?.dataset.ready === 'true'")


def until(page, expression: str) -> None:
    begun = time.monotonic()
    while not page.run(expression):
        assert time.monotonic() - begun < SECONDS, (expression, page.complaints, page.run("document.body.innerText"))
        time.sleep(0.02)


def say(page, text: str) -> None:
    """Type a message, send it, and wait for the whole answer."""
    page.run(f"document.getElementById('text').value = {json.dumps(text)}")
    page.click("#send")
    until(page, "!running && document.querySelectorAll('.model').length > 0")


def text_of(page, selector: str) -> str:
    return page.run(f"[...document.querySelectorAll({json.dumps(selector)})].map((each) => each.textContent).join('|')")


def test_a_conversation_with_reasoning_folded_and_figures(page):
    answers = iter([ids_of("Hm <b>.</think>An <i>answer</i>."), ids_of("More.</think>Again.")])
    engine = ScriptedEngine(lambda job: next(answers))
    engine.cached = 7
    with serving(engine) as server:
        show(page, server)
        assert text_of(page, "#mode option") == "non-think|high|max"
        page.run("document.getElementById('mode').value = 'high'")
        say(page, "Hello <script>")
        assert text_of(page, ".user .said") == "Hello <script>"
        assert text_of(page, ".model > .said") == "An <i>answer</i>."
        assert text_of(page, ".reasoning .said") == "Hm <b>."
        assert page.run("document.querySelector('.reasoning').open") is False
        assert "tokens/s" in text_of(page, ".speed") and "(7 of them before)" in text_of(page, ".figures")
        say(page, "And?")
        assert text_of(page, ".model > .said") == "An <i>answer</i>.|Again."
        assert {url.startswith((server.address, "about:")) for url in page.requests} == {True}
    assert TOKENIZER.decode(engine.jobs[1].ids).endswith(
        "An <i>answer</i>.<｜end▁of▁sentence｜><｜User｜>And?<｜Assistant｜><think>"
    )


def test_a_tool_is_shown_and_answered(page):
    answers = iter([ids_of("Yes." + call_text({"a": 1, "why": "<b>"})), ids_of("It is 1.")])
    engine = ScriptedEngine(lambda job: next(answers))
    with serving(engine) as server:
        show(page, server)
        page.run("document.getElementById('settings').open = true")
        page.run(f"document.getElementById('tools').value = {json.dumps(json.dumps([ADD]))}")
        say(page, "1?")
        assert json.loads(text_of(page, ".call pre")) == {"a": 1, "why": "<b>"} and text_of(page, ".call b") == "add"
        page.run("document.querySelector('.result').value = '1'")
        page.click(".results")
        until(page, "!running && document.querySelectorAll('.model').length === 2")
        assert text_of(page, ".model > .said") == "Yes.|It is 1."


def test_an_error_is_told(page):
    with serving(ScriptedEngine(ids_of("x", end=False), "error", "logits: no number")) as server:
        show(page, server)
        say(page, "Hello")
        assert "logits: no number" in text_of(page, ".wrong")


def test_a_key_is_asked_for(page):
    with serving(ScriptedEngine(ids_of("x")), api_key="sesame") as server:
        show(page, server)
        assert "key" in text_of(page, "#model")
        page.complaints.clear()  # the browser's own line about status 401
        page.run("document.getElementById('key').value = 'sesame'; document.getElementById('key').onchange()")
        until(page, "document.querySelectorAll('#mode option').length === 3")
        say(page, "Hello")
        assert text_of(page, ".model > .said") == "x"


def test_an_answer_can_be_looked_into(page):
    with serving(Engine(MODEL)) as server:
        show(page, server)
        page.run("document.getElementById('max_tokens').value = 6")
        say(page, "Who hath the ring?")
        page.click(".look")
        inside = "document.querySelector('dialog iframe')?.contentDocument?.documentElement"
        until(page, f"{inside}?.dataset.ready === 'true'")
        assert "ring" in page.run(f"{inside}.innerText")
        assert {url.split(":")[0] for url in page.requests} <= {"http", "blob", "about", "data"}


def test_an_answer_can_be_stopped(page):
    engine = ScriptedEngine(ids_of("x"))
    engine.held.clear()
    with serving(engine) as server:
        show(page, server)
        page.run("document.getElementById('text').value = 'Hello'")
        page.click("#send")
        until(page, "running !== null")
        page.click("#stop")
        until(page, "!running")
        assert text_of(page, ".wrong") == "stopped"
        engine.held.set()
