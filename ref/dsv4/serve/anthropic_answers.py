"""Answers to a conversation in Anthropic's form: whole, or as a stream of events."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import uuid4

from dsv4.serve.errors import as_request_error, described
from dsv4.serve.markup import Arguments, CallBegun, CallEnded, Content, Part, Reasoning
from dsv4.serve.reply import Given
from dsv4.serve.responses import written
from dsv4.serve.service import Service
from dsv4.serve.work import STREAM_PAUSE, WHOLE_PAUSE, Finished, Told, Work

REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


async def whole_message(service: Service, work: Work, stops: tuple[str, ...]) -> dict[str, Any]:
    """The body of a response, when the answer is there. Raises RequestError for one that fails."""
    blocks: list[dict[str, Any]] = []
    finished = Finished("stop", None)
    async for told in work.batches(WHOLE_PAUSE):
        for _, part in told:
            if isinstance(part, Finished):
                finished = part
            elif isinstance(part, Given):
                _add(blocks, part.part)
    if finished.reason != "tool_calls":  # nobody does half of what the model asked for
        blocks = [block for block in blocks if block["type"] != "tool_use"]
    for block in blocks:
        if block["type"] == "tool_use":
            block["input"] = json.loads(block["input"])
    return _head(service) | {"content": blocks, **_end(finished, stops), "usage": _usage(work)}


async def message_events(service: Service, work: Work, stops: tuple[str, ...]) -> AsyncIterator[str]:
    """The same as server-sent events; an error behind the first one is told in the stream, and ends it."""
    try:
        async for events in _events(service, work, stops):
            if events:
                yield "".join(map(_sent, events))
    except Exception as error:
        yield _sent(described(as_request_error(error)))


async def _events(service: Service, work: Work, stops: tuple[str, ...]) -> AsyncIterator[list[dict[str, Any]]]:
    """Those that are certain at the same time, together."""
    empty: dict[str, Any] = {"content": [], "stop_reason": None, "stop_sequence": None, "usage": _usage(work)}
    yield [{"type": "message_start", "message": _head(service) | empty}]
    blocks: list[dict[str, Any]] = []
    async for told in work.batches(STREAM_PAUSE):
        yield [event for _, part in told for event in _events_of(part, blocks, work, stops)]
    yield [{"type": "message_stop"}]


def _events_of(
    part: Told, blocks: list[dict[str, Any]], work: Work, stops: tuple[str, ...]
) -> Iterator[dict[str, Any]]:
    """The events that a part makes; blocks: those of the message so far, to which it is added."""
    if isinstance(part, Given):
        begun, delta = _add(blocks, part.part)
        if begun and len(blocks) > 1:
            yield {"type": "content_block_stop", "index": len(blocks) - 2}
        if begun:
            first = _begin(blocks[-1])
            yield {"type": "content_block_start", "index": len(blocks) - 1, "content_block": first}
        if delta:
            yield {"type": "content_block_delta", "index": len(blocks) - 1, "delta": delta}
    elif isinstance(part, Finished):
        if blocks:
            yield {"type": "content_block_stop", "index": len(blocks) - 1}
        yield {"type": "message_delta", "delta": _end(part, stops), "usage": _usage(work)}


def _add(blocks: list[dict[str, Any]], part: Part) -> tuple[bool, dict[str, Any]]:
    """Put a part into the blocks of a message: whether that began a block, and the delta of a stream."""
    match part:
        case Reasoning(text=text):
            begun = _continue(blocks, {"type": "thinking", "thinking": "", "signature": ""})
            blocks[-1]["thinking"] += text
            return begun, {"type": "thinking_delta", "thinking": text}
        case Content(text=text):
            begun = _continue(blocks, {"type": "text", "text": ""})
            blocks[-1]["text"] += text
            return begun, {"type": "text_delta", "text": text}
        case CallBegun(name=name):
            blocks.append({"type": "tool_use", "id": f"toolu_{uuid4().hex[:24]}", "name": name, "input": ""})
            return True, {}
        case Arguments(text=text):
            blocks[-1]["input"] += text
            return False, {"type": "input_json_delta", "partial_json": text}
        case CallEnded():
            return False, {}


def _continue(blocks: list[dict[str, Any]], empty: dict[str, Any]) -> bool:
    """Add an empty block unless the last one is of its type."""
    if blocks and blocks[-1]["type"] == empty["type"]:
        return False
    blocks.append(empty)
    return True


def _begin(block: dict[str, Any]) -> dict[str, Any]:
    """A block as it begins in a stream."""
    if block["type"] == "tool_use":
        return block | {"input": {}}
    return {"type": "text", "text": ""} if block["type"] == "text" else block | {"thinking": ""}


def _head(service: Service) -> dict[str, Any]:
    return {"id": f"msg_{uuid4().hex}", "type": "message", "role": "assistant", "model": service.name}


def _end(finished: Finished, stops: tuple[str, ...]) -> dict[str, Any]:
    by_text = finished.reason == "stop" and finished.note in stops
    reason = "stop_sequence" if by_text else REASONS[finished.reason]
    return {"stop_reason": reason, "stop_sequence": finished.note if by_text else None}


def _usage(work: Work) -> dict[str, Any]:
    usage = work.usage()
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    counts = {"input_tokens": usage["prompt_tokens"] - cached, "output_tokens": usage["completion_tokens"]}
    return counts | {"cache_read_input_tokens": cached, "cache_creation_input_tokens": 0}


def _sent(event: dict[str, Any]) -> str:
    return f"event: {event['type']}\ndata: {written(event)}\n\n"
