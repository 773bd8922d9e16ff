"""From messages to V4.1's prompt: system messages have a token, later ones are answered, and the effort is a number."""

from collections.abc import Sequence

from dsv4.text.chat import templates as t
from dsv4.text.chat.check import Message, check_no_image
from dsv4.text.chat.pieces import Piece, PieceBuilder
from dsv4.text.chat.tags import V41_TAGS
from dsv4.text.chat.turns import Turn, turns_of, without_old_developer_turns
from dsv4.text.chat.write import write_transition, write_turn


def pieces_of_v41(
    messages: Sequence[Message], effort: str, drop_thinking: bool, add_bos: bool, add_generation_prompt: bool
) -> list[Piece]:
    """Write a conversation that was checked as pieces of V4.1's format.

    messages, drop_thinking (false where a message has tools), add_bos, add_generation_prompt: as
    `dsv4.text.chat.encode.encode` has them. effort: the instruction, "" for an answer without thinking. Raises
    ChatError for the text of the image token, which V4.1 would take for an image. Source: official encoder, as vLLM and
    SGLang have it; what follows a first system message and an answer that ended: vLLM, deepseek-recipe.
    """
    check_no_image(messages)
    thinking = effort != ""
    turns = turns_of(messages)
    if thinking and drop_thinking:
        turns = without_old_developer_turns(turns, _last_user_index(turns))
    last_user = _last_user_index(turns)

    out = PieceBuilder(t.CONTROL_TOKENS_OF_V41)
    if add_bos:
        out.template(t.BEGIN)
    for index, turn in enumerate(turns):
        is_first, is_last = index == 0, index + 1 == len(turns)
        if turn.role == "system" or (is_first and thinking):
            out.template(t.SYSTEM)
        if is_first:
            out.template(effort)
        follows_task = not is_first and turns[index - 1].task is not None
        write_turn(out, turn, thinking and not follows_task and (not drop_thinking or index > last_user), V41_TAGS)
        if add_generation_prompt if is_last else turns[index + 1].role in ("assistant", "latest_reminder"):
            is_answered = _is_user_like(index, turn) or (is_last and _may_be_followed(turn))
            opens_thinking = thinking and (not drop_thinking or index >= last_user)
            write_transition(out, turn.task, is_answered, thinking, opens_thinking)
    return out.finish()


def _is_user_like(index: int, turn: Turn) -> bool:
    """Whether the model answers a turn wherever it stands: a user's, a developer's, a system message but the first."""
    return turn.is_user_like or (turn.role == "system" and index > 0)


def _may_be_followed(turn: Turn) -> bool:
    """Whether an answer may follow a turn that is the last: an answer that the model is to go on with has no end."""
    return turn.role == "system" or (turn.role == "assistant" and not turn.message.get("wo_eos"))


def _last_user_index(turns: Sequence[Turn]) -> int:
    return max((index for index, turn in enumerate(turns) if _is_user_like(index, turn)), default=-1)
