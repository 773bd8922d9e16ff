"""From messages to the prompt: the official text, either as one string or as pieces."""

from collections.abc import Sequence

from dsv4.text.chat import templates as t
from dsv4.text.chat.check import Message, Mode, check_flag, check_messages, check_mode_of
from dsv4.text.chat.encode41 import pieces_of_v41
from dsv4.text.chat.pieces import Piece, PieceBuilder, join
from dsv4.text.chat.tags import V4_TAGS
from dsv4.text.chat.turns import last_user_index, turns_of, without_old_developer_turns
from dsv4.text.chat.write import write_transition, write_turn


def encode(
    messages: Sequence[Message],
    mode: Mode = "non-think",
    drop_thinking: bool = True,
    add_bos: bool = True,
    revision: str = "april",
    add_generation_prompt: bool = True,
) -> str:
    """Write a conversation as the prompt text of DeepSeek-V4 or V4.1.

    Args:
        messages: dicts with a `role` (system, developer, user, assistant, tool, latest_reminder) and `content`;
            further fields are `tools` and `response_format` (system, developer), `reasoning_content`, `tool_calls`
            and `wo_eos` (assistant) and `task`. They are not changed.
        mode: "non-think" (answer at once), or "low", "high" or "max" (think first, the more the further right). An
            instruction that stands in front of everything asks for more thought: in "max", and in revision "0731"
            another one there and April's in "high". V4.1 has such an instruction in all of these; it also knows
            "xhigh" and takes an effort from 1 to 100 as a number.
        drop_thinking: leave out the reasoning before the last user turn, and developer turns before it. It has no
            effect in mode "non-think", nor when any message has tools: reasoning is then kept.
        add_bos: start with the begin token.
        revision: whose texts the efforts have: "april" (V4-Flash and V4-Pro as first released; they know no "low"),
            "0731" (V4-Flash-0731 and V4-Pro-0813), "v4.1" (V4.1-Flash, with the efforts of its checkpoint's encoder) or
            "v4.1-api" (V4.1-Flash, with those of DeepSeek's API). The last two write the format of V4.1.
        add_generation_prompt: end with what makes the model answer: the assistant's token, or that of a task. In V4 it
            stands behind a user's or a developer's turn; in V4.1 also behind a system message and an answer that ended.

    Returns:
        The official text, bit for bit. Text of a control token inside content stands in it as it is, so that a
        tokenizer cannot tell it from a real one; `encode_pieces` keeps the two apart.

    Raises:
        ChatError: a message, field or argument is not what it must be.

    Source: official encoder.
    """
    return join(encode_pieces(messages, mode, drop_thinking, add_bos, revision, add_generation_prompt))


def encode_pieces(
    messages: Sequence[Message],
    mode: Mode = "non-think",
    drop_thinking: bool = True,
    add_bos: bool = True,
    revision: str = "april",
    add_generation_prompt: bool = True,
) -> list[Piece]:
    """Write a conversation as pieces: control tokens of the format, and runs of text.

    Args:
        messages: as in `encode`.
        mode: as in `encode`.
        drop_thinking: as in `encode`.
        add_bos: as in `encode`.
        revision: as in `encode`.
        add_generation_prompt: as in `encode`.

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
    check_flag("add_generation_prompt", add_generation_prompt)
    check_messages(messages)
    drop_thinking = drop_thinking and not any(message.get("tools") for message in messages)
    if t.is_v41(revision):
        return pieces_of_v41(messages, t.instruction_of(mode, revision), drop_thinking, add_bos, add_generation_prompt)
    thinking = mode != "non-think"
    turns = turns_of(messages)
    if thinking and drop_thinking:
        turns = without_old_developer_turns(turns, last_user_index(turns))
    last_user = last_user_index(turns)

    out = PieceBuilder()
    if add_bos:
        out.template(t.BEGIN)
    out.template(t.instruction_of(mode, revision))
    for index, turn in enumerate(turns):
        follows_task = index > 0 and turns[index - 1].task is not None
        keeps_reasoning = thinking and not follows_task and (not drop_thinking or index > last_user)
        write_turn(out, turn, keeps_reasoning, V4_TAGS)
        next_role = turns[index + 1].role if index + 1 < len(turns) else None
        if next_role in ("assistant", "latest_reminder") or (next_role is None and add_generation_prompt):
            opens_thinking = thinking and (not drop_thinking or index >= last_user)
            write_transition(out, turn.task, turn.is_user_like, thinking, opens_thinking)
    return out.finish()
