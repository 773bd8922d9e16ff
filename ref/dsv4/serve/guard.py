"""What stands before every request: the key, the name of the host, one line in the log, and the count."""

import asyncio
import hmac
import ipaddress
import logging
import time
from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dsv4.errors import quoted
from dsv4.serve.errors import as_request_error
from dsv4.serve.fields import RequestError
from dsv4.serve.metrics import Metrics
from dsv4.serve.responses import GONE, error_response
from dsv4.serve.work import Account

LOG = logging.getLogger("dsv4.serve")

OPEN_PATHS = ("/", "/health")
"""Answered without a key: they tell nothing, and the page asks for the key itself."""


class Guard:
    """Passes requests on to an application, refuses those that may not come in, and says what became of each."""

    def __init__(self, app: ASGIApp, metrics: Metrics, api_key: str | None, host: str, paths: Collection[str]) -> None:
        """host: what the server is bound to. paths: those that are counted by their name."""
        self._app, self._metrics, self._paths = app, metrics, frozenset(paths)
        self._api_key = None if api_key is None else api_key.encode()
        self._is_local = _is_loopback(host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, account, status = time.monotonic(), Account(), GONE
        scope.setdefault("state", {})["account"] = account

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            try:
                self._check(scope)
            except RequestError as error:
                await error_response(error)(scope, receive, noting)
            else:
                await self._app(scope, receive, noting)
        except (Exception, asyncio.CancelledError) as error:  # what a request does ends no more than this request
            refused = as_request_error(error)
            if status == GONE:
                await error_response(refused)(scope, receive, noting)
        finally:
            self._note(scope, status, time.monotonic() - begun, account)

    def _check(self, scope: Scope) -> None:
        """Raises RequestError for a request that may not come in."""
        headers = Headers(scope=scope)
        if self._is_local and not _is_loopback(_host_of(headers.get("host", "localhost"))):
            # a foreign web page whose name has been made to lead here
            raise RequestError(f"host: expected a name of this machine, found {quoted(headers['host'])}", status=403)
        if self._api_key is None or scope["path"] in OPEN_PATHS:
            return
        kind, _, token = headers.get("authorization", "").partition(" ")
        given = token if kind.lower() == "bearer" else headers.get("x-api-key", "")
        if not hmac.compare_digest(given.strip().encode(), self._api_key):
            expected = "expected the key of this server as a bearer token"
            raise RequestError(f"authorization: {expected}, found another or none", status=401, code="invalid_api_key")

    def _note(self, scope: Scope, status: int, seconds: float, account: Account) -> None:
        path = scope["path"] if scope["path"] in self._paths else "other"
        self._metrics.requests.labels(path, str(status)).inc()
        self._metrics.duration.labels(path).observe(seconds)
        client = (scope.get("client") or ("-",))[0]
        line = f"{client} {scope['method']} {scope['path'][:60]!r} {status} {seconds:.3f} s"
        if account.prompt:
            line += f", {account.prompt} prompt ({account.cached} cached) + {account.tokens} tokens"
        if account.reasons:
            line += f", {', '.join(account.reasons)}"
        if account.content:
            line += f", {account.content!r}"
        LOG.info("%s", line)


def _host_of(header: str) -> str:
    """The name in a Host header, without the port."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
