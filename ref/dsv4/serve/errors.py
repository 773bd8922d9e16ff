"""What went wrong, as clients are told: the status of HTTP, and OpenAI's form of an error."""

import asyncio
import logging
from typing import Any

from dsv4.errors import DSV4Error
from dsv4.serve.engine import Full, Stopped
from dsv4.serve.fields import RequestError, named

LOG = logging.getLogger("dsv4.serve")

KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


def as_request_error(error: BaseException) -> RequestError:
    """What a client is told of an exception; what is no fault of the request is written to the log, and not told."""
    match error:
        case RequestError():
            return error
        case Full():
            return RequestError(f"too many requests: {error}", status=429, code="too_many_requests")
        case Stopped() | asyncio.CancelledError():  # the latter is what the server does when its time to stop is over
            return RequestError("the server stops", status=503)
        case DSV4Error():
            return named(error)
    LOG.error("a request failed", exc_info=error)
    return RequestError("the server failed on this request; its log says why", status=500)


def described(error: RequestError) -> dict[str, Any]:
    """OpenAI's form, which is Anthropic's as well."""
    kind = KINDS.get(error.status, "invalid_request_error" if error.status < 500 else "server_error")
    return {"type": "error", "error": {"message": str(error), "type": kind, "param": error.field, "code": error.code}}
