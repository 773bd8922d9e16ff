"""What `dsv4.generate` makes of a job alone, with what the engine says of it besides: the truth for every test here."""

import copy
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from dsv4.errors import DSV4Error
from dsv4.serve.job import Chosen, Ended, LogProb, Prefilled
from dsv4.serve.scheduler import SCORED_AT_ONCE
from dsv4.text.generate import generate


class Rule:
    """A constraint whose rule is a function of the tokens of the answer so far: a test can ask it about any."""

    def __init__(self, rule, vocab):
        self.rule, self.vocab, self.tokens = rule, vocab, []

    def allowed(self):
        return self.rule(self.tokens, self.vocab)

    def accept(self, token):
        self.tokens.append(token)


def every_third_but_one(tokens, vocab):
    """Anything at the beginning; then no token of a third of them, which depends on what came before."""
    return np.arange(vocab) % 3 != (sum(tokens) + len(tokens)) % 3 if tokens else None


@dataclass
class Truth:
    """What a job must be told."""

    tokens: list
    logprobs: list
    accepted: list
    ended: Ended


def alone(model, job, prefill_chunk):
    """Generate for one job as the only one, and note the logits that each token was chosen from."""
    watched = Watched(model, job)
    generation = generate(
        watched.model,
        job.ids,
        job.max_new_tokens,
        temperature=job.temperature,
        top_p=job.top_p,
        seed=job.seed,
        stop_ids=job.stop_ids,
        speculative=job.speculative,
        prefill_chunk=prefill_chunk,
    )
    tokens, accepted, message = [], [False], ""
    generation.rounds.watch = lambda one: accepted.extend([True] * one.accepted + [False] * len(one.following))
    try:
        tokens.extend(token.id for token in generation)
    except DSV4Error as error:
        message = str(error)
    first = len(job.ids) - 1
    logprobs = [None] * len(tokens)
    if job.top_logprobs is not None:
        logprobs = [logprob(watched.logits[first + n], token, job.top_logprobs) for n, token in enumerate(tokens)]
    reason = "error" if message else "stop" if tokens[-1] in job.stop_ids else "length"
    if reason == "length" and len(tokens) < job.max_new_tokens:
        reason = "context"
    ended = Ended(reason, len(tokens), generation.drafted, generation.accepted, message)
    return Truth(tokens, logprobs, accepted if job.speculative else [False] * len(tokens), ended)


class Watched:
    """A model that keeps the logits behind each position, and lets only what a job's rule allows be chosen."""

    def __init__(self, model, job):
        self.tape, self.logits, self.end = {}, {}, 0
        self.model = copy.copy(model)
        self.model.states, self.model.head = partial(self._states, model), partial(self._head, model)
        self.rule = job.constraint.rule if job.constraint else lambda tokens, vocab: None
        self.prompt = len(job.ids)

    def _states(self, model, ids, cache, mask):
        start = int(cache.lengths[0])
        self.end = start + ids.shape[1]
        self.tape |= {start + place: int(token) for place, token in enumerate(ids[0])}
        return model.states(ids, cache, mask)

    def _head(self, model, states):
        logits = model.ops.to_numpy(model.head(states)).copy()
        masked = logits.copy()
        for place in range(logits.shape[1]):
            position = self.end - logits.shape[1] + place
            self.logits[position] = logits[0, place]
            answer = [self.tape[p] for p in range(self.prompt, position + 1)]
            allowed = self.rule(answer, logits.shape[-1])
            if allowed is not None:
                masked[0, place, ~allowed] = -np.inf
        return model.ops.asarray(masked)


def logprob(logits, token, top):
    """log softmax in float64, written out, and the likeliest tokens."""
    wide = np.array(logits, np.float64)
    shifted = wide - wide.max()
    found = shifted - np.log(np.exp(shifted).sum())
    order = sorted(range(len(found)), key=lambda one: (-found[one], one))[:top]
    return LogProb(int(token), float(found[token]), tuple((one, float(found[one])) for one in order))


def prompt_logprobs(model, job, prefill_chunk):
    """Those of the prompt's tokens, each from the logits behind the token before it; None for the first."""
    cache, rows = model.new_cache(1, 0, drafts=False), []
    for start in range(0, len(job.ids), prefill_chunk):
        states = model.states([job.ids[start : start + prefill_chunk]], cache)
        for first in range(0, states.shape[1], SCORED_AT_ONCE):
            rows.extend(model.ops.to_numpy(model.head(states[:, first : first + SCORED_AT_ONCE]))[0])
    pairs = zip(rows[:-1], job.ids[1:], strict=True)
    return (None, *(logprob(row, token, job.top_logprobs or 0) for row, token in pairs))


class Heard:
    """An owner of a job, who keeps what is said."""

    def __init__(self):
        self.events = []

    def __call__(self, event):
        assert not self.ended, "something came behind the end"
        self.events.append(event)

    @property
    def ended(self):
        return self.events[-1] if self.events and isinstance(self.events[-1], Ended) else None

    @property
    def tokens(self):
        return [event.token for event in self.events if isinstance(event, Chosen)]

    @property
    def cached(self):
        return self.events[0].cached

    def check(self, model, job, prefill_chunk):
        """What was said is what the job alone would give, up to where it was ended by others."""
        truth = alone(model, fresh(job), prefill_chunk)
        chosen = [event for event in self.events if isinstance(event, Chosen)]
        count = len(chosen)
        assert [one.token for one in chosen] == truth.tokens[:count]
        assert [one.logprob for one in chosen] == truth.logprobs[:count]
        assert [one.accepted for one in chosen] == truth.accepted[:count]
        assert self.ended and self.ended.tokens == count
        if self.ended.reason in ("stop", "length", "context", "error"):
            message = self.ended.message
            assert replace(self.ended, message="") == replace(truth.ended, message="")
            assert truth.ended.message == (message and f"sequence 0: {message}")
        if self.events[:-1]:
            begun = self.events[0]
            assert isinstance(begun, Prefilled) and 0 <= begun.cached < len(job.ids)
            wanted = prompt_logprobs(model, job, prefill_chunk) if job.prompt_logprobs else ()
            assert begun.prompt == wanted


def fresh(job):
    """The same job with a constraint that has seen nothing yet."""
    rule = job.constraint and Rule(job.constraint.rule, job.constraint.vocab)
    return replace(job, constraint=rule)
