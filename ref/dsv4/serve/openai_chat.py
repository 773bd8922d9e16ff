"""`POST /v1/chat/completions`: from OpenAI's form of a conversation to a task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dsv4.serve.chat_task import MODE_OF_EFFORT, ChatTask, mode_of
from dsv4.serve.fields import Fields, RequestError, joined, wrong
from dsv4.serve.service import MOST_LIKELY, MOST_STOPS, Service, read_settings
from dsv4.text.chat.check import Mode

ROLES = {"developer": "system"}
"""OpenAI's name of a system message; V4's own `developer` is another thing, which no client speaks of."""

KEPT = ("role", "content", "reasoning_content", "tool_calls", "tool_call_id")
"""The fields of a message that stand in the prompt. Of the others, clients send back what they were given."""

FOR_THE_REQUEST = ("tools", "response_format", "task")
"""Fields of V4's own messages that would change the prompt."""

WITHOUT_EFFECT = (
    *("user", "store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"),
    "model",
)
"""Fields that say nothing of the answer. One model is served, whatever it is called."""


@dataclass(frozen=True)
class ChatRequest:
    """A task, and how to hand over what comes of it."""

    task: ChatTask
    streams: bool
    counts_in_stream: bool
    """Whether the stream ends with the usage."""
    wants_logprobs: bool
    wants_ids: bool
    """Whether the token ids of prompt and answer are told."""


def read_chat_request(fields: Fields, service: Service) -> ChatRequest:
    """The request in the fields of a body. Raises RequestError, which names the field."""
    messages = v4_messages(fields.objects("messages") or [])
    streams = fields.flag("stream") or False
    task = ChatTask(
        messages,
        _mode(fields, service),
        read_settings(fields, service, _max_tokens(fields)),
        fields.texts("stop", MOST_STOPS),
        **_tools(fields),
        **_schema(fields),
        top_logprobs=_top_logprobs(fields),
    )
    request = ChatRequest(
        task,
        streams,
        counts_in_stream(fields, streams),
        task.top_logprobs is not None,
        fields.flag("return_token_ids") or False,
    )
    refuse_unknown(fields)
    return request


def v4_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """OpenAI's messages as `dsv4.chat` takes them; it checks the rest. Raises RequestError."""
    return [_message(f"messages[{number}]", message) for number, message in enumerate(messages)]


def counts_in_stream(fields: Fields, streams: bool) -> bool:
    """Whether `stream_options` asks for the usage. Raises RequestError for options where nothing streams."""
    options = fields.inner("stream_options")
    if options is None:
        return False
    if not streams:
        raise wrong("stream_options", "it with stream true", "stream false")
    wanted = options.flag("include_usage") or False
    options.without_effect("include_obfuscation")
    options.finish()
    return wanted


def refuse_unknown(fields: Fields) -> None:
    """Take note of what changes nothing, and refuse what this server does not do. Raises RequestError."""
    fields.without_effect(*WITHOUT_EFFECT)
    for field in ("presence_penalty", "frequency_penalty"):
        fields.only(field, 0)
    fields.only("logit_bias", {})
    fields.finish()


def _message(where: str, message: Mapping[str, Any]) -> dict[str, Any]:
    for field in FOR_THE_REQUEST:
        if message.get(field):
            raise RequestError(f"{where}.{field}: expected no such field on a message, found one", f"{where}.{field}")
    if message.get("function_call"):
        raise RequestError(f"{where}.function_call: expected tool_calls instead, found it", f"{where}.function_call")
    kept = {field: message[field] for field in KEPT if field in message}
    if isinstance(role := kept.get("role"), str):
        kept["role"] = ROLES.get(role, role)
    if isinstance(kept.get("content"), list):
        kept["content"] = _text_of(f"{where}.content", kept["content"])
    for field in ("prefix", "wo_eos"):
        if message.get(field) not in (None, False, True):
            raise wrong(f"{where}.{field}", "true or false", message[field])
        if message.get(field):
            kept["wo_eos"] = True
    return kept


