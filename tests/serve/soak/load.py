"""Clients that ask, go away in the middle, or send what is no request; each reply is compared with its truth."""

import http.client
import json
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from serve.soak.pool import Question, difference
from serve.soak.process import ServerProcess
from serve.soak.said import ToldError, said

PATIENCE = 900
"""Seconds after which a reply counts as lost."""

MOST_FAULTS = 20
"""So many are described."""

JSON = {"content-type": "application/json"}


class CutError(Exception):
    """The connection ended before the reply did."""


class Load:
    """What some clients do, each in a thread of its own, until they are told to stop."""

    def __init__(self, server: ServerProcess, questions: Sequence[Question], clients: int, seed: int,
                 may_go_on: Callable[[], bool]) -> None:  # fmt: skip
        """may_go_on: whether a client may send now, or has to wait."""
        self._server, self._questions, self._may_go_on = server, questions, may_go_on
        self.counts = Counter[str]()
        self.answered = Counter[str]()
        self.faults: list[str] = []
        self.fault_count = 0
        self._lock, self._stopping = threading.Lock(), threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(seed, number)) for number in range(clients)]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Return when all clients have their last reply."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _run(self, seed: int, number: int) -> None:
        chance = random.Random(f"{seed} {number}")
        while not self._stopping.is_set():
            if not self._may_go_on():
                time.sleep(0.05)
                continue
            question, kind = chance.choice(self._questions), chance.random()
            try:
                if kind < 0.7:
                    self._ask(question)
                elif kind < 0.85:
                    self._abandon(question, chance)
                else:
                    self._misbehave(*chance.choice(BAD))
            except Exception as error:  # a client that ends would hide what it found
                self._fault(question.kind, f"{type(error).__name__}: {error}")

    def _ask(self, question: Question) -> None:
        """Ask until there is an answer; only a server that stops, or has much to do, may give none."""
        while True:
            life = self._server.life
            try:
                status, body = exchange(self._server.port, "POST", question.path, _raw(question.body), JSON)
                found = said(question.path, body, question.streams) if status == 200 else None
            except (CutError, ToldError, OSError) as error:
                if not self._server.has_stopped_since(life):
                    return self._fault(question.kind, f"{type(error).__name__}: {error}")
                self._note("asked again: server stopped")
            else:
                if found is not None:
                    wrong = difference(question, found)
                    return self._fault(question.kind, wrong) if wrong else self._answer(question)
                if status not in (429, 503) or (status == 503 and not self._server.has_stopped_since(life)):
                    return self._fault(question.kind, f"status {status}: {body[:300]!r}")
                self._note("asked again: server stopped" if status == 503 else "asked again: too many requests")
            time.sleep(0.2)
            while not self._server.is_up:
                if self._stopping.is_set():
                    return self._fault(question.kind, "the run ended without a server")
                time.sleep(0.1)

    def _abandon(self, question: Question, chance: random.Random) -> None:
        """Ask, and go away: before the end of the body, at once, after a while, or in the middle of the stream."""
        raw, life = _raw(question.body), self._server.life
        head = f"POST {question.path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        sent = f"{head}content-length: {len(raw)}\r\n\r\n".encode() + raw
        try:
            with socket.create_connection(("127.0.0.1", self._server.port), PATIENCE) as connection:
                connection.sendall(sent[: chance.choice([len(sent) // 2, len(sent), len(sent), len(sent)])])
                if question.streams and chance.random() < 0.5:
                    connection.recv(chance.choice([100, 2000]))
                else:
                    time.sleep(chance.random() ** 2)
        except OSError:
            if not self._server.has_stopped_since(life):
                raise
        self._note("gone away")

    def _misbehave(self, name: str, wanted: int, method: str, path: str, raw: bytes, headers: dict[str, str]) -> None:
        """Send what is refused with a known status."""
        life = self._server.life
        try:
            status, body = exchange(self._server.port, method, path, raw, headers)
        except (CutError, OSError) as error:
            if not self._server.has_stopped_since(life):
                self._fault(name, f"{type(error).__name__}: {error}")
            return
        if status == 503 and self._server.has_stopped_since(life):
            return
        if status != wanted:
            self._fault(name, f"expected status {wanted}, found {status}: {body[:300]!r}")
        elif not json.loads(body)["error"]["message"]:
            self._fault(name, f"expected a message, found {body[:300]!r}")
        else:
            self._note("refused")

    def _answer(self, question: Question) -> None:
        with self._lock:
            self.answered[f"{question.kind}, {'stream' if question.streams else 'whole'}"] += 1
            self.counts["answered"] += 1
            self.counts["tokens compared"] += sum(len(one.ids or ()) for one in question.expected)

    def _note(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1

    def _fault(self, kind: str, what: str) -> None:
        with self._lock:
            self.fault_count += 1
            if len(self.faults) < MOST_FAULTS:
                self.faults.append(f"{time.strftime('%H:%M:%S')} life {self._server.life}, {kind}: {what[:1000]}")


def exchange(port: int, method: str, path: str, raw: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
    """One request on a connection of its own: status and body. Raises CutError or OSError."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request(method, path, raw, headers | {"connection": "close"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except http.client.HTTPException as error:
        raise CutError(f"{type(error).__name__}: {error}") from error
    finally:
        connection.close()


def _raw(value: Any) -> bytes:
    return json.dumps(value).encode()


def _bad_chat(name: str, **more: Any) -> tuple[str, int, str, str, bytes, dict[str, str]]:
    body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4} | more
    return (name, 400, "POST", "/v1/chat/completions", _raw(body), JSON)


BAD = [
    ("no JSON", 400, "POST", "/v1/chat/completions", b'{"messages": [', JSON),
    ("no object", 400, "POST", "/v1/completions", b"[1, 2]", JSON),
    ("no UTF-8", 400, "POST", "/v1/messages", b'{"model": "\xff"}', JSON),
    ("deep", 400, "POST", "/v1/completions", b"[" * 5000 + b"]" * 5000, JSON),
    ("half a pair", 400, "POST", "/v1/completions", b'{"prompt": "\\ud800"}', JSON),
    ("form", 415, "POST", "/v1/chat/completions", b"{}", {"content-type": "text/plain"}),
    ("too large", 413, "POST", "/v1/completions", b'{"prompt": "' + b"x" * 70_000 + b'"}', JSON),
    ("no such path", 404, "POST", "/v1/nothing", b"{}", JSON),
    ("no such method", 405, "GET", "/v1/chat/completions", b"", {}),
    ("foreign host", 403, "POST", "/v1/completions", b"{}", JSON | {"host": "example.org"}),
    ("token not there", 400, "POST", "/v1/completions", _raw({"prompt": [1, 10**6]}), JSON),
    ("too long", 400, "POST", "/v1/completions", _raw({"prompt": [5] * 5000}), JSON),
    _bad_chat("unknown field", beams=4),
    _bad_chat("too hot", temperature=9),
    _bad_chat("no token", max_tokens=0),
    _bad_chat("no message", messages=[]),
    _bad_chat("unknown role", messages=[{"role": "king", "content": "Hello"}]),
    _bad_chat("penalty", frequency_penalty=1.5),
    _bad_chat("tool without tools", tool_choice="required"),
    _bad_chat("no schema", response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": 1}}),
    _bad_chat("schema unknown", response_format={"type": "json_schema", "json_schema": {
        "name": "a", "schema": {"type": "object", "properties": {"a": {"$ref": "#/nowhere"}}}}}),
]  # fmt: skip
"""A name, the status of the refusal, and the request."""
