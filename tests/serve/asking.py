"""Requests to an ASGI application in the same process, without a socket."""

import asyncio
import json
from typing import Any


class Answer:
    """What came back."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The values of server-sent events, [DONE] as text."""
        lines = [line[6:] for line in self.body.decode().split("\n") if line.startswith("data: ")]
        return [line if line == "[DONE]" else json.loads(line) for line in lines]

    @property
    def error(self) -> dict[str, Any]:
        return self.json["error"]


def ask(app, path: str, body: Any = None, method: str | None = None, headers: dict[str, str] | None = None) -> Answer:
    """One request, and its whole answer. body: bytes as they are, else a JSON value."""
    raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    sent = {"host": "localhost", "content-type": "application/json"} | (headers or {})
    return asyncio.run(_asked(app, path, raw, method or ("GET" if body is None else "POST"), sent))


async def _asked(app, path: str, raw: bytes, method: str, headers: dict[str, str]) -> Answer:
    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": method,
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "scheme": "http",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "state": {},
    }  # fmt: skip
    requests = [{"type": "http.request", "body": raw, "more_body": False}]
    status, answered, pieces = 0, {}, []

    async def receive() -> dict:
        if requests:
            return requests.pop()
        await asyncio.Event().wait()  # the client stays
        raise AssertionError

    async def send(message: dict) -> None:
        nonlocal status, answered
        if message["type"] == "http.response.start":
            status = message["status"]
            answered = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            pieces.append(message.get("body", b""))

    await asyncio.wait_for(app(scope, receive, send), 60)
    return Answer(status, answered, b"".join(pieces))