def _text_of(where: str, parts: Sequence[Any]) -> str:
    texts = []
    for number, part in enumerate(parts):
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise wrong(f"{where}[{number}]", 'a part of type "text" with a text', part)
        texts.append(part["text"])
    return joined(texts)


def _mode(fields: Fields, service: Service) -> Mode:
    thinking, thinks = fields.inner("thinking"), None
    if thinking is not None:
        kind = thinking.one_of("type", ("enabled", "disabled"))
        thinks = None if kind is None else kind == "enabled"
        thinking.finish()
    return mode_of(thinks, fields.one_of("reasoning_effort", MODE_OF_EFFORT), service.mode, service.revision)


def _max_tokens(fields: Fields) -> int | None:
    old, new = fields.integer("max_tokens", 1), fields.integer("max_completion_tokens", 1)
    if None not in (old, new) and old != new:
        raise wrong("max_tokens", f"what max_completion_tokens says, {new}", old)
    return new if old is None else old


def _top_logprobs(fields: Fields) -> int | None:
    wanted, count = fields.flag("logprobs"), fields.integer("top_logprobs", 0, MOST_LIKELY)
    if count is not None and not wanted:
        raise wrong("top_logprobs", "it with logprobs true", count)
    return (count or 0) if wanted else None


def _tools(fields: Fields) -> dict[str, Any]:
    tools = [_function(f"tools[{number}]", tool) for number, tool in enumerate(fields.objects("tools") or [])]
    one_call = fields.flag("parallel_tool_calls") is False
    choice = fields.value("tool_choice")
    return {"tools": tools, "tool_choice": _choice(choice, tools), "one_call": one_call}


def _function(where: str, tool: Mapping[str, Any]) -> Mapping[str, Any]:
    if tool.get("type") != "function" or not isinstance(function := tool.get("function"), dict):
        raise wrong(where, 'a tool of type "function" with a function', tool)
    if not isinstance(function.get("name"), str) or not function["name"]:
        raise wrong(f"{where}.function.name", "a string that is not empty", function.get("name"))
    check_parameters(f"{where}.function.parameters", function.get("parameters"))
    return function


def check_parameters(where: str, schema: Any) -> None:
    """Raises RequestError unless a tool's parameters are a JSON schema of an object, as far as it is looked into."""
    if schema is None:
        return
    if not isinstance(schema, dict):
        raise wrong(where, "a JSON schema", schema)
    for key, kind in (("properties", dict), ("required", list)):
        if not isinstance(schema.get(key), kind | None):
            raise wrong(f"{where}.{key}", f"a {kind.__name__}", schema[key])


def _choice(choice: Any, tools: Sequence[Mapping[str, Any]]) -> str | Mapping[str, Any]:
    if choice in (None, "auto", "none"):
        return choice or "auto"
    if not tools:
        raise wrong("tool_choice", "it with tools", "no tools")
    if choice == "required":
        return "required"
    function = choice.get("function") if isinstance(choice, dict) and choice.get("type") == "function" else None
    name = function.get("name") if isinstance(function, dict) else None
    for tool in tools:
        if tool["name"] == name:
            return tool
    raise wrong("tool_choice", "auto, none, required, or one of the tools", choice)


def _schema(fields: Fields) -> dict[str, Any]:
    """The schema of the answer, and whether the model is told: a request for any object has said so by itself."""
    wanted = fields.inner("response_format")
    if wanted is None:
        return {}
    kind = wanted.one_of("type", ("text", "json_object", "json_schema"))
    described = wanted.inner("json_schema")
    wanted.finish()
    if kind == "json_object":
        return {"schema": {"type": "object"}}
    if kind != "json_schema":
        return {}
    schema = described.value("schema") if described else None
    if not isinstance(schema, dict):
        raise wrong("response_format.json_schema.schema", "a JSON schema", schema)
    return {"schema": schema, "shows_schema": True}
