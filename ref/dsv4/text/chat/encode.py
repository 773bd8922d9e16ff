"""From messages to the prompt: the official text, either as one string or as pieces."""

import json
from collections.abc import Sequence
from typing import Any

from dsv4.text.chat import templates as t
from dsv4.text.chat.check import Message, check_flag, check_messages, check_mode_of, load_arguments
from dsv4.text.chat.json_text import string_of, write_json
from dsv4.text.chat.pieces import Piece, PieceBuilder, join
from dsv4.text.chat.turns import Turn, last_user_index, turns_of, without_old_developer_turns


def encode(
    messages: Sequence[Message],
    mode: str = "non-think",
    drop_thinking: bool = True,
    add_bos: bool = True,
    revision: str = "april",
) -> str:
    """Write a conversation as DeepSeek-V4's prompt text.

    Args:
        messages: dicts with a `role` (system, developer, user, assistant, tool, latest_reminder) and `content`;
            further fields are `tools` and `response_format` (system, developer), `reasoning_content`, `tool_calls`
            and `wo_eos` (assistant) and `task`. They are not changed.
        mode: "non-think" (answer at once), or "low", "high" or "max" (think first, the more the further right). An
            instruction that stands in front of everything asks for more thought: in "max", and in revision "0731"
            another one there and April's in "high".
        drop_thinking: leave out the reasoning before the last user turn, and developer turns before it. It has no
            effect in mode "non-think", nor when any message has tools: reasoning is then kept.
        add_bos: start with the begin token.
        revision: whose texts the efforts have: "april" (V4-Flash and V4-Pro as first released; they know no "low") or
            "0731" (V4-Flash-0731 and V4-Pro-0813).

    Returns:
        The official text, bit for bit. Text of a control token inside content stands in it as it is, so that a
        tokenizer cannot tell it from a real one; `encode_pieces` keeps the two apart.

    Raises:
        ChatError: a message, field or argument is not what it must be.

    Source: official encoder.
    """
    return join(encode_pieces(messages, mode, drop_thinking, add_bos, revision))


def encode_pieces(
    messages: Sequence[Message],
    mode: str = "non-think",
    drop_thinking: bool = True,
    add_bos: bool = True,
    revision: str = "april",
) -> list[Piece]:
    """Write a conversation as pieces: control tokens of the format, and runs of text.

    Args:
        messages: as in `encode`.
        mode: as in `encode`.
        drop_thinking: as in `encode`.
        add_bos: as in `encode`.
        revision: as in `encode`.

    Returns:
        Pieces whose texts joined are exactly what `encode` returns. Only what the format itself writes is a
        `Control`; special-token text inside any content is part of a `Text`. No two `Text` pieces are neighbours.

    Raises:
        ChatError: a message, field or argument is not what it must be.

    Source: official encoder.
    """
    check_mode_of(mode, revision)
    check_flag("drop_thinking", drop_thinking)
    check_flag("add_bos", add_bos)
    check_messages(messages)
    thinking = mode != "non-think"
    drop_thinking = drop_thinking and not any(message.get("tools") for message in messages)
    turns = turns_of(messages)
    if thinking and drop_thinking:
        turns = without_old_developer_turns(turns)
    last_user = last_user_index(turns)

    out = PieceBuilder()
    if add_bos:
        out.template(t.BEGIN)
    out.template(t.EFFORTS[revision][mode])
    for index, turn in enumerate(turns):
        follows_task = index > 0 and turns[index - 1].task is not None
        keeps_reasoning = thinking and not follows_task and (not drop_thinking or index > last_user)
        _write_turn(out, turn, keeps_reasoning)
        next_role = turns[index + 1].role if index + 1 < len(turns) else None
        if next_role in (None, "assistant", "latest_reminder"):
            _write_transition(out, turn, thinking, thinking and (not drop_thinking or index >= last_user))
    return out.finish()


def _write_turn(out: PieceBuilder, turn: Turn, keeps_reasoning: bool) -> None:
    if turn.role == "user":
        _write_user(out, turn)
    elif turn.role == "assistant":
        _write_assistant(out, turn.message, keeps_reasoning)
    elif turn.role == "latest_reminder":
        out.template(t.LATEST_REMINDER)
        out.content(turn.message["content"])
    else:
        if turn.role == "developer":
            out.template(t.USER)
        _write_instructions(out, turn.message)


def _write_transition(out: PieceBuilder, turn: Turn, thinking: bool, opens_thinking: bool) -> None:
    """Hand over to the model: a task token, or the assistant's token and the start or the end of thinking."""
    if turn.task is not None and turn.task != "action":
        out.template(t.TASKS[turn.task])
    elif turn.task == "action":
        out.template(t.ASSISTANT + (t.THINK if thinking else t.END_THINK) + t.TASKS["action"])
    elif turn.is_user_like:
        out.template(t.ASSISTANT + (t.THINK if opens_thinking else t.END_THINK))


def _write_instructions(out: PieceBuilder, message: Message) -> None:
    """Write what system and developer messages hold: the content, then tools, then the response format."""
    out.content(message.get("content") or "")
    if tools := message.get("tools"):
        out.template(t.TOOLS_BEFORE_SCHEMAS)
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


def _write_assistant(out: PieceBuilder, message: Message, keeps_reasoning: bool) -> None:
    if keeps_reasoning:
        out.content(message.get("reasoning_content") or "")
        out.template(t.END_THINK)
    out.content(message.get("content") or "")
    if calls := message.get("tool_calls"):
        out.template(t.CALLS_OPEN)
        for call in calls:
            _write_call(out, call["function"])
        out.template(t.CALLS_CLOSE)
    if not message.get("wo_eos"):
        out.template(t.END)


def _write_call(out: PieceBuilder, function: Message) -> None:
    out.template(t.INVOKE_OPEN)
    out.content(function["name"])
    out.template(t.INVOKE_NAME_CLOSE)
    parameters = load_arguments(function["arguments"])
    for name, value in parameters.items():
        string = string_of(value)
        out.template(t.PARAMETER_OPEN)
        out.content(name)
        out.template(t.PARAMETER_IS_JSON if string is None else t.PARAMETER_IS_STRING)
        out.content(write_json(value) if string is None else string)
        out.template(t.PARAMETER_CLOSE)
    if not parameters:
        out.template(t.NO_PARAMETERS)
    out.template(t.INVOKE_CLOSE)


def _to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
