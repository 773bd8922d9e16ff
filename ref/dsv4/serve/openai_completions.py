"""`POST /v1/completions`: texts to go on with, and how likely they are."""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from dsv4.errors import DSV4Error
from dsv4.serve.fields import Fields, RequestError, wrong
from dsv4.serve.job import Job, LogProb, Prefilled
from dsv4.serve.markup import Content
from dsv4.serve.openai_answers import LEAST_LOGPROB, Chunks
from dsv4.serve.openai_chat import counts_in_stream, refuse_unknown
from dsv4.serve.reply import Given, TextReply
from dsv4.serve.service import MOST_CHOICES, MOST_LIKELY, MOST_STOPS, Service, Settings, read_settings
from dsv4.serve.tokens import token_ids
from dsv4.serve.work import STREAM_PAUSE, WHOLE_PAUSE, Finished, Told, Work

DEFAULT_MAX_TOKENS = 16
"""As OpenAI has it."""


@dataclass(frozen=True)
class CompletionRequest:
    """What a request asks for."""

    prompts: tuple[tuple[int, ...], ...]
    settings: Settings
    stops: tuple[str, ...]
    echo: bool
    """Whether the prompt stands in front of each answer, log-probabilities and all."""
    logprobs: int | None
    scores_only: bool
    """Whether no token is wanted, as max_tokens 0 says."""
    streams: bool
    counts_in_stream: bool
    wants_ids: bool


def read_completion_request(fields: Fields, service: Service) -> CompletionRequest:
    """The request in the fields of a body. Takes a while for long texts. Raises RequestError, which names the field."""
    prompts = _prompts(fields.value("prompt"), service)
    most = fields.integer("max_tokens")
    most = DEFAULT_MAX_TOKENS if most is None else most
    settings = read_settings(fields, service, max(most, 1))
    streams, echo = fields.flag("stream") or False, fields.flag("echo") or False
    logprobs = fields.integer("logprobs", 0, MOST_LIKELY)
    if len(prompts) * settings.choices > MOST_CHOICES * 8:
        raise wrong("prompt", f"at most {MOST_CHOICES * 8} answers to all prompts together", len(prompts))
    if most == 0 and not echo:
        raise wrong("max_tokens", "at least 1, or 0 with echo", most)
    if most == 0 and streams:
        raise wrong("stream", "it with a max_tokens above 0", streams)
    fields.only("best_of", 1, settings.choices)
    fields.only("suffix", "")
    request = CompletionRequest(
        prompts,
        settings,
        fields.texts("stop", MOST_STOPS),
        echo,
        logprobs,
        most == 0,
        streams,
        counts_in_stream(fields, streams),
        fields.flag("return_token_ids") or False,
    )
    refuse_unknown(fields)
    return request


def jobs_of(service: Service, request: CompletionRequest) -> tuple[list[Job], list[TextReply]]:
    """A job for each answer to each prompt, those to the same prompt beside each other, and what reads it."""
    ends = service.stop_ids | _control_ids(service, request.stops)
    settings = request.settings
    jobs = [
        Job(
            prompt,
            settings.max_new_tokens,
            settings.temperature,
            settings.top_p,
            settings.seed_of(number),
            ends,
            request.logprobs,
            prompt_logprobs=request.echo and request.logprobs is not None,
            speculative=settings.speculative,
        )
        for prompt in request.prompts
        for number in range(settings.choices)
    ]
    return jobs, [TextReply(service.tokenizer, request.stops, ends) for _ in jobs]


async def whole_completion(service: Service, request: CompletionRequest, work: Work) -> dict[str, Any]:
    """The body of a response, when all answers are there. Raises RequestError for one that fails."""
    choices = [_Choice(service, request, number) for number in range(len(work.replies))]
    async for told in work.batches(WHOLE_PAUSE):
        for number, part in told:
            choices[number].take(part)
    described = [choice.body(list(work.replies[number].ids)) for number, choice in enumerate(choices)]
    usage = work.usage()
    if request.scores_only:  # the one token that the engine makes is nobody's
        usage |= {"completion_tokens": 0, "total_tokens": usage["prompt_tokens"]}
    return _head(service) | {"choices": described, "usage": usage}


async def completion_chunks(service: Service, request: CompletionRequest, work: Work) -> AsyncIterator[Chunks]:
    """The same as chunks, each as soon as it is certain; those that are certain at the same time together."""
    head = _head(service)
    usage = {"usage": None} if request.counts_in_stream else {}
    choices = [_Choice(service, request, number) for number in range(len(work.replies))]
    async for told in work.batches(STREAM_PAUSE):
        described = [choices[number].chunk(part, work.replies[number].ids) for number, part in told]
        yield [head | {"choices": [each]} | usage for each in described if each]
    if request.counts_in_stream:
        yield [head | {"choices": [], "usage": work.usage()}]


