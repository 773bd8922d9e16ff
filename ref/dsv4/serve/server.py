"""The server that runs the application: uvicorn, with an end for clients that are too slow, and an orderly stop."""

import asyncio
import logging
import socket
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from dsv4.errors import SettingError, reason
from dsv4.serve.app import application
from dsv4.serve.service import Service

LOG = logging.getLogger("dsv4.serve")

MOST_CONNECTIONS = 256
"""Beyond these, requests get status 503 at once."""

HEAD_SECONDS = 10.0
"""From the beginning of a connection, or the end of an answer, to the end of the next request's head."""

IDLE_SECONDS = 5
"""How long a connection stays open without a byte of a next request."""

DRAIN_SECONDS = 30.0
"""How long a client may leave what is ready for it lying there: the buffer of a connection, or the end of an answer."""

MOST_HEAD_BYTES = 16 * 2**10


class Server(uvicorn.Server):
    """Serves a service until it is told to stop; `run` returns then. `should_exit = True` tells it from any thread."""

    def __init__(self, service: Service, host: str = "127.0.0.1", port: int = 8000, grace: float = 30.0) -> None:
        """Bind to an address; port 0 takes a free one. grace: seconds that answers have to come to their end at a stop.

        Raises SettingError for an address that cannot be had.
        """
        self._engine, self._grace = service.engine, grace
        self._socket = _bound(host, port)
        super().__init__(_settings(application(service, host), grace))

    @property
    def address(self) -> str:
        """The server's address for clients."""
        host, port = self._socket.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve. At a signal to end, jobs that run have their time to finish, and are then told that they do not."""
        try:
            super().run(sockets=[self._socket])
        finally:
            self._engine.stop(finish=False)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, and wait for those that there are."""
        figures = self._engine.figures()
        if figures.running or figures.waiting:
            left = f"{figures.running} running, {figures.waiting} waiting"
            LOG.warning("stopping: %s; they have %g s to finish", left, self._grace)
        stopping = asyncio.create_task(asyncio.to_thread(self._engine.stop, True, self._grace))
        await super().shutdown(sockets)
        if not self.force_exit:
            await stopping


class _Connection(H11Protocol):
    """A connection that is cut off when the client is too slow to ask, or to take its answer."""

    _waiting: asyncio.TimerHandle | None = None  # for the head of a request
    _draining: asyncio.TimerHandle | None = None  # for the end of an answer
    _full: asyncio.TimerHandle | None = None  # for the buffer to empty

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for timer in (self._waiting, self._draining, self._full):
            _cancel(timer)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._full = self.loop.call_later(DRAIN_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        _cancel(self._full)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            _cancel(self._waiting)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._await_head()
        _cancel(self._draining)
        self._draining = self.loop.call_later(DRAIN_SECONDS, self._end_if_full)

    def _await_head(self) -> None:
        _cancel(self._waiting)
        self._waiting = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _end_if_full(self) -> None:
        is_idle = self.cycle is None or self.cycle.response_complete
        if is_idle and self.transport.get_write_buffer_size():
            self.transport.abort()


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


def _settings(app: ASGIApp, grace: float) -> uvicorn.Config:
    settings: dict[str, Any] = {
        "http": _Connection,
        "loop": "asyncio",
        "ws": "none",
        "lifespan": "off",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
        "limit_concurrency": MOST_CONNECTIONS,
        "timeout_keep_alive": IDLE_SECONDS,
        "timeout_graceful_shutdown": int(grace) + 5,
        "h11_max_incomplete_event_size": MOST_HEAD_BYTES,
    }
    return uvicorn.Config(app, **settings)


def _bound(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=MOST_CONNECTIONS)
    except (OSError, OverflowError, UnicodeError) as error:
        raise SettingError(
            f"--host {host} --port {port}: expected an address to serve at, found: {reason(error)}"
        ) from error
