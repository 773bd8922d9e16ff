"""What an engine does in one step: who joins, whose prompt is read, who gets tokens, and who leaves.

Deterministic, and without threads: the same jobs at the same steps give the same calls of the model.
"""

import math
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import get_args

import numpy as np

from dsv4.arguments import integer
from dsv4.model.cache import Cache
from dsv4.model.language_model import LanguageModel
from dsv4.ops.types import Array
from dsv4.serve.answer import Answer
from dsv4.serve.job import Ended, Event, Figures, Job, OnEvent, Reason
from dsv4.text.drafters import drafter_of
from dsv4.text.drafts import Drafter, Drafts, in_rows
from dsv4.text.prefill import Prefill, is_batch_invariant
from dsv4.text.prefixes import Prefixes
from dsv4.text.sampling import Sampler

SCORED_AT_ONCE = 64
"""Of how many tokens of a prompt the logits are held at the same time."""


@dataclass
class Group:
    """Answers that are computed together: row b of the cache is answers[b]."""

    answers: list[Answer]
    cache: Cache


class Scheduler:
    """Runs jobs on one model: their answers in groups, one token or one block of drafts at a time.

    On a batch-invariant backend all answers with drafts are one group, and all without another, so that a group reads
    each weight once for all. On others each is a group of its own: there the company would show in the last bits.
    """

    def __init__(
        self, model: LanguageModel, running: int, prefill_chunk: int, prefix_memory: int, clock: Callable[[], float]
    ) -> None:
        """As for `Engine`; clock: the time that deadlines are compared with. Raises SettingError."""
        self.model, self._clock = model, clock
        self._running = integer("running", running, least=1)
        self._chunk = integer("prefill_chunk", prefill_chunk, least=1)
        self.prefixes = Prefixes(integer("prefix_memory", prefix_memory))
        self._together = is_batch_invariant(model)
        self._waiting = deque[Answer]()
        self._reading = deque[Answer]()
        self._groups: list[Group] = []
        self.ended = Counter[Reason](dict.fromkeys(get_args(Reason), 0))
        self._counts = Counter[str]()

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._waiting or self._reading or self._groups)

    def prepare(self, job: Job, on_event: OnEvent, number: int, deadline: float = math.inf) -> Answer:
        """A job that can be done, for `add`; arguments as for `Answer`. From any thread. Raises as `Answer`."""

        def tell(event: Event) -> None:
            if isinstance(event, Ended):
                self.ended[event.reason] += 1
            on_event(event)

        answer = Answer(self.model, job, tell, number, deadline)
        self._drafter_for(answer)
        return answer

    def add(self, answer: Answer) -> None:
        """Let a job wait for its turn."""
        self._waiting.append(answer)

    def cancel_all(self) -> None:
        """End every job at the next step."""
        for answer in self._jobs():
            answer.cancelled = True

    def step(self) -> None:
        """Go on with every job: read some of the prompts, and give each answer its next token."""
        self._leave()
        self._admit()
        self._read_prompts()
        for group in self._groups:
            with self._failing(group.answers):
                self._decode(group)
        self._leave()

    def figures(self) -> Figures:
        """What was done so far."""
        counts = self._counts
        return Figures(
            running=len(self._reading) + self._answering,
            waiting=len(self._waiting),
            tokens=counts["tokens"],
            prompt_tokens=counts["prompt_tokens"],
            cached_tokens=counts["cached_tokens"],
            prefix_bytes=self.prefixes.nbytes,
            prefix_entries=len(self.prefixes),
            steps=counts["steps"],
            drafted=counts["drafted"],
            accepted=counts["accepted"],
            ended={str(reason): count for reason, count in self.ended.items()},
        )

    def _jobs(self) -> list[Answer]:
        """All that have not left."""
        return [*self._waiting, *self._reading, *(answer for group in self._groups for answer in group.answers)]

    @property
    def _answering(self) -> int:
        return sum(len(group.answers) for group in self._groups)

    def _leave(self) -> None:
        """End what is cancelled or late, and take out all that has ended."""
        now = self._clock()
        for answer in self._jobs():
            if answer.cancelled:
                answer.end("cancelled")
            elif now >= answer.deadline:
                answer.end("time")
            if answer.ended:
                answer.prefill = None  # its owner may hold the answer for long
        self._waiting = deque(answer for answer in self._waiting if not answer.ended)
        self._reading = deque(answer for answer in self._reading if not answer.ended)
        for group in self._groups:
            stay = [row for row, answer in enumerate(group.answers) if not answer.ended]
            if stay and len(stay) < len(group.answers):
                group.cache = group.cache.select(stay)
            group.answers = [group.answers[row] for row in stay]
        self._groups = [group for group in self._groups if group.answers]

    def _admit(self) -> None:
        """Those that have waited longest begin, as far as there is room."""
        while self._waiting and len(self._reading) + self._answering < self._running:
            self._reading.append(self._waiting.popleft())

    def _read_prompts(self) -> None:
        """A chunk of prompts: of one that is long, or of several that are short; who had a turn stands behind."""
        left, ready = self._chunk, list[tuple[Answer, Cache]]()
        for answer in list(self._reading):
            with self._failing([answer]):
                prefill = answer.prefill or self._begin(answer)
                size = prefill.size(left)
                if not size:
                    break
                left -= size
                self._reading.rotate(-1)
                states = self._read(answer, prefill, size)
                if prefill.done:
                    self._reading.remove(answer)
                    answer.begin(prefill.cached)
                    cache = prefill.finish()
                    self._first(answer, cache, states)
                    ready.append((answer, cache))
        self._join([(answer, cache) for answer, cache in ready if not answer.ended])

    def _begin(self, answer: Answer) -> Prefill:
        """Find out how much of the prompt is known. Whoever asks for log-probabilities has all of it read."""
        known = Prefixes(0) if answer.job.prompt_logprobs else self.prefixes
        drafter = self._drafter_for(answer)
        spare = drafter.max_drafts if drafter else 0
        answer.prefill = Prefill(self.model, answer.ids, self._chunk, known, drafter, spare)
        self._counts["cached_tokens"] += answer.prefill.cached
        return answer.prefill

    def _read(self, answer: Answer, prefill: Prefill, size: int) -> Array:
        """Read so much of a prompt; its streams, [1, size, n, d]."""
        states = prefill.advance(size)
        self._counts["prompt_tokens"] += size
        self._counts["steps"] += 1
        if answer.job.prompt_logprobs:
            for start in range(0, size, SCORED_AT_ONCE):
                answer.score(self.model.head(states[:, start : start + SCORED_AT_ONCE])[0])
        return states

    def _first(self, answer: Answer, cache: Cache, states: Array) -> None:
        """Choose the first token, behind the streams of a prompt's last ones."""
        last = np.stack([states[0, -1]])[:, None]
        chosen = [self._chosen(answer, self.model.head(last)[0])]
        self._draft([answer], cache, last, chosen)

    def _join(self, ready: Sequence[tuple[Answer, Cache]]) -> None:
        """Let answers whose prompts are read join their groups."""
        for drafting in (False, True):
            joining = [one for one in ready if one[0].speculative == drafting]
            groups = [group for group in self._groups if group.answers[0].speculative == drafting]
            if not self._together:
                self._groups += [Group([answer], cache) for answer, cache in joining]
            elif joining and groups:
                groups[0].cache = Cache.join([groups[0].cache, *(cache for _, cache in joining)])
                groups[0].answers += [answer for answer, _ in joining]
            elif joining:
                caches = [cache for _, cache in joining]
                self._groups.append(Group([answer for answer, _ in joining], Cache.join(caches)))

    def _decode(self, group: Group) -> None:
        """One step of a group: read the newest tokens and their drafts, choose what follows, and draft again."""
        answers, cache = group.answers, group.cache
        tokens, present = in_rows([[answer.newest, *answer.drafts.ids] for answer in answers])
        drafted = [len(answer.drafts.ids) for answer in answers]
        states = self.model.states(tokens, cache, present)
        logits = self.model.head(states)
        self._counts["steps"] += 1
        chosen = [self._chosen(answer, logits[row]) for row, answer in enumerate(answers)]
        refused = [count - max(len(each) - 1, 0) for count, each in zip(drafted, chosen, strict=True)]
        cache.rollback(np.array(refused))
        self._draft(answers, cache, states, chosen)
        for row, (answer, each) in enumerate(zip(answers, chosen, strict=True)):
            if answer.prefill and answer.ended in ("stop", "length", "context") and each:
                last = states[row : row + 1, len(each) - 1 : len(each)]
                answer.prefill.keep_answer(cache, row, np.append(answer.ids, answer.tokens), last)

    def _chosen(self, answer: Answer, logits: Array) -> list[int]:
        tokens, drafted, accepted = len(answer.tokens), answer.rounds.drafted, answer.rounds.accepted
        chosen = answer.choose(logits)
        self._counts["tokens"] += len(answer.tokens) - tokens
        self._counts["drafted"] += answer.rounds.drafted - drafted
        self._counts["accepted"] += answer.rounds.accepted - accepted
        return chosen

    def _draft(self, answers: list[Answer], cache: Cache, states: Array, chosen: list[list[int]]) -> None:
        """Let the drafter read what was chosen behind the states [B, S, n, d], and draft what may follow."""
        drafter = self._drafter_for(answers[0])
        if drafter is None:
            return
        tokens, present = in_rows(chosen)
        drafter.read(states[:, : tokens.shape[1]], tokens, cache, present)
        sampler = Sampler.join([answer.sampler for answer in answers])
        for row, answer in enumerate(answers):
            answer.drafts = Drafts([], [])
            if answer.remaining > 1:
                with self._failing([answer]):
                    ids, guesses, confidence = drafter.draft(row, sampler)
                    answer.drafts = Drafts(ids[: answer.remaining - 1], guesses, confidence)

    def _drafter_for(self, answer: Answer) -> Drafter | None:
        """What drafts for an answer, if it wants drafts: the same for all. Raises CheckpointError if there is none."""
        return self._drafter if answer.speculative else None

    @cached_property
    def _drafter(self) -> Drafter:
        return drafter_of(self.model)

    @contextmanager
    def _failing(self, answers: list[Answer]) -> Iterator[None]:
        """What raises inside ends these jobs, and no others."""
        try:
            yield
        except Exception as error:
            for answer in answers:
                answer.fail(error)
