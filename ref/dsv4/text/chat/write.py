"""How the parts of a turn are written: what V4 and V4.1 have in common but for the names of their tags."""

import json
from typing import Any

from dsv4.text.chat import templates as t
from dsv4.text.chat.check import Message, load_arguments
from dsv4.text.chat.json_text import string_of, write_json
from dsv4.text.chat.pieces import PieceBuilder
from dsv4.text.chat.tags import Tags
from dsv4.text.chat.turns import Turn


def write_turn(out: PieceBuilder, turn: Turn, keeps_reasoning: bool, tags: Tags) -> None:
    """Write a turn, but for what stands before its first token and behind its last.

    keeps_reasoning: whether an answer begins with its reasoning and the end of that.
    """
    if turn.role == "user":
        _write_user(out, turn)
    elif turn.role == "assistant":
        _write_assistant(out, turn.message, keeps_reasoning, tags)
    elif turn.role == "latest_reminder":
        out.template(t.LATEST_REMINDER)
        out.content(turn.message["content"])
    else:
        if turn.role == "developer":
            out.template(t.USER)
        _write_instructions(out, turn.message, tags)


def write_transition(out: PieceBuilder, task: str | None, is_answered: bool, thinking: bool, opens: bool) -> None:
    """Hand over to the model: a task token, or the assistant's token and the start or the end of thinking.

    task: of the turn before. is_answered: whether the model answers a turn of this kind. thinking: whether the mode is
    one that thinks. opens: whether it does so in this place.
    """
    if task is not None and task != "action":
        out.template(t.TASKS[task])
    elif task == "action":
        out.template(t.ASSISTANT + (t.THINK if thinking else t.END_THINK) + t.TASKS["action"])
    elif is_answered:
        out.template(t.ASSISTANT + (t.THINK if opens else t.END_THINK))


def _write_instructions(out: PieceBuilder, message: Message, tags: Tags) -> None:
    """Write what system and developer messages hold: the content, then tools, then the response format."""
    out.content(message.get("content") or "")
    if tools := message.get("tools"):
        out.template(tags.tools_before_schemas)
        out.content("\n".join(_to_json(tool["function"]) for tool in tools))
        out.template(t.TOOLS_AFTER_SCHEMAS)
    if response_format := message.get("response_format"):
        out.template(t.RESPONSE_FORMAT)
        out.content(_to_json(response_format))


def _write_user(out: PieceBuilder, turn: Turn) -> None:
    out.template(t.USER)
    for number, block in enumerate(turn.blocks):
        if number:
            out.template(t.BETWEEN_BLOCKS)
        if block.is_tool_result:
            out.template(t.TOOL_RESULT_OPEN)
            out.content(block.text)
            out.template(t.TOOL_RESULT_CLOSE)
        else:
            out.content(block.text)


def _write_assistant(out: PieceBuilder, message: Message, keeps_reasoning: bool, tags: Tags) -> None:
    if keeps_reasoning:
        out.content(message.get("reasoning_content") or "")
        out.template(t.END_THINK)
    out.content(message.get("content") or "")
    if calls := message.get("tool_calls"):
        out.template(tags.calls_open)
        for call in calls:
            _write_call(out, call["function"], tags)
        out.template(tags.calls_close)
    if not message.get("wo_eos"):
        out.template(t.END)


def _write_call(out: PieceBuilder, function: Message, tags: Tags) -> None:
    out.template(tags.invoke_open)
    out.content(function["name"])
    out.template(t.INVOKE_NAME_CLOSE)
    parameters = load_arguments(function["arguments"])
    for name, value in parameters.items():
        string = string_of(value)
        out.template(tags.parameter_open)
        out.content(name)
        out.template(t.PARAMETER_IS_JSON if string is None else t.PARAMETER_IS_STRING)
        out.content(write_json(value) if string is None else string)
        out.template(tags.parameter_close)
    if not parameters:
        out.template(t.NO_PARAMETERS)
    out.template(tags.invoke_close)


def _to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
