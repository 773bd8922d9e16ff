"""`POST /v1/messages`: from Anthropic's form of a conversation to a task."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dsv4.serve.chat_task import MODE_OF_EFFORT, ChatTask, mode_of
from dsv4.serve.fields import Fields, RequestError, joined, wrong
from dsv4.serve.openai_chat import check_parameters
from dsv4.serve.service import MOST_STOPS, Service, Settings, read_settings
from dsv4.text.chat.check import Mode

WITHOUT_EFFECT = "model", "metadata", "service_tier", "container", "inference_geo", "cache_control"
"""Fields that say nothing of the answer."""


@dataclass(frozen=True)
class MessagesRequest:
    """A task, and whether what comes of it is handed over as it comes."""

    task: ChatTask
    streams: bool


def read_messages_request(fields: Fields, service: Service, counts_only: bool = False) -> MessagesRequest:
    """The request in the fields of a body. Raises RequestError, which names the field.

    counts_only: the request is to count the tokens of the prompt alone, and need not say how many the answer may have.
    """
    system = _texts("system", fields.value("system"))
    messages = [{"role": "system", "content": system}] if system else []
    messages += _messages(fields.objects("messages") or [])
    most = fields.integer("max_tokens", 1)
    if most is None and not counts_only:
        raise wrong("max_tokens", "the most tokens of the answer", None)
    mode, settings = _mode(fields, service), _settings(fields, service, most)
    tools = [_function(f"tools[{number}]", tool) for number, tool in enumerate(fields.objects("tools") or [])]
    choice, one_call = _choice(fields, tools)
    task = ChatTask(messages, mode, settings, fields.texts("stop_sequences", MOST_STOPS), tools, choice, one_call)
    request = MessagesRequest(task, fields.flag("stream") or False)
    fields.without_effect(*WITHOUT_EFFECT)
    fields.finish()
    return request


def _settings(fields: Fields, service: Service, most: int | None) -> Settings:
    """Temperature and the like; there is one answer."""
    fields.only("n", 1)
    return read_settings(fields, service, most)


def _mode(fields: Fields, service: Service) -> Mode:
    thinking, thinks = fields.inner("thinking"), None
    if thinking is not None:
        kind = thinking.one_of("type", ("enabled", "disabled", "adaptive"))
        thinks = None if kind is None else kind != "disabled"
        thinking.without_effect("budget_tokens", "display")  # V4 has efforts instead of a budget
        thinking.finish()
    output, effort = fields.inner("output_config"), None
    if output is not None:
        effort = output.one_of("effort", MODE_OF_EFFORT)
        output.finish()
    return mode_of(thinks, effort, service.mode, service.revision)


def _messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages as `dsv4.chat` takes them: results of tools have messages of their own; the last one is gone on with."""
    found: list[dict[str, Any]] = []
    for number, message in enumerate(messages):
        where, role = f"messages[{number}]", message.get("role")
        content = message.get("content")
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if not isinstance(blocks, list):
            raise wrong(f"{where}.content", "a string or a list of blocks", content)
        if role == "user":
            found += _of_user(f"{where}.content", blocks)
        elif role == "assistant":
            found.append(_of_assistant(f"{where}.content", blocks))
        else:
            raise wrong(f"{where}.role", "user or assistant", role)
    if found and found[-1]["role"] == "assistant":
        found[-1]["wo_eos"] = True
    return found


def _of_user(where: str, blocks: Sequence[Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for number, block in enumerate(blocks):
        place, kind = f"{where}[{number}]", block.get("type") if isinstance(block, dict) else None
        if kind == "text":
            found.append({"role": "user", "content": _text(place, block)})
        elif kind == "tool_result":
            content = _texts(f"{place}.content", block.get("content"))
            found.append({"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": content})
        else:
            raise wrong(place, "a block of type text or tool_result", block)
    return found


def _of_assistant(where: str, blocks: Sequence[Any]) -> dict[str, Any]:
    texts: list[str] = []
    thoughts: list[str] = []
    calls = []
    for number, block in enumerate(blocks):
        place, kind = f"{where}[{number}]", block.get("type") if isinstance(block, dict) else None
        if kind == "text":
            texts.append(_text(place, block))
        elif kind == "thinking" and isinstance(block.get("thinking"), str):
            thoughts.append(block["thinking"])
        elif kind == "tool_use" and isinstance(block.get("name"), str) and isinstance(block.get("input"), dict):
            function = {"name": block["name"], "arguments": json.dumps(block["input"], ensure_ascii=False)}
            calls.append({"id": block.get("id"), "type": "function", "function": function})
        elif kind != "redacted_thinking":
            raise wrong(place, "a block of type text, thinking or tool_use with its fields", block)
    reasoning = "".join(thoughts)
    return {"role": "assistant", "content": "".join(texts), "reasoning_content": reasoning, "tool_calls": calls}


def _text(where: str, block: Mapping[str, Any]) -> str:
    if not isinstance(block.get("text"), str):
        raise wrong(f"{where}.text", "a string", block.get("text"))
    return str(block["text"])


def _texts(where: str, content: Any) -> str:
    """A text, or blocks of text as one."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise wrong(where, "a string or a list of blocks", content)
    for number, block in enumerate(content):
        if not isinstance(block, dict) or block.get("type") != "text":
            raise wrong(f"{where}[{number}]", "a block of type text", block)
    return joined([_text(f"{where}[{number}]", block) for number, block in enumerate(content)])


def _function(where: str, tool: Mapping[str, Any]) -> Mapping[str, Any]:
    if tool.get("type") not in (None, "custom") or not isinstance(tool.get("name"), str) or not tool["name"]:
        raise wrong(where, "a tool with a name and an input_schema", tool)
    check_parameters(f"{where}.input_schema", tool.get("input_schema"))
    described = {"name": tool["name"], "description": tool.get("description"), "parameters": tool.get("input_schema")}
    return {field: value for field, value in described.items() if value is not None}


def _choice(fields: Fields, tools: Sequence[Mapping[str, Any]]) -> tuple[str | Mapping[str, Any], bool]:
    """Whether a tool is called, as `ChatTask` has it, and whether one call is the most."""
    choice = fields.inner("tool_choice")
    if choice is None:
        return "auto", False
    kind, name = choice.one_of("type", ("auto", "any", "tool", "none")), choice.text("name")
    one_call = choice.flag("disable_parallel_tool_use") or False
    choice.finish()
    if kind in (None, "auto", "none"):
        return kind or "auto", one_call
    if not tools:
        raise RequestError("tool_choice: expected it with tools, found no tools", "tool_choice")
    if kind == "any":
        return "required", one_call
    for tool in tools:
        if tool["name"] == name:
            return tool, one_call
    raise wrong("tool_choice.name", "the name of one of the tools", name)
