"""The jobs of one request: what comes of them, for whoever waits, and their end when nobody waits any more."""

import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from dsv4.serve.arrivals import Arrivals
from dsv4.serve.engine import Ticket
from dsv4.serve.fields import RequestError
from dsv4.serve.job import Chosen, Ended, Event, Job, Prefilled
from dsv4.serve.reply import ChatReply, Given, TextReply
from dsv4.serve.service import Service

Reply = ChatReply | TextReply

STREAM_PAUSE = 0.005
"""Seconds within which the tokens of a stream go out together: shorter than anybody sees."""

WHOLE_PAUSE = 0.05
"""The same for an answer that goes out as a whole, which is only looked at to see whether a stop text has come."""


@dataclass(frozen=True)
class Finished:
    """An answer is whole."""

    reason: str
    """OpenAI's word: stop, length or tool_calls."""
    note: str | None
    """More about it, where that word does not say all."""


Told = Prefilled | Given | Finished
"""What comes of a job: its prompt is read, a part of its answer, and its end."""


@dataclass
class Account:
    """What one request took, for its line in the log."""

    prompt: int = 0
    cached: int = 0
    tokens: int = 0
    reasons: tuple[str, ...] = ()
    content: str = ""


class Work:
    """The jobs of a request, submitted together; a context manager, which cancels what still runs when it is left."""

    def __init__(
        self, service: Service, jobs: Sequence[Job], replies: Sequence[Reply], account: Account, choices: int
    ) -> None:
        """replies: what the tokens of each job become. choices: how many jobs beside each other have the same prompt.

        Raises what `Engine.submit` raises; then no job is left.
        """
        self._service, self._jobs, self._account = service, jobs, account
        self.replies, self._choices = replies, choices
        self._arrivals = Arrivals()
        self._ended: dict[int, Ended] = {}
        self._cached: dict[int, int] = {}
        self._begun = time.monotonic()
        self._tickets: list[Ticket] = []
        account.prompt = self._prompt_tokens
        try:
            for number, job in enumerate(jobs):
                self._tickets.append(service.engine.submit(job, partial(self._arrivals.put, number)))
        except BaseException:
            self.cancel()
            raise

    def __enter__(self) -> "Work":
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()
        self._count()

    def cancel(self) -> None:
        """End the jobs that have not ended."""
        for ticket in self._tickets:
            ticket.cancel()

    async def batches(self, pause: float) -> AsyncIterator[list[tuple[int, Told]]]:
        """What comes of each job, by its number, until all have ended. pause: seconds in which things come together.

        Raises RequestError for a job that failed, or that the engine gave up.
        """
        while len(self._ended) < len(self._jobs):
            told: list[tuple[int, Told]] = []
            failure: RequestError | None = None
            for number, event in await self._arrivals.batch(pause):
                try:
                    told += [(number, part) for part in self._heard(number, event)]
                except RequestError as error:
                    failure = error
                    break
            yield told
            if failure:
                raise failure

    def _heard(self, number: int, event: Event) -> Iterator[Told]:
        """What an event of a job tells. Raises RequestError for a job that failed."""
        reply = self.replies[number]
        match event:
            case Prefilled():
                self._cached[number] = event.cached
                yield event
            case Chosen():
                if not reply.ids:
                    self._service.metrics.first_token.observe(time.monotonic() - self._begun)
                yield from reply.take(event)
                if reply.ended:
                    self._tickets[number].cancel()
            case Ended():
                self._ended[number] = event
                given_last, reason = reply.finish(event)
                self._account.reasons += (reason if reply.ended else event.reason,)
                _raise_failure(event, reply.ended)
                yield from given_last
                yield Finished(reason, reply.note)

    def usage(self) -> dict[str, Any]:
        """The tokens of the request as OpenAI counts them; a prompt counts once, however many answers it has."""
        prompt, made = self._prompt_tokens, sum(len(reply.ids) for reply in self.replies)
        drafted = sum(ended.drafted for ended in self._ended.values())
        accepted = sum(reply.accepted for reply in self.replies)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": made,
            "total_tokens": prompt + made,
            "prompt_tokens_details": {"cached_tokens": self._cached_tokens},
            "completion_tokens_details": {
                "reasoning_tokens": sum(reply.reasoning_tokens for reply in self.replies),
                "accepted_prediction_tokens": accepted,
                "rejected_prediction_tokens": max(0, drafted - accepted),
            },
        }

    @property
    def _prompt_tokens(self) -> int:
        return sum(len(job.ids) for job in self._jobs[:: self._choices])

    @property
    def _cached_tokens(self) -> int:
        """Of each prompt, what no answer had to compute."""
        cached = [self._cached.get(number, 0) for number in range(len(self._jobs))]
        return sum(min(cached[start : start + self._choices]) for start in range(0, len(cached), self._choices))

    def _count(self) -> None:
        usage = self.usage()
        self._account.tokens = usage["completion_tokens"]
        self._account.cached = usage["prompt_tokens_details"]["cached_tokens"]
        if self._service.logs_content:
            prompts = [job.ids for job in self._jobs[:: self._choices]]
            texts = [self._service.tokenizer.decode(ids) for ids in (*prompts, *(reply.ids for reply in self.replies))]
            self._account.content = " | ".join(texts)
        kinds = {"prompt": usage["prompt_tokens"], "completion": self._account.tokens, "cached": self._account.cached}
        for kind, count in (kinds | usage["completion_tokens_details"]).items():
            self._service.metrics.tokens.labels(kind).inc(count)


def _raise_failure(ended: Ended, is_whole: bool) -> None:
    """Raises RequestError for what is no answer. is_whole: the answer had ended before the job did."""
    if is_whole:
        return
    if ended.reason == "error":
        raise RequestError(ended.message or "the model failed on this request", status=500)
    if ended.reason == "cancelled":
        raise RequestError("the server stops before this answer is whole", status=503)
