"""A job at work: what it has chosen so far, and what its owner hears of it."""

from collections.abc import Sequence

import numpy as np

from dsv4.arguments import flag, integer
from dsv4.errors import DSV4Error, reason
from dsv4.model.language_model import LanguageModel
from dsv4.ops.types import Array
from dsv4.serve.job import Chosen, Ended, Event, Job, LogProb, OnEvent, Prefilled, Reason
from dsv4.text.drafts import Drafts, accept
from dsv4.text.generate import as_stop_ids, prompts_of
from dsv4.text.prefill import Prefill
from dsv4.text.rounds import Rounds
from dsv4.text.sampling import Sampler, log_probabilities


class Answer:
    """One sequence, which draws from a stream of its own as the only sequence of a call of `generate` would."""

    def __init__(self, model: LanguageModel, job: Job, on_event: OnEvent, number: int, deadline: float) -> None:
        """number: counts the jobs; deadline: when it must have ended. Raises as `Engine.submit` says, but for Full."""
        context, vocab = model.config.max_position_embeddings, model.config.vocab_size
        self.ids = prompts_of(model, [job.ids])[0]
        count = integer("max_new_tokens", job.max_new_tokens, least=1)
        self.sampler = Sampler(job.temperature, job.top_p, job.seed, 1)
        self.stop_ids = frozenset(as_stop_ids(job.stop_ids))
        self.top = None if job.top_logprobs is None else integer("top_logprobs", job.top_logprobs, most=vocab)
        flag("prompt_logprobs", job.prompt_logprobs)
        self.speculative = flag("speculative", job.speculative)
        self.job, self.number, self.deadline, self._on_event = job, number, deadline, on_event
        self._to_numpy, self._asarray = model.ops.to_numpy, model.ops.asarray
        room = context - len(self.ids) + 1  # the last token need not be read again
        self.remaining, self._short = min(count, room), count > room
        self.rounds = Rounds()
        self.tokens: list[int] = []
        self.drafts = Drafts([], [])
        """What follows the newest token, if the drafter is right."""
        self.prefill: Prefill | None = None
        self.prompt: list[LogProb | None] = []
        """The log-probabilities of the prompt's tokens so far, if they are asked for."""
        self.cancelled = False
        self.ended: Reason | None = None

    @property
    def newest(self) -> int:
        """The last token, which the model has not read yet."""
        return self.tokens[-1]

    def score(self, logits: Array) -> None:
        """Take the log-probabilities of the next tokens of the prompt from logits [S, vocab]."""
        self.prompt = self.prompt or [None]
        for row in logits[: len(self.ids) - len(self.prompt)]:
            self.prompt.append(self._logprob(row, int(self.ids[len(self.prompt)])))

    def begin(self, cached: int) -> None:
        """The prompt is read."""
        self._say(Prefilled(cached, tuple(self.prompt)))

    def choose(self, logits: Array) -> list[int]:
        """The next tokens, from logits [1 + drafts, vocab]: those that `accept` gives. None if that ends the job.

        What goes wrong ends this job alone.
        """
        before, drafts, told = self.rounds.accepted, self.drafts, 0

        def narrow(logits: Array, kept: list[int]) -> Array:
            nonlocal told
            self._tell(kept[told:])
            told = len(kept)
            allowed = self.job.constraint.allowed() if self.job.constraint else None
            return logits if allowed is None else np.where(self._asarray(np.asarray(allowed)), logits, -np.inf)

        try:
            chosen = accept(self, 0, drafts, logits, narrow)
            self._tell(chosen[told:])
            for place, token in enumerate(chosen):
                if not self.ended:
                    self._take(token, logits[place], place < self.rounds.accepted - before)
        except Exception as error:  # whatever it is, the others go on
            self.fail(error)
            return []
        return chosen

    def end(self, why: Reason, message: str = "") -> None:
        """End the job, unless it has ended."""
        if self.ended:
            return
        self.ended, self.remaining = why, 0
        counts = len(self.tokens), self.rounds.drafted, self.rounds.accepted
        self._say(Ended(why, *counts, message))

    def fail(self, error: Exception) -> None:
        """End the job because of this error."""
        if not self.ended:
            self.end(
                "error", str(error) if isinstance(error, DSV4Error) else f"{type(error).__name__}: {reason(error)}"
            )

    def _take(self, token: int, logits: Array, accepted: bool) -> None:
        """Give a token, and end the job if it is the last one."""
        self.tokens.append(token)
        self.remaining -= 1
        logprob = None if self.top is None else self._logprob(logits, token)
        self._say(Chosen(token, logprob, accepted))
        if token in self.stop_ids:
            self.end("stop")
        elif not self.remaining:
            self.end("context" if self._short else "length")

    def _tell(self, tokens: Sequence[int]) -> None:
        """Let the constraint know what was chosen."""
        for token in tokens:
            if self.job.constraint:
                self.job.constraint.accept(token)

    def _logprob(self, logits: Array, token: int) -> LogProb:
        found = log_probabilities(self._to_numpy(logits))
        best = np.argsort(-found, kind="stable")[: self.top or 0]
        return LogProb(token, float(found[token]), tuple((int(one), float(found[one])) for one in best))

    def _say(self, event: Event) -> None:
        """Raises nothing: who does not listen ends the job."""
        try:
            self._on_event(event)
        except Exception as error:
            self.fail(error)
