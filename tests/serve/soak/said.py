"""What a client makes of a reply, whatever protocol it came in, whole or as a stream."""

import json
from dataclasses import dataclass, field
from typing import Any

LETTERS = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "tool_use": "tool_calls"}
"""Anthropic's words for why an answer ends, as OpenAI's."""


@dataclass
class Said:
    """One answer. What its protocol does not tell is None."""

    content: str = ""
    reasoning: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)
    """The name and the arguments of each, the latter as JSON on one line."""
    reason: str | None = None
    ids: list[int] | None = None
    prompt: list[int] | None = None
    logprobs: list[Any] | None = None
    """Of OpenAI's conversations: (log-probability, those of the likely tokens) of each token; of texts: as they are."""


class ToldError(Exception):
    """The reply says that something went wrong."""


def said(path: str, body: bytes, streams: bool) -> list[Said]:
    """The answers in a body. Raises ToldError for an error in a stream, ValueError for a stream without an end."""
    if path == "/v1/messages":
        return [_message(_streamed_message(_events(body)) if streams else json.loads(body))]
    if path == "/v1/completions":
        return _texts(_values(body) if streams else [json.loads(body)])
    return _streamed_chat(_values(body)) if streams else _chat(json.loads(body))


def tidy(arguments: str) -> str:
    """JSON on one line, always written in the same way."""
    return json.dumps(json.loads(arguments), ensure_ascii=False)


def _values(body: bytes) -> list[Any]:
    lines = [line[6:] for line in body.decode().split("\n") if line.startswith("data: ")]
    values = [json.loads(line) for line in lines if line != "[DONE]"]
    _refuse_errors(values)
    if not lines or lines[-1] != "[DONE]":
        raise ValueError("the stream has no end")
    return values


def _events(body: bytes) -> list[Any]:
    values = [json.loads(line[6:]) for line in body.decode().split("\n") if line.startswith("data: ")]
    _refuse_errors(values)
    if not values or values[-1] != {"type": "message_stop"}:
        raise ValueError("the stream has no end")
    return values


def _refuse_errors(values: list[Any]) -> None:
    for value in values:
        if "error" in value:
            raise ToldError(value["error"]["message"])


def _chat(body: Any) -> list[Said]:
    found = []
    for choice in body["choices"]:
        message = choice["message"]
        calls = [(call["function"]["name"], tidy(call["function"]["arguments"]))
                 for call in message.get("tool_calls", ())]  # fmt: skip
        found.append(
            Said(
                message["content"] or "",
                message.get("reasoning_content", ""),
                calls,
                choice["finish_reason"],
                choice["token_ids"],
                body["prompt_token_ids"],
                _likely(choice["logprobs"]),
            )
        )
    return found


def _streamed_chat(chunks: list[Any]) -> list[Said]:
    found: dict[int, Said] = {}
    prompt = next(chunk["prompt_token_ids"] for chunk in chunks if "prompt_token_ids" in chunk)
    for choice in (choice for chunk in chunks for choice in chunk["choices"]):
        mine, delta = found.setdefault(choice["index"], Said(prompt=prompt)), choice["delta"]
        mine.content += delta.get("content") or ""
        mine.reasoning += delta.get("reasoning_content") or ""
        for call in delta.get("tool_calls", ()):
            name, arguments = call["function"].get("name"), call["function"]["arguments"]
            mine.calls += [(name, "")] if name else []
            mine.calls[-1] = (mine.calls[-1][0], mine.calls[-1][1] + arguments)
        if choice["logprobs"]:
            mine.logprobs = (mine.logprobs or []) + (_likely(choice["logprobs"]) or [])
        if choice["finish_reason"]:
            mine.reason, mine.ids = choice["finish_reason"], choice["token_ids"]
    for mine in found.values():
        is_whole = mine.reason == "tool_calls"
        mine.calls = [(name, tidy(arguments)) for name, arguments in mine.calls] if is_whole else []
    return [found[number] for number in sorted(found)]


def _likely(logprobs: Any) -> list[Any] | None:
    if logprobs is None:
        return None
    words = [*(logprobs.get("reasoning_content") or ()), *(logprobs.get("content") or ())]
    return [(word["logprob"], [likely["logprob"] for likely in word["top_logprobs"]]) for word in words]


def _texts(bodies: list[Any]) -> list[Said]:
    found: dict[int, Said] = {}
    for choice in (choice for body in bodies for choice in body["choices"]):
        mine = found.setdefault(choice["index"], Said())
        mine.content += choice["text"]
        if choice["logprobs"]:
            mine.logprobs = (mine.logprobs or []) + choice["logprobs"]["token_logprobs"]
        mine.prompt = choice.get("prompt_token_ids", mine.prompt)
        mine.ids, mine.reason = choice.get("token_ids", mine.ids), choice["finish_reason"] or mine.reason
    return [found[number] for number in sorted(found)]


def _message(body: Any) -> Said:
    found = Said(reason=LETTERS[body["stop_reason"]])
    for block in body["content"]:
        match block["type"]:
            case "text":
                found.content += block["text"]
            case "thinking":
                found.reasoning += block["thinking"]
            case "tool_use" if found.reason == "tool_calls":
                found.calls.append((block["name"], json.dumps(block["input"], ensure_ascii=False)))
    return found


def _streamed_message(events: list[Any]) -> Any:
    """The message that the events of a stream build up."""
    blocks: list[Any] = []
    reason = None
    for event in events:
        match event["type"]:
            case "content_block_start":
                blocks.append(event["content_block"] | {"json": ""})
            case "content_block_delta":
                _extend(blocks[event["index"]], event["delta"])
            case "message_delta":
                reason = event["delta"]["stop_reason"]
    for block in blocks:
        if block["type"] == "tool_use" and reason == "tool_use":
            block["input"] = json.loads(block["json"])
    return {"content": blocks, "stop_reason": reason}


def _extend(block: Any, delta: Any) -> None:
    match delta["type"]:
        case "text_delta":
            block["text"] += delta["text"]
        case "thinking_delta":
            block["thinking"] += delta["thinking"]
        case "input_json_delta":
            block["json"] += delta["partial_json"]
