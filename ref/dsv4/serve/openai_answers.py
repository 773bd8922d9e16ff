"""Answers to a conversation in OpenAI's form: whole, or as a stream of chunks."""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from uuid import uuid4

from dsv4.serve.job import LogProb
from dsv4.serve.markup import Arguments, CallBegun, CallEnded, Content, Reasoning
from dsv4.serve.openai_chat import ChatRequest
from dsv4.serve.reply import Given
from dsv4.serve.service import Service
from dsv4.serve.work import STREAM_PAUSE, WHOLE_PAUSE, Finished, Told, Work

LEAST_LOGPROB = -9999.0
"""What stands for the logarithm of 0, which JSON has not."""


Chunks = list[dict[str, Any]]
"""What a stream is sent together."""


async def whole_answer(service: Service, request: ChatRequest, work: Work, ids: Sequence[int]) -> dict[str, Any]:
    """The body of a response, when all answers are there. Raises RequestError for one that fails."""
    choices = [_Choice(service, number) for number in range(len(work.replies))]
    async for told in work.batches(WHOLE_PAUSE):
        for number, part in told:
            choices[number].take(part)
    described = [choice.body(request.wants_logprobs) for choice in choices]
    body = _head(service, "chat.completion") | {"choices": described, "usage": work.usage()}
    if request.wants_ids:
        body["prompt_token_ids"] = list(ids)
        for choice, reply in zip(described, work.replies, strict=True):
            choice["token_ids"] = reply.ids
    return body


async def chunks(service: Service, request: ChatRequest, work: Work, ids: Sequence[int]) -> AsyncIterator[Chunks]:
    """The same as chunks, each as soon as it is certain; those that are certain at the same time together."""
    head = _head(service, "chat.completion.chunk")
    usage = {"usage": None} if request.counts_in_stream else {}
    first = [_chunk(number, {"role": "assistant", "content": ""}) for number in range(len(work.replies))]
    begun = [head | {"choices": [choice]} | usage for choice in first]
    if request.wants_ids:
        begun[0]["prompt_token_ids"] = list(ids)
    yield begun
    async for told in work.batches(STREAM_PAUSE):
        choices = [_chunk_of(service, request, work, number, part) for number, part in told]
        yield [head | {"choices": [choice]} | usage for choice in choices if choice]
    if request.counts_in_stream:
        yield [head | {"choices": [], "usage": work.usage()}]


def _chunk_of(service: Service, request: ChatRequest, work: Work, number: int, part: Told) -> dict[str, Any] | None:
    """The choice in the chunk that a part of an answer makes, if it makes one."""
    if isinstance(part, Finished):
        ids = {"token_ids": work.replies[number].ids} if request.wants_ids else {}
        return _chunk(number, {}, part.reason) | {"stop_reason": part.note} | ids
    delta = _delta(part) if isinstance(part, Given) else None
    if not isinstance(part, Given) or not delta:
        return None
    return _chunk(number, delta, logprobs=_logprobs(service, part) if request.wants_logprobs else None)


def token_words(service: Service, token: int, logprob: float) -> dict[str, Any]:
    """A token with its log-probability, as OpenAI describes it."""
    raw = service.tokenizer.token_bytes(token)
    return {"token": raw.decode(errors="replace"), "logprob": max(logprob, LEAST_LOGPROB), "bytes": list(raw)}


class _Choice:
    """One answer, gathered."""

    def __init__(self, service: Service, number: int) -> None:
        self._service, self._number = service, number
        self._reasoning: list[str] = []
        self._content: list[str] = []
        self._calls: list[dict[str, Any]] = []
        self._logprobs: dict[str, list[Any]] = {"content": [], "reasoning_content": []}
        self._finished = Finished("stop", None)

    def take(self, part: Told) -> None:
        match part:
            case Finished():
                self._finished = part
            case Given(part=Reasoning(text=text)):
                self._reasoning.append(text)
            case Given(part=Content(text=text)):
                self._content.append(text)
            case Given(part=CallBegun(name=name)):
                function = {"name": name, "arguments": ""}
                self._calls.append({"id": _call_id(), "type": "function", "function": function})
            case Given(part=Arguments(text=text)):
                self._calls[-1]["function"]["arguments"] += text
        if isinstance(part, Given):
            for kind, words in _logprobs(self._service, part).items():
                self._logprobs[kind] += words

    def body(self, with_logprobs: bool) -> dict[str, Any]:
        """The choice; of calls that were cut, none is in it, so that nobody does half of what the model asked for."""
        has_calls = self._finished.reason == "tool_calls"
        content = "".join(self._content)
        message: dict[str, Any] = {"role": "assistant", "content": None if has_calls and not content else content}
        if self._reasoning:
            message["reasoning_content"] = "".join(self._reasoning)
        if has_calls:
            message["tool_calls"] = self._calls
        return {
            "index": self._number,
            "message": message,
            "logprobs": {**self._logprobs, "refusal": None} if with_logprobs else None,
            "finish_reason": self._finished.reason,
            "stop_reason": self._finished.note,
        }


def _head(service: Service, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{uuid4().hex}", "object": kind, "created": int(time.time()), "model": service.name}


def _chunk(number: int, delta: Mapping[str, Any], reason: str | None = None, logprobs: Any = None) -> dict[str, Any]:
    return {"index": number, "delta": delta, "logprobs": logprobs, "finish_reason": reason}


def _delta(given: Given) -> dict[str, Any]:
    """What a part adds to a message. A call comes with its id and its name at once, its arguments after that."""
    match given.part:
        case Reasoning(text=text):
            return {"reasoning_content": text}
        case Content(text=text):
            return {"content": text}
        case CallBegun(number=number, name=name):
            function = {"name": name, "arguments": ""}
            return {"tool_calls": [{"index": number, "id": _call_id(), "type": "function", "function": function}]}
        case Arguments(number=number, text=text):
            return {"tool_calls": [{"index": number, "function": {"arguments": text}}]}
        case CallEnded():
            return {}


def _logprobs(service: Service, given: Given) -> dict[str, list[Any]]:
    kind = "reasoning_content" if isinstance(given.part, Reasoning) else "content"
    return {kind: [_likely(service, found) for found in given.logprobs]}


def _likely(service: Service, found: LogProb) -> dict[str, Any]:
    top = [token_words(service, token, logprob) for token, logprob in found.top]
    return token_words(service, found.token, found.logprob) | {"top_logprobs": top}


def _call_id() -> str:
    return f"call_{uuid4().hex[:24]}"
