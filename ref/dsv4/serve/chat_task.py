"""A conversation to be answered, whatever protocol it came in: to a prompt, to jobs, and to what reads their tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dsv4.errors import ChatError
from dsv4.serve.fields import RequestError, named, wrong
from dsv4.serve.job import Constraint, Job
from dsv4.serve.reply import ChatReply
from dsv4.serve.service import Service, Settings
from dsv4.text import chat
from dsv4.text.chat.check import Mode, check_messages
from dsv4.text.chat.templates import EFFORTS, is_v41

MODE_OF_EFFORT = {
    "none": "non-think",
    "minimal": "low",
    "low": "low",
    "medium": "high",
    "high": "high",
    "xhigh": "high",
    "max": "max",
}
"""DeepSeek's names of efforts and the modes that they stand for, where a revision has no mode of that name."""

ANSWERED = ("user", "tool", "latest_reminder")
"""The roles of messages that the model answers; V4.1 answers those of role system, too."""


@dataclass(frozen=True)
class ChatTask:
    """What a request asks for."""

    messages: Sequence[Mapping[str, Any]]
    """As `dsv4.chat` takes them, without tools and response formats."""
    mode: Mode
    settings: Settings
    stops: tuple[str, ...] = ()
    tools: Sequence[Mapping[str, Any]] = ()
    """The `function` of each."""
    tool_choice: str | Mapping[str, Any] = "auto"
    """auto, none, required, or the function that has to be called."""
    one_call: bool = False
    """Whether the answer ends behind its first call."""
    schema: Mapping[str, Any] | None = None
    """The answer is JSON of this schema."""
    shows_schema: bool = False
    """Whether the prompt tells the model the schema."""
    top_logprobs: int | None = None


@dataclass(frozen=True)
class Prepared:
    """A prompt, a job for each answer, and what reads it."""

    ids: tuple[int, ...]
    jobs: tuple[Job, ...]
    replies: tuple[ChatReply, ...]


def prepare(service: Service, task: ChatTask) -> Prepared:
    """Make a task into jobs. Takes a while for long texts and large schemas. Raises RequestError."""
    messages = [dict(message) for message in task.messages]
    try:
        check_messages(messages)
    except ChatError as error:
        raise named(error) from None
    continues = _check_last(messages, (*ANSWERED, "system") if is_v41(service.revision) else ANSWERED)
    service.check_characters(sum(len(str(message.get("content") or "")) for message in messages), "messages")
    _add_instructions(messages, task)
    try:
        pieces = chat.encode_pieces(messages, task.mode, revision=service.revision)
        ids = service.tokenizer.encode_pieces(pieces)
    except ValueError as error:
        raise RequestError(str(error), "messages") from None
    service.check_length(ids, "messages")
    thinks = task.mode != "non-think" and not continues
    jobs = tuple(_job(service, task, ids, number, thinks) for number in range(task.settings.choices))
    most_calls = int(task.one_call)
    replies = tuple(
        ChatReply(service.tokenizer, thinks, task.stops, service.stop_ids, most_calls, service.tags) for _ in jobs
    )
    return Prepared(tuple(ids), jobs, replies)


def mode_of(thinks: bool | None, effort: str | None, default: Mode, revision: str) -> Mode:
    """The mode that a request asks for. thinks: what it says of thinking. Raises RequestError for one unknown here.

    Source: DeepSeek's API. Thinking without an effort is high; no thinking beats any effort, and thinking beats "none".
    """
    if thinks is False:
        return "non-think"
    if effort is None:
        return "high" if thinks and default == "non-think" else default
    mode = effort if effort in EFFORTS[revision] else MODE_OF_EFFORT[effort]
    if mode == "non-think" and thinks:
        return "high"
    if mode not in EFFORTS[revision]:
        known = [name for name, other in MODE_OF_EFFORT.items() if other in EFFORTS[revision]]
        raise wrong("reasoning_effort", f"one of {', '.join(known)}, as this checkpoint knows them", effort)
    return mode


def _check_last(messages: Sequence[Mapping[str, Any]], answered: Sequence[str]) -> bool:
    """Whether the last message is the beginning of the answer. Raises RequestError for one that cannot be answered."""
    for number, message in enumerate(messages[:-1]):
        if message.get("wo_eos"):
            field = f"messages[{number}].prefix"
            raise RequestError(f"{field}: expected it on the last message alone, found one before", field)
    last, field = messages[-1], f"messages[{len(messages) - 1}]"
    if last["role"] == "assistant" and last.get("wo_eos"):
        if last.get("tool_calls"):
            raise RequestError(f"{field}.tool_calls: expected none in a message to go on with, found some", field)
        return True
    if last["role"] not in answered:
        expected = f"a message of role {', '.join(answered)}, or one of role assistant with prefix"
        raise wrong(f"{field}.role", f"{expected}, which the model can answer", last["role"])
    return False


def _add_instructions(messages: list[dict[str, Any]], task: ChatTask) -> None:
    """Put tools and schema where the format has them: on the system message that comes first."""
    added: dict[str, Any] = {}
    if task.tools:
        added["tools"] = [{"type": "function", "function": function} for function in task.tools]
    if task.schema is not None and task.shows_schema:
        added["response_format"] = task.schema
    if added and messages[0]["role"] == "system":
        messages[0].update(added)
    elif added:
        messages.insert(0, {"role": "system", "content": "", **added})


def _job(service: Service, task: ChatTask, ids: Sequence[int], number: int, thinks: bool) -> Job:
    settings = task.settings
    return Job(
        tuple(ids),
        settings.max_new_tokens,
        settings.temperature,
        settings.top_p,
        settings.seed_of(number),
        service.stop_ids,
        task.top_logprobs,
        constraint=_constraint(service, task, thinks),
        speculative=settings.speculative,
    )


def _constraint(service: Service, task: ChatTask, thinks: bool) -> Constraint | None:
    """What the tokens of one answer may be; each answer has one of its own."""
    grammars = service.grammars
    if task.tools and task.tool_choice == "required":
        return grammars.calls(task.tools, task.one_call, thinks, "tools")
    if isinstance(task.tool_choice, Mapping):
        return grammars.calls([task.tool_choice], True, thinks, "tool_choice")
    if task.schema is not None:
        return grammars.json(task.schema, thinks, "response_format")
    return grammars.no_calls() if task.tools and task.tool_choice == "none" else None
