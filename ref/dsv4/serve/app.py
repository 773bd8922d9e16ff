"""The application: which path leads where."""

import asyncio
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from dsv4.serve.anthropic_answers import message_events, whole_message
from dsv4.serve.anthropic_messages import read_messages_request
from dsv4.serve.body import read_fields
from dsv4.serve.chat_task import prepare
from dsv4.serve.errors import as_request_error
from dsv4.serve.fields import RequestError
from dsv4.serve.guard import Guard
from dsv4.serve.openai_answers import chunks, whole_answer
from dsv4.serve.openai_chat import read_chat_request
from dsv4.serve.openai_completions import completion_chunks, jobs_of, read_completion_request, whole_completion
from dsv4.serve.pages import POLICY, chat_page, explain_page
from dsv4.serve.responses import EventStream, error_response, openai_events, when_whole
from dsv4.serve.service import Service
from dsv4.serve.tokens import detokenized, tokenized, tokenizer_info
from dsv4.serve.work import Work
from dsv4.text.chat.templates import EFFORTS

Handler = Callable[[Service, Request], Awaitable[Response]]


def application(service: Service, host: str = "127.0.0.1") -> ASGIApp:
    """The endpoint of a service as an ASGI application. host: what the server that runs it is bound to."""
    routes = [
        _route("/", page, service),
        _route("/health", health, service),
        _route("/metrics", metrics, service),
        _route("/v1/models", models, service),
        _route("/tokenizer_info", described_tokenizer, service),
        _route("/tokenize", tokenize, service, "POST"),
        _route("/detokenize", detokenize, service, "POST"),
        _route("/explain", explain, service, "POST"),
        _route("/v1/chat/completions", chat_completions, service, "POST"),
        _route("/v1/completions", completions, service, "POST"),
        _route("/v1/messages", messages, service, "POST"),
        _route("/v1/messages/count_tokens", count_tokens, service, "POST"),
    ]
    paths = [route.path for route in routes]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _unknown})
    return Guard(app, service.metrics, service.api_key, host, paths)


async def page(service: Service, request: Request) -> Response:
    """The page to talk with the model."""
    return HTMLResponse(chat_page(), headers={"content-security-policy": POLICY, "x-content-type-options": "nosniff"})


async def explain(service: Service, request: Request) -> Response:
    """The page of `dsv4 explain` for a text."""
    fields = await read_fields(request, service.limits.body_bytes, service.limits.body_seconds)
    return HTMLResponse(await explain_page(fields, service), headers={"content-security-policy": POLICY})


async def health(service: Service, request: Request) -> Response:
    """That the server is there."""
    return JSONResponse({"status": "ok"})


async def metrics(service: Service, request: Request) -> Response:
    """What was counted."""
    return Response(service.metrics.page(service.engine), media_type="text/plain; version=0.0.4; charset=utf-8")


async def models(service: Service, request: Request) -> Response:
    """The one model that is served."""
    described = {"id": service.name, "object": "model", "created": 0, "owned_by": "dsv4"}
    known = {"max_model_len": service.context, "modes": list(EFFORTS[service.revision]), "mode": service.mode}
    return JSONResponse({"object": "list", "data": [described | known]})


async def described_tokenizer(service: Service, request: Request) -> Response:
    """What harnesses ask about the tokenizer."""
    return JSONResponse(tokenizer_info(service))


async def tokenize(service: Service, request: Request) -> Response:
    """From text to token ids."""
    fields = await read_fields(request, service.limits.body_bytes, service.limits.body_seconds)
    return JSONResponse(await asyncio.to_thread(tokenized, fields, service))


async def detokenize(service: Service, request: Request) -> Response:
    """From token ids to text."""
    fields = await read_fields(request, service.limits.body_bytes, service.limits.body_seconds)
    return JSONResponse(await asyncio.to_thread(detokenized, fields, service))


async def chat_completions(service: Service, request: Request) -> Response:
    """OpenAI's endpoint for conversations."""
    fields = await read_fields(request, service.limits.body_bytes, service.limits.body_seconds)
    asked = await asyncio.to_thread(read_chat_request, fields, service)
    prepared = await asyncio.to_thread(prepare, service, asked.task)
    work = Work(service, prepared.jobs, prepared.replies, request.state.account, asked.task.settings.choices)
    if asked.streams:
        return EventStream(work, openai_events(chunks(service, asked, work, prepared.ids)))
    return await when_whole(request, work, whole_answer(service, asked, work, prepared.ids))


async def completions(service: Service, request: Request) -> Response:
    """OpenAI's endpoint for texts."""
    fields = await read_fields(request, service.limits.body_bytes, service.limits.body_seconds)
    asked = await asyncio.to_thread(read_completion_request, fields, service)
    jobs, replies = jobs_of(service, asked)
    work = Work(service, jobs, replies, request.state.account, asked.settings.choices)
    if asked.streams:
        return EventStream(work, openai_events(completion_chunks(service, asked, work)))
    return await when_whole(request, work, whole_completion(service, asked, work))


async def messages(service: Service, request: Request) -> Response:
    """Anthropic's endpoint for conversations."""
    fields = await read_fields(request, service.limits.body_bytes, service.limits.body_seconds)
    asked = await asyncio.to_thread(read_messages_request, fields, service)
    prepared = await asyncio.to_thread(prepare, service, asked.task)
    work = Work(service, prepared.jobs, prepared.replies, request.state.account, 1)
    if asked.streams:
        return EventStream(work, message_events(service, work, asked.task.stops))
    return await when_whole(request, work, whole_message(service, work, asked.task.stops))


async def count_tokens(service: Service, request: Request) -> Response:
    """How many tokens the prompt of a conversation has, for Anthropic's clients."""
    fields = await read_fields(request, service.limits.body_bytes, service.limits.body_seconds)
    asked = await asyncio.to_thread(read_messages_request, fields, service, True)
    prepared = await asyncio.to_thread(prepare, service, asked.task)
    return JSONResponse({"input_tokens": len(prepared.ids)})


def _route(path: str, handler: Handler, service: Service, method: str = "GET") -> Route:
    async def endpoint(request: Request) -> Response:
        try:
            return await handler(service, request)
        except Exception as error:
            return error_response(as_request_error(error))

    return Route(path, endpoint, methods=[method])


async def _unknown(request: Request, error: Exception) -> Response:
    """A path or a method that there is not."""
    status = error.status_code if isinstance(error, HTTPException) else 404
    found = f"{request.method} {request.url.path[:60]!r}"
    return error_response(RequestError(f"expected a path and a method that are served, found {found}", status=status))
