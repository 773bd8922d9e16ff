"""Responses whose work ends when the client goes away."""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from dsv4.serve.errors import as_request_error, described
from dsv4.serve.fields import RequestError
from dsv4.serve.work import Work

GONE = 499
"""The status in the log where nobody waits for the answer any more."""

_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def error_response(error: RequestError) -> Response:
    """An error as a response of its own."""
    headers = {"retry-after": "1"} if error.status in (429, 503) else None
    return JSONResponse(described(error), error.status, headers)


async def when_whole(request: Request, work: Work, answer: Coroutine[Any, Any, dict[str, Any]]) -> Response:
    """The answer as JSON; if the client goes away before, the work ends. Raises what the answer raises."""
    with work:
        answering, leaving = asyncio.ensure_future(answer), asyncio.ensure_future(_left(request))
        try:
            await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
            return JSONResponse(answering.result()) if answering.done() else Response(status_code=GONE)
        finally:
            for task in (answering, leaving):
                task.cancel()
            await asyncio.gather(answering, leaving, return_exceptions=True)


class EventStream(StreamingResponse):
    """Server-sent events; if the client goes away before the end, even before the beginning, the work ends."""

    def __init__(self, work: Work, events: AsyncIterator[str]) -> None:
        """events: each with the empty line that ends it."""
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._work = work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        with self._work:
            await super().__call__(scope, receive, send)


async def openai_events(batches: AsyncIterator[list[dict[str, Any]]]) -> AsyncIterator[str]:
    """Chunks as OpenAI streams them; an error behind the first one is told in the stream, and ends it."""
    try:
        async for chunks in batches:
            if chunks:
                yield "".join([f"data: {written(chunk)}\n\n" for chunk in chunks])
    except Exception as error:
        yield f"data: {written(described(as_request_error(error)))}\n\n"
        return
    yield "data: [DONE]\n\n"


def written(value: Any) -> str:
    """A JSON value on one line."""
    return _ENCODER.encode(value)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
