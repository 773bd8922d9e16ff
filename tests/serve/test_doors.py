"""What comes in and what does not: keys, hosts, sizes, malformed bodies; the log and the counters."""

import logging

import pytest

import serve.needed  # noqa: F401
from dsv4.serve.app import application
from dsv4.serve.service import Limits
from serve.asking import ask
from serve.scripted import ScriptedEngine, ids_of, service

CHAT = "/v1/chat/completions"
HELLO = {"messages": [{"role": "user", "content": "Hello SECRET"}]}


def app(script=None, host="127.0.0.1", **more):
    return application(service(ScriptedEngine(ids_of("answer WORD") if script is None else script), **more), host)


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/models", "/metrics"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer sesam"},
        {"authorization": "Bearer sesame1"},
        {"authorization": "Bearer "},
        {"authorization": "Bearer"},
        {"authorization": "Basic sesame"},
        {"x-api-key": "Sesame"},
        {"authorization": "Bearer s\xe9same"},
    ],
)
def test_without_the_key_nothing_is_answered(path, headers):
    found = ask(app(api_key="sesame"), path, HELLO if path == CHAT else None, headers=headers)
    assert found.status == 401 and found.error["code"] == "invalid_api_key"


@pytest.mark.parametrize("headers", [{"authorization": "Bearer sesame"}, {"x-api-key": "sesame"}])
def test_with_the_key_all_is_answered(headers):
    guarded = app(api_key="sesame")
    assert ask(guarded, CHAT, HELLO, headers=headers).status == 200
    assert ask(guarded, "/v1/models", headers=headers).json["data"][0]["id"] == "bundled"


def test_whether_the_server_is_there_is_no_secret():
    assert ask(app(api_key="sesame"), "/health").json == {"status": "ok"}


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "[::1]:80", "127.8.8.8"])
def test_a_local_server_answers_to_the_names_of_this_machine(host):
    assert ask(app(), "/health", headers={"host": host}).status == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "localhost.evil.example", "10.0.0.1"])
def test_a_local_server_answers_to_no_foreign_name(host):
    assert ask(app(), CHAT, HELLO, headers={"host": host}).status == 403
    assert ask(app(host="0.0.0.0"), CHAT, HELLO, headers={"host": host}).status == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_what_a_form_can_send_is_not_read(kind):
    assert ask(app(), CHAT, HELLO, headers={"content-type": kind}).status == 415


MALFORMED = {
    "nothing": b"",
    "no JSON": b"{",
    "a list": b"[]",
    "a number": b"5",
    "null": b"null",
    "NaN": b'{"temperature": NaN}',
    "too large a number": b'{"temperature": 1e999}',
    "too long a number": b'{"seed": ' + b"9" * 5000 + b"}",
    "no UTF-8": b'{"messages": "\xff"}',
    "a byte order mark": b"\xef\xbb\xbf{}",
    "half a pair": b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
    "half a pair as a name": b'{"\\udfff": 1}',
    "deep": b'{"messages": ' + b"[" * 65 + b"]" * 65 + b"}",
    "very deep": b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": b'{"a": ' * 70 + b"1" + b"}" * 70,
    "two values": b"{} {}",
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
def test_a_malformed_body_is_refused_in_one_line(path, body):
    found = ask(app(), path, body, "POST")
    assert found.status == 400 and found.error["type"] == "invalid_request_error"
    assert "\n" not in found.error["message"] and len(found.error["message"]) < 400


def test_a_body_that_is_too_large_is_refused():
    guarded = app(limits=Limits(body_bytes=1000))
    body = b'{"messages": "' + b"x" * 1000 + b'"}'
    assert ask(guarded, CHAT, body, "POST").status == 413
    assert ask(guarded, CHAT, body, "POST", {"content-length": "9" * 40}).status == 413
    assert ask(app(), CHAT, b" " * 10_000_000, "POST").status == 413


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", CHAT, 405), ("GET", "/x", 404), ("PUT", "/health", 405)]
)
def test_an_unknown_path_is_an_error_in_the_same_form(method, path, status):
    found = ask(app(), path, method=method)
    assert found.status == status and path in found.error["message"]


def test_what_fails_inside_is_not_told_but_logged(caplog):
    def broken(job):
        raise AssertionError

    engine = ScriptedEngine([])
    engine.submit = broken
    with caplog.at_level(logging.ERROR):
        found = ask(application(service(engine)), CHAT, HELLO)
    assert found.status == 500 and "broken" not in found.error["message"]
    assert "TypeError" in caplog.text and "broken" in caplog.text


def test_the_log_has_a_line_for_each_request_and_no_content(caplog):
    with caplog.at_level(logging.INFO):
        ask(app(), CHAT, HELLO)
        ask(app(), CHAT, HELLO | {"stream": True})
        ask(app(), CHAT, b"SECRET", "POST")
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 3 and all(line.startswith("127.0.0.1 POST '/v1/chat/completions'") for line in lines)
    assert "200" in lines[0] and "prompt" in lines[0] and lines[0].endswith("tokens, stop") and "400" in lines[2]
    assert not any(word in line for line in lines for word in ("SECRET", "WORD", "answer"))


def test_the_log_has_the_content_where_somebody_asked_for_it(caplog):
    with caplog.at_level(logging.INFO):
        ask(app(logs_content=True), CHAT, HELLO)
    assert "SECRET" in caplog.text and "answer WORD" in caplog.text and "\n" not in caplog.records[0].getMessage()


def test_the_counters_count():
    served = app()
    for _ in range(3):
        answer = ask(served, CHAT, HELLO).json
    ask(served, "/never/heard/of")
    text = ask(served, "/metrics").body.decode()
    assert f'dsv4_requests_total{{path="{CHAT}",status="200"}} 3.0' in text
    assert 'dsv4_requests_total{path="other",status="404"} 1.0' in text
    assert f'dsv4_tokens_total{{kind="prompt"}} {3.0 * answer["usage"]["prompt_tokens"]}' in text
    assert f'dsv4_tokens_total{{kind="completion"}} {3.0 * answer["usage"]["completion_tokens"]}' in text
    assert "dsv4_first_token_seconds_count 3.0" in text and "dsv4_engine_running 0.0" in text
