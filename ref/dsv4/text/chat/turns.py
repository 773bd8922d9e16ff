"""From messages to turns: what is merged, sorted and left out before the text is written.

The format has no turn for tools: their results stand in a user turn, together with neighbouring user texts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dsv4.text.chat.check import Message


@dataclass
class Block:
    """One part of a user turn: somebody's text, or the result of the tool call `call_id`."""

    text: str
    is_tool_result: bool = False
    call_id: str | int | None = None


@dataclass
class Turn:
    """What is rendered as one turn; `blocks` is used by user turns, `message` holds the fields of all others."""

    role: str
    message: Message = field(default_factory=dict)
    blocks: list[Block] = field(default_factory=list)

    @property
    def task(self) -> str | None:
        """The task of the message that began this turn."""
        return self.message.get("task")

    @property
    def is_user_like(self) -> bool:
        """Whether the model answers this turn."""
        return self.role in ("user", "developer")


def turns_of(messages: Sequence[Message]) -> list[Turn]:
    """Merge neighbouring user texts and tool results into user turns, tool results in the order of their calls.

    A user message with a task takes in no later user text. Source: official encoder.
    """
    turns: list[Turn] = []
    for message in messages:
        last = turns[-1] if turns and turns[-1].role == "user" else None
        if message["role"] == "tool":
            block = Block(_tool_text(message.get("content", "")), True, message.get("tool_call_id"))
            if last is None:
                turns.append(Turn("user", blocks=[block]))
            else:
                last.blocks.append(block)
        elif message["role"] == "user":
            block = Block(message.get("content", ""))
            if last is None or last.task is not None:
                turns.append(Turn("user", message, [block]))
            else:
                last.blocks.append(block)
        else:
            turns.append(Turn(message["role"], message))
    _sort_tool_results(turns)
    return turns


def last_user_index(turns: Sequence[Turn]) -> int:
    """Give the index of the last user or developer turn, −1 if there is none."""
    return max((index for index, turn in enumerate(turns) if turn.is_user_like), default=-1)


def without_old_developer_turns(turns: Sequence[Turn], last: int) -> list[Turn]:
    """Leave out developer turns before the turn `last`, as the official encoder does with old reasoning."""
    return [turn for index, turn in enumerate(turns) if turn.role != "developer" or index >= last]


def _tool_text(content: str | list[Any]) -> str:
    if isinstance(content, str):
        return content
    parts = [part.get("text", "") if part["type"] == "text" else f"[Unsupported {part['type']}]" for part in content]
    return "\n\n".join(parts)


def _call_id(call: Message) -> str | int | None:
    """Give the id of a call, which may stand on the call or on its function."""
    name: str | int | None = call.get("id") or call["function"].get("id")
    return name


def _sort_tool_results(turns: list[Turn]) -> None:
    """Put the tool results of each turn in the order of the last calls; an unknown id counts as the first call."""
    order: dict[str | int | None, int] = {}
    for turn in turns:
        if calls := turn.message.get("tool_calls"):
            order = {_call_id(call): number for number, call in enumerate(calls) if _call_id(call)}
        places = [index for index, block in enumerate(turn.blocks) if block.is_tool_result]
        results = sorted((turn.blocks[index] for index in places), key=lambda block: order.get(block.call_id, 0))
        for index, result in zip(places, results, strict=True):
            turn.blocks[index] = result
