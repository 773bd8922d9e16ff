"""Requests of every kind, each with the answer that `dsv4.generate` gives where nothing else runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dsv4.errors import ChatError
from dsv4.model.model import Model
from dsv4.serve.grammar import Grammars
from dsv4.serve.job import Job
from dsv4.text import chat
from serve.alone import Rule, Truth, alone, prompt_logprobs
from serve.scripted import TOKENIZER
from serve.soak.said import Said, tidy

PREFILL_CHUNK = 64
"""Tokens of a prompt in a pass: so few that many prompts take several, and leave prefixes for others."""

LINES = (
    "Who hath the ring?",
    "Good morrow, cousin. What news from the king?",
    "Speak of the sea, and of the storm that took our ships.",
    "My lord, the messenger is come with letters.",
    "What is love? Tell me in a few words.",
    "Where is my sword, and who hath taken it from me?",
)
LONG = " ".join(LINES) * 3
"""More than one pass of a prompt."""

SCHEMA = {
    "type": "object",
    "properties": {"name": {"enum": ["Iago", "Hamlet", "Portia"]}, "old": {"type": "boolean"}},
    "required": ["name", "old"],
    "additionalProperties": False,
}
TOOL = {
    "name": "find",
    "parameters": {
        "type": "object",
        "properties": {"what": {"enum": ["ring", "sword"]}},
        "required": ["what"],
    },
}
EFFORTS = {"non-think": "none", "high": "high", "max": "max"}


@dataclass(frozen=True)
class Question:
    """A request, and what is to come back."""

    kind: str
    path: str
    body: dict[str, Any]
    expected: tuple[Said, ...]

    @property
    def streams(self) -> bool:
        """Whether it is a stream that comes back."""
        return bool(self.body.get("stream"))


class Pool:
    """Makes the questions. Each answer is computed once, however often it is asked for."""

    def __init__(self, model: Model) -> None:
        """model: on the backend that the server will use."""
        self._model, self._stop_ids = model, frozenset(model.config.eos_token_ids)
        self._grammars = Grammars(TOKENIZER, model.config.vocab_size, self._stop_ids)
        self._truths: dict[Any, Truth] = {}
        self.questions: list[Question] = []

    def fill(self, most: int = 24) -> "Pool":
        """Questions of every kind. most: tokens of an answer."""
        for number, line in enumerate(LINES):
            self._conversation(line, number, most)
        for number, mode in enumerate(("high", "max")):
            self._chat("thinking", [_user(LINES[number])], most // 2, number, mode=mode)
        self._chat("speculative", [_user(LINES[0])], most, 1, speculative=True)
        self._chat("speculative", [_user(LONG)], most, 2, speculative=True, temperature=0)
        self._chat("several", [_user(LINES[1])], most // 2, 5, choices=3)
        self._chat("log-probabilities", [_user(LINES[2])], most // 2, 6, logprobs=True, top_logprobs=2)
        self._stopped([_user(LINES[4])], most, 7)
        self._in_a_form(most * 2)
        self._letters(most)
        self._completions(most)
        return self

    def _conversation(self, line: str, number: int, most: int) -> None:
        """Two turns: the second prompt begins with the first one and its answer."""
        system = {"role": "system", "content": LONG if number % 2 else "Speak as in a play."}
        first = [system, _user(line)]
        answer = self._chat("first turn", first, most, number)[0].content
        second = [*first, {"role": "assistant", "content": answer}, _user(LINES[number - 1])]
        self._chat("second turn", second, most // 2, number)

    def _chat(self, kind: str, messages: Sequence[Any], most: int, seed: int, mode: str = "non-think",
              choices: int = 1, temperature: float = 0.8, top_p: float = 0.95, speculative: bool = False,
              **more: Any) -> tuple[Said, ...]:  # fmt: skip
        """A conversation, asked for whole and as a stream."""
        ids, top = _prompt(messages, mode), more.get("top_logprobs")
        how = mode, temperature, top_p, top, speculative
        seed = next(one for one in range(seed, seed + 1000, 10) if self._is_well_formed(ids, most, one, choices, how))
        expected = tuple(self._answer(ids, most, one, *how) for one in _seeds(seed, choices))
        body = {"messages": messages, "max_tokens": most, "seed": seed, "temperature": temperature, "top_p": top_p,
                "n": choices, "reasoning_effort": EFFORTS[mode], "speculative": speculative,
                "return_token_ids": True} | more  # fmt: skip
        self._both(kind, "/v1/chat/completions", body, expected)
        return expected

    def _is_well_formed(self, ids: list[int], most: int, seed: int, choices: int, how: tuple[Any, ...]) -> bool:
        """Whether no answer breaks the chat format, as a small model's may."""
        try:
            return all(self._answer(ids, most, one, *how) for one in _seeds(seed, choices))
        except ChatError:
            return False

    def _stopped(self, messages: Sequence[Any], most: int, seed: int) -> None:
        """An answer that a text ends: two characters from its middle."""
        ids = _prompt(messages)
        whole = self._answer(ids, most, seed)
        middle = len(whole.content) // 2
        stop = whole.content[middle : middle + 2]
        expected = Said(whole.content.partition(stop)[0], reason="stop", prompt=ids)
        body = {"messages": messages, "max_tokens": most, "seed": seed, "stop": [stop], "return_token_ids": True,
                "temperature": 0.8, "top_p": 0.95}  # fmt: skip
        self._both("stop text", "/v1/chat/completions", body, (expected,))

    def _in_a_form(self, most: int) -> None:
        """JSON of a schema, and a call of a tool that has to be made."""
        messages, system = [_user(LINES[3])], {"role": "system", "content": ""}
        described = {"name": "answer", "schema": SCHEMA}
        body = {"messages": messages, "max_tokens": most, "seed": 3, "temperature": 1.0, "top_p": 1.0,
                "return_token_ids": True}  # fmt: skip
        ids = _prompt([system | {"response_format": SCHEMA}, *messages])
        answer = self._answer(ids, most, 3, make=lambda: self._grammars.json(SCHEMA, False, ""))
        more = {"response_format": {"type": "json_schema", "json_schema": described}}
        self._both("schema", "/v1/chat/completions", body | more, (answer,))
        tool = {"type": "function", "function": TOOL}
        ids = _prompt([system | {"tools": [tool]}, *messages])
        answer = self._answer(ids, most * 4, 3, make=lambda: self._grammars.calls([TOOL], True, False, ""))
        more = {"tools": [tool], "tool_choice": "required", "parallel_tool_calls": False, "max_tokens": most * 4}
        one_call = replace(answer, ids=None)  # the reply ends behind it, before the markup that closes the block
        self._both("tool", "/v1/chat/completions", body | more, (one_call,))

    def _letters(self, most: int) -> None:
        """Anthropic's form, which has no token ids and no seed: greedy ones."""
        for number, line in enumerate(LINES[:3]):
            ids = _prompt([{"role": "system", "content": "Be brief."}, _user(line)])
            answer = self._answer(ids, most - number, None, temperature=0.0)
            expected = Said(answer.content, answer.reasoning, reason=answer.reason)
            body = {"system": "Be brief.", "messages": [_user(line)], "max_tokens": most - number, "temperature": 0}
            self._both("letter", "/v1/messages", body, (expected,))

    def _completions(self, most: int) -> None:
        """Token ids to go on with, several at once; and how likely a text is."""
        prompts = [TOKENIZER.encode(line * (1 + number)) for number, line in enumerate(LINES[:3])]
        expected = []
        for ids in prompts:
            truth = self._truth(Job(tuple(ids), most // 2, 0.0, 1.0, 1, self._stop_ids))
            text = TOKENIZER.decode(truth.tokens, skip_special=True).removesuffix("�")
            expected.append(Said(text, reason=truth.ended.reason, ids=truth.tokens, prompt=ids))
        body = {"prompt": prompts, "max_tokens": most // 2, "temperature": 0, "seed": 1, "return_token_ids": True}
        self._both("texts", "/v1/completions", body, tuple(expected))
        ids = TOKENIZER.encode(LONG)
        job = Job(tuple(ids), 1, 0.0, seed=1, stop_ids=self._stop_ids, top_logprobs=0, prompt_logprobs=True)
        found = prompt_logprobs(self._model, job, PREFILL_CHUNK)
        scored = Said(LONG, reason="length", ids=[], prompt=ids, logprobs=[one and one.logprob for one in found])
        body = {"prompt": LONG, "max_tokens": 0, "echo": True, "logprobs": 0, "seed": 1, "return_token_ids": True}
        self.questions.append(Question("scores", "/v1/completions", body, (scored,)))

    def _answer(self, ids: list[int], most: int, seed: int | None, mode: str = "non-think", temperature: float = 0.8,
                top_p: float = 0.95, top: int | None = None, speculative: bool = False,
                make: Callable[[], Any] | None = None) -> Said:  # fmt: skip
        """What a client is to be told of the answer to a prompt. make: a new constraint. Raises ChatError."""
        if make:
            temperature = top_p = 1.0
        rule = Rule(_rule(make), self._model.config.vocab_size) if make else None
        truth = self._truth(Job(tuple(ids), most, temperature, top_p, seed, self._stop_ids, top,
                                constraint=rule, speculative=speculative))  # fmt: skip
        message = chat.parse(TOKENIZER.decode_pieces(truth.tokens), mode, require_end=False)
        calls = [(call["function"]["name"], tidy(call["function"]["arguments"])) for call in message["tool_calls"]]
        reason = "tool_calls" if calls else truth.ended.reason
        found = Said(message["content"], message["reasoning_content"], calls, reason, truth.tokens, ids)
        if top is not None:
            kept = [one for one in truth.logprobs if one.token not in TOKENIZER.control_of_id]
            found.logprobs = [(one.logprob, [likely for _, likely in one.top]) for one in kept]
        return found

    def _truth(self, job: Job) -> Truth:
        known = job.ids, job.max_new_tokens, job.temperature, job.top_p, job.seed, job.top_logprobs, job.speculative
        if job.constraint:
            return alone(self._model, job, PREFILL_CHUNK)
        if known not in self._truths:
            self._truths[known] = alone(self._model, job, PREFILL_CHUNK)
        return self._truths[known]

    def _both(self, kind: str, path: str, body: dict[str, Any], expected: tuple[Said, ...]) -> None:
        for stream in (False, True):
            self.questions.append(Question(kind, path, body | {"stream": stream}, expected))


def difference(question: Question, found: Sequence[Said]) -> str:
    """What is not as expected; "" for nothing. What is expected to be None may be anything."""
    if len(found) != len(question.expected):
        return f"expected {len(question.expected)} answers, found {len(found)}"
    for number, (wanted, got) in enumerate(zip(question.expected, found, strict=True)):
        for name, value in vars(wanted).items():
            if value is not None and getattr(got, name) != value:
                return f"answer {number}, {name}: expected {value!r}, found {getattr(got, name)!r}"
    return ""


def _rule(make: Callable[[], Any]) -> Callable[[Sequence[int], int], Any]:
    def rule(tokens: Sequence[int], vocab: int) -> Any:
        constraint = make()
        for token in tokens:
            constraint.accept(token)
        return constraint.allowed()

    return rule


def _prompt(messages: Sequence[Any], mode: str = "non-think") -> list[int]:
    return TOKENIZER.encode_pieces(chat.encode_pieces(messages, mode))


def _seeds(seed: int, choices: int) -> list[int]:
    """As docs/serving.md gives them for several answers."""
    others = [np.random.SeedSequence([seed, number]) for number in range(1, choices)]
    return [seed, *(int(other.generate_state(1, np.uint64)[0]) for other in others)]


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}
