"""From the bytes of a request to a JSON object: bounded in bytes, in time and in depth."""

import asyncio
import json
import math
import re
from typing import Any, NoReturn

from starlette.requests import ClientDisconnect, Request

from dsv4.errors import quoted
from dsv4.serve.fields import Fields, RequestError

DEEPEST = 64
"""How many lists and objects may lie within each other. What reads schemas and messages goes down by recursion."""

_SURROGATE = re.compile("[\ud800-\udfff]")


async def read_fields(request: Request, most_bytes: int, seconds: float) -> Fields:
    """The fields of a request's body.

    Raises RequestError for a body that is not called JSON, too large, too slow, or no JSON object that UTF-8 can hold.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # a form of a foreign web page cannot send this one unasked
        found = quoted(kind) if kind else "none"
        raise RequestError(f"content-type: expected application/json, found {found}", status=415)
    try:
        async with asyncio.timeout(seconds):
            raw = await _read(request, most_bytes)
    except TimeoutError:
        raise RequestError(f"body: expected all of it within {seconds:g} s, found less", status=408) from None
    return Fields(await asyncio.to_thread(parsed, raw))


def parsed(raw: bytes) -> Any:
    """The JSON value of a body. Raises RequestError for what is no JSON, nested too deeply, or no text of Unicode."""
    try:
        value = json.loads(raw.decode(), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else quoted(str(error))
        raise RequestError(f"body: expected JSON in UTF-8, found something else: {reason}") from None
    _check(value)
    return value


async def _read(request: Request, most: int) -> bytes:
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced[:20]) > most:
        raise _too_large(most)
    pieces, size = [], 0
    try:
        async for piece in request.stream():
            size += len(piece)
            if size > most:
                raise _too_large(most)
            pieces.append(piece)
    except ClientDisconnect:
        raise RequestError("body: expected all of it, found that the client is gone", status=499) from None
    return b"".join(pieces)


def _too_large(most: int) -> RequestError:
    return RequestError(f"body: expected at most {most} bytes, found more", status=413)


def _check(value: Any) -> None:
    """Raises RequestError for lone surrogates, numbers that no float holds, and what lies too deep."""
    level = [value]
    for _ in range(DEEPEST + 1):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(item)
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
            elif isinstance(item, str) and not item.isascii() and _SURROGATE.search(item):
                raise RequestError(f"body: expected text that UTF-8 can hold, found half a pair in {quoted(item)}")
            elif isinstance(item, float) and not math.isfinite(item):
                raise RequestError("body: expected numbers that a float can hold, found a larger one")
        level = inner
        if not level:
            return
    raise RequestError(f"body: expected at most {DEEPEST} lists and objects within each other, found more")


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")