class _Choice:
    """One answer, gathered."""

    def __init__(self, service: Service, request: CompletionRequest, number: int) -> None:
        self._service, self._request, self._number = service, request, number
        self._prompt = request.prompts[number // request.settings.choices]
        self._text = ""
        self._logprobs: dict[str, list[Any]] = {}
        self._finished = Finished("stop", None)

    def take(self, part: Told) -> tuple[str, dict[str, Any] | None]:
        """The text and the log-probabilities that a part adds."""
        text, found = "", tuple[tuple[int, LogProb | None], ...]()
        match part:
            case Prefilled() if self._request.echo:
                text = self._service.tokenizer.decode(self._prompt)
                found = tuple(zip(self._prompt, part.prompt, strict=bool(part.prompt))) if part.prompt else ()
            case Given(part=Content(text=more)) if not self._request.scores_only:
                text, found = more, tuple((each.token, each) for each in part.logprobs)
            case Finished():
                self._finished = part
        logprobs = self._described(found, is_prompt=isinstance(part, Prefilled))
        self._text += text
        for name, values in logprobs.items():
            self._logprobs.setdefault(name, []).extend(values)
        return text, logprobs if self._request.logprobs is not None else None

    def chunk(self, part: Told, ids: list[int]) -> dict[str, Any] | None:
        """The choice in the chunk that a part makes, if it makes one. ids: those of the answer so far."""
        text, logprobs = self.take(part)
        is_last = isinstance(part, Finished)
        if not text and not is_last and not (logprobs and logprobs["tokens"]):
            return None
        reason = part.reason if isinstance(part, Finished) else None
        chunk = {"index": self._number, "text": text, "logprobs": logprobs, "finish_reason": reason}
        told = {"prompt_token_ids": list(self._prompt), "token_ids": ids}
        return chunk | (told if is_last and self._request.wants_ids else {})

    def body(self, ids: list[int]) -> dict[str, Any]:
        """The choice. ids: those of the answer."""
        scores_only = self._request.scores_only
        body = {
            "index": self._number,
            "text": self._text,
            "logprobs": self._logprobs if self._request.logprobs is not None else None,
            "finish_reason": "length" if scores_only else self._finished.reason,
            "stop_reason": self._finished.note,
        }
        if self._request.wants_ids:
            body |= {"prompt_token_ids": list(self._prompt), "token_ids": [] if scores_only else ids}
        return body

    def _described(self, found: Sequence[tuple[int, LogProb | None]], is_prompt: bool) -> dict[str, Any]:
        """Tokens with their log-probabilities as OpenAI's first interface has them; offsets are in characters."""
        tokenizer, offset = self._service.tokenizer, len(self._text)
        offsets, stream = [], tokenizer.stream(skip_special=not is_prompt)
        for token, _ in found:
            offsets.append(offset)
            offset += len(stream.push(token))
        return {
            "tokens": [_word(tokenizer.token_bytes(token)) for token, _ in found],
            "token_logprobs": [None if each is None else max(each.logprob, LEAST_LOGPROB) for _, each in found],
            "top_logprobs": [None if each is None else self._top(each) for _, each in found],
            "text_offset": offsets,
        }

    def _top(self, found: LogProb) -> dict[str, float]:
        """The likely tokens and the token itself, by their text; of those that look alike the likeliest counts."""
        top: dict[str, float] = {}
        for token, logprob in (*found.top, (found.token, found.logprob)):
            word = _word(self._service.tokenizer.token_bytes(token))
            top[word] = max(logprob, LEAST_LOGPROB, top.get(word, LEAST_LOGPROB))
        return top


def _head(service: Service) -> dict[str, Any]:
    created = int(time.time())
    return {"id": f"cmpl-{uuid4().hex}", "object": "text_completion", "created": created, "model": service.name}


def _word(raw: bytes) -> str:
    """The text of a token; bytes that are no whole characters are written out, so that tokens stay apart."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


def _prompts(found: Any, service: Service) -> tuple[tuple[int, ...], ...]:
    """A text, a list of texts, a list of token ids, or a list of such lists. Raises RequestError."""
    is_one = isinstance(found, str) or (isinstance(found, list) and found and isinstance(found[0], int))
    prompts = [found] if is_one else found
    if not isinstance(prompts, list) or not prompts:
        raise wrong("prompt", "a text, token ids, or a list of texts or of lists of token ids", found)
    return tuple(_prompt("prompt" if is_one else f"prompt[{n}]", each, service) for n, each in enumerate(prompts))


def _prompt(where: str, found: Any, service: Service) -> tuple[int, ...]:
    if isinstance(found, str):
        service.check_characters(len(found), where)
        begin = [service.tokenizer.bos_id] if service.tokenizer.add_bos else []
        try:
            ids = begin + service.tokenizer.encode(found)
        except DSV4Error as error:
            raise RequestError(f"{where}: {error}", where) from None
    else:
        ids = token_ids(where, found, service)
    service.check_length(ids, where)
    return tuple(ids)


def _control_ids(service: Service, stops: Sequence[str]) -> frozenset[int]:
    """The ids of the stop texts that are control tokens, which the text leaves out."""
    ids: Mapping[str, int] = {text: number for number, text in service.tokenizer.control_of_id.items()}
    return frozenset(ids[stop] for stop in stops if stop in ids)
