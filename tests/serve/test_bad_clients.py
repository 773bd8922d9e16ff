"""Clients that are slow, many, or gone: each is answered or cut off, and none harms another."""

import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import serve.needed  # noqa: F401
from dsv4.serve import server as server_module
from dsv4.serve.engine import Engine
from dsv4.serve.service import Limits
from serve.scripted import MODEL, ScriptedEngine, ids_of
from serve.serving import serving

WAIT = 60
"""Seconds after which a test that hangs fails."""


def request(path: str = "/v1/chat/completions", length: int | None = None, **more) -> bytes:
    """A whole request; length: what its head says instead of the truth."""
    body = json.dumps({"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 5} | more).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {length or len(body)}\r\n\r\n".encode() + body


def connected(server) -> socket.socket:
    host, port = server.address.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), WAIT)


def all_of(connection: socket.socket) -> bytes:
    """Everything until the server closes the connection, or cuts it off."""
    pieces = []
    try:
        while piece := connection.recv(2**16):
            pieces.append(piece)
    except ConnectionResetError:
        pass
    return b"".join(pieces)


def status_of(server, sent: bytes) -> int:
    """The status of the answer to a request on a connection of its own."""
    with connected(server) as connection:
        connection.sendall(sent.replace(b"host:", b"connection: close\r\nhost:", 1))
        return int(all_of(connection).split(b" ", 2)[1])


def test_a_client_that_never_ends_its_head_is_cut_off_and_others_are_answered(monkeypatch):
    monkeypatch.setattr(server_module, "HEAD_SECONDS", 0.2)
    with serving(ScriptedEngine(ids_of("x"))) as server, connected(server) as nothing, connected(server) as slow:
        slow.sendall(b"POST / HTTP/1.1\r\nhost: loc")
        assert status_of(server, request()) == 200
        assert all_of(slow) == all_of(nothing) == b""


def test_so_is_one_that_never_ends_its_second_head(monkeypatch):
    monkeypatch.setattr(server_module, "HEAD_SECONDS", 0.2)
    with serving(ScriptedEngine(ids_of("x"))) as server, connected(server) as slow:
        slow.sendall(request() + b"POST / HTTP")
        assert all_of(slow).startswith(b"HTTP/1.1 200")


def test_a_client_that_never_ends_its_body_is_told_so():
    with serving(ScriptedEngine(ids_of("x")), limits=Limits(body_seconds=0.2)) as server, connected(server) as slow:
        slow.sendall(request(length=1000))
        assert slow.recv(2**16).startswith(b"HTTP/1.1 408")


def test_a_head_that_is_too_large_is_refused():
    with serving(ScriptedEngine(ids_of("x"))) as server, connected(server) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\nx: " + b"x" * 2**17)
        assert all_of(connection).startswith(b"HTTP/1.1 400")
        assert status_of(server, request()) == 200


def test_a_client_that_takes_nothing_is_cut_off(monkeypatch):
    monkeypatch.setattr(server_module, "DRAIN_SECONDS", 0.2)
    answer = ids_of("word " * 3000, end=False)
    with serving(ScriptedEngine(lambda job: answer)) as server, connected(server) as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.sendall(request(stream=True, max_tokens=4000, n=2, logprobs=True, top_logprobs=20))
        assert status_of(server, request()) == 200
        until(lambda: not server.server_state.connections)


def test_two_hundred_clients_are_each_answered():
    engine = Engine(MODEL, running=16, waiting=48)
    with serving(engine) as server, ThreadPoolExecutor(200) as pool:
        sent = [request(max_tokens=2, seed=number, stream=number % 2 == 0) for number in range(200)]
        statuses = list(pool.map(lambda each: status_of(server, each), sent))
    assert set(statuses) <= {200, 429} and statuses.count(200) >= 64


def test_more_connections_than_there_may_be_are_told_so(monkeypatch):
    monkeypatch.setattr(server_module, "MOST_CONNECTIONS", 4)
    with serving(ScriptedEngine(ids_of("x"))) as server:
        held = [connected(server) for _ in range(6)]
        until(lambda: len(server.server_state.connections) == 6)
        assert status_of(server, request()) == 503
        for connection in held:
            connection.close()
        until(lambda: not server.server_state.connections)
        assert status_of(server, request()) == 200


def test_a_stop_lets_answers_finish():
    engine = ScriptedEngine(ids_of("all of it"))
    engine.held.clear()
    with serving(engine) as server:
        connection = connected(server)
        connection.sendall(request())
        until(lambda: engine.jobs)
        server.should_exit = True
        until(lambda: not server.servers[0].is_serving())
        engine.held.set()
        with connection:
            assert b"all of it" in all_of(connection)


def test_a_stop_tells_those_who_do_not_finish():
    engine = Engine(MODEL)
    with serving(engine, grace=0.1) as server, connected(server) as whole, connected(server) as streamed:
        for connection, stream in ((whole, False), (streamed, True)):
            connection.sendall(request(max_tokens=4000, stream=stream, response_format={"type": "json_object"}))
        until(lambda: engine.figures().running == 2)
        server.should_exit = True
        assert b"503 Service Unavailable" in (answer := all_of(whole)) and b"the server stops" in answer
        assert b"the server stops" in all_of(streamed)


def until(is_so) -> None:
    """Waits for what another thread does; a test that waits for too long hangs, and pytest says where."""
    while not is_so():
        threading.Event().wait(0.01)
