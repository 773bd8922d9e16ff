"""Who joins, who has a turn, who leaves, and what goes wrong for one job alone."""

from contextlib import contextmanager

import numpy as np
import pytest

import tiny
from dsv4.errors import CheckpointError, PromptError, SettingError
from dsv4.serve.job import Job
from dsv4.serve.scheduler import Scheduler
from serve.alone import Heard, Rule, every_third_but_one

POISON = 38
"""A token whose embedding is no number, and whatever is computed from it."""


def poisoned(embedding):
    return np.where(np.arange(len(embedding))[:, None] == POISON, np.float32(np.nan), embedding)


@pytest.fixture(scope="module")
def model(backend):
    return tiny.model(backend, dtype=np.float32, max_position_embeddings=400)


@pytest.fixture
def invariant(model):
    """Whether answers are computed together here."""
    return "float32" in model.ops.batch_invariant


class Run:
    """A scheduler with its jobs, and a clock that moves by 1 with each step."""

    def __init__(self, model, running=4, chunk=64, memory=2**26):
        self.model, self.chunk, self.now = model, chunk, 0
        self.scheduler = Scheduler(model, running, chunk, memory, lambda: self.now)
        self.jobs = []

    def add(self, length=3, new=5, *, seed=0, ids=None, late=np.inf, **settings):
        """A job with a prompt of so many tokens, none of them the poison."""
        ids = tiny.tokens(seed, length, vocab=POISON).tolist() if ids is None else ids
        job, heard = Job(tuple(ids), new, seed=seed, **settings), Heard()
        heard.answer = self.scheduler.prepare(job, heard, len(self.jobs), late)
        self.scheduler.add(heard.answer)
        self.jobs.append((job, heard))
        return heard

    def step(self, count=1):
        for _ in range(count):
            self.now += 1
            self.scheduler.step()

    def finish(self):
        while self.scheduler.busy:
            self.step()
        for job, heard in self.jobs:
            heard.check(self.model, job, self.chunk)


@contextmanager
def passes(model):
    """The shapes of the ids of the model's passes."""
    shapes, states = [], model.states

    def noted(ids, *rest):
        shapes.append(np.shape(ids))
        return states(ids, *rest)

    model.states = noted
    try:
        yield shapes
    finally:
        del model.states


def test_a_long_prompt_does_not_stop_the_others(model):
    run = Run(model, chunk=32)
    running = run.add(3, 20)
    run.step()
    long = run.add(300, 5)
    for step in range(300 // 32):
        run.step()
        assert len(running.tokens) == 3 + step and not long.tokens
    run.step()
    assert long.tokens
    run.finish()


def test_a_short_prompt_has_its_turn_before_a_long_one_is_read(model):
    run = Run(model, chunk=32)
    run.add(300, 5)
    short = run.add(10, 5)
    run.step(2)
    assert short.tokens
    run.finish()


def test_several_short_prompts_are_read_in_one_step(model):
    run = Run(model, chunk=32)
    first = [run.add(10, 5, seed=seed) for seed in range(4)]
    run.step()
    assert [bool(heard.tokens) for heard in first][:3] == [True] * 3
    run.finish()


@pytest.mark.parametrize("speculative", [False, True])
def test_a_mixed_company_changes_no_bit(model, speculative):
    """Jobs of all kinds that begin and end one after the other, each with log-probabilities."""
    run = Run(model, chunk=32)
    for seed, (length, new) in enumerate([(10, 9), (40, 3), (45, 12), (150, 7), (3, 9), (70, 5)]):
        rule = Rule(every_third_but_one, 40) if seed % 2 else None
        run.add(length, new, seed=seed, top_logprobs=2, temperature=0.9, speculative=speculative, constraint=rule)
        run.step(seed % 3)
    run.finish()
    assert run.scheduler.figures().ended["length"] == 6


def test_no_more_than_may_run_together_do_and_the_others_wait_in_turn(model):
    run = Run(model, running=2)
    heard = [run.add(4, 3 + number, seed=number) for number in range(5)]
    begun = []
    while run.scheduler.busy:
        run.step()
        begun += [number for number, one in enumerate(heard) if one.events and number not in begun]
        assert run.scheduler.figures().running <= 2
    assert begun == sorted(begun)
    run.finish()


def test_what_is_computed_together_is_one_pass(model, invariant):
    run = Run(model)
    for seed in range(3):
        run.add(5, 6, seed=seed)
    run.step()
    with passes(model) as shapes:
        run.step()
    assert shapes == ([(3, 1)] if invariant else [(1, 1)] * 3)
    run.finish()


def test_a_cancelled_job_leaves_the_batch_at_once(model):
    run = Run(model)
    heard = [run.add(5, 9, seed=seed) for seed in range(3)]
    run.step(2)
    heard[1].answer.cancelled = True
    with passes(model) as shapes:
        run.step()
    assert sum(rows for rows, _ in shapes) == 2
    assert heard[1].ended.reason == "cancelled" and heard[1].ended.tokens == len(heard[1].tokens) == 3
    run.finish()


def test_a_job_that_waits_or_is_being_read_is_cancelled_too(model):
    run = Run(model, running=1, chunk=32)
    reading, waiting = run.add(300), run.add(5)
    run.step()
    for heard in (reading, waiting):
        heard.answer.cancelled = True
    run.step()
    assert [heard.ended.reason for heard in (reading, waiting)] == ["cancelled"] * 2
    assert not run.scheduler.busy and reading.events == [reading.ended]


def test_a_job_whose_time_is_over_ends(model):
    run = Run(model, running=2)
    late, other, waiting = run.add(5, 50, late=4), run.add(5, 50, seed=1), run.add(5, 50, late=3)
    run.step(6)
    assert late.ended.reason == waiting.ended.reason == "time" and not other.ended
    assert len(late.tokens) == late.ended.tokens == 4 and not waiting.tokens
    run.finish()


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("speculative", [False, True])
def test_logits_that_are_no_numbers_end_their_job_alone(backend, speculative):
    run = Run(tiny.model(backend, tiny.checkpoint().changed(embed__weight=poisoned), dtype=np.float32))
    bad = run.add(ids=[1, POISON, 2], speculative=speculative)
    good = [run.add(5, 3, seed=seed, speculative=speculative) for seed in range(2)]
    run.finish()
    assert not any(POISON in one.tokens for one in good)
    assert bad.ended.reason == "error" and bad.ended.message.startswith("logits: expected ")
    assert [one.ended.reason for one in good] == ["length"] * 2


def no_idea(tokens, vocab):
    """A rule that knows nothing behind two tokens."""
    if len(tokens) == 2:
        raise RuntimeError("no idea")


def test_a_constraint_that_fails_ends_its_job_alone(model):
    run = Run(model)
    good, bad = run.add(5, 6), run.add(5, 6, constraint=Rule(no_idea, 40))
    run.jobs.pop()
    run.finish()
    assert (bad.ended.reason, bad.ended.message) == ("error", "RuntimeError: no idea")
    assert len(bad.tokens) == 2 and good.ended.reason == "length"


def test_a_constraint_that_allows_nothing_ends_its_job(model):
    run = Run(model)
    run.add(5, 6, constraint=Rule(lambda tokens, vocab: np.zeros(vocab, bool), 40))
    run.finish()
    assert "expected a number for at least one token" in run.jobs[0][1].ended.message


def test_an_owner_who_raises_loses_the_job_alone(model):
    run = Run(model)
    good, bad, said = run.add(5, 6), Heard(), []

    def raises(event):
        said.append(event)
        if len(said) > 2:
            raise KeyError("gone")

    run.scheduler.add(run.scheduler.prepare(Job((1, 2), 9), raises, 7))
    run.finish()
    assert good.ended.reason == "length" and not bad.events
    assert len(said) == 4 and said[-1].reason == "error" and said[-1].message == "KeyError: 'gone'"


def test_a_pass_that_fails_ends_those_in_it_and_no_others(model):
    run = Run(model)
    plain, drafting, later = run.add(5, 9), run.add(5, 9, speculative=True), run.add(5, 9, seed=3)
    run.step(2)
    states = model.states

    def fails(ids, cache, mask):
        if cache.mtp.layers:
            raise MemoryError("no room")
        return states(ids, cache, mask)

    model.states = fails
    try:
        run.step()
    finally:
        del model.states
    assert drafting.ended.message == "MemoryError: no room"
    run.jobs.pop(1)
    run.finish()
    assert plain.ended.reason == later.ended.reason == "length"


def test_a_second_turn_reads_only_what_is_new(model, invariant):
    run = Run(model, chunk=64)
    first = run.add(150, 9)
    run.finish()
    ids = [*run.jobs[0][0].ids, *first.tokens, 1, 2, 3]
    second = run.add(ids=ids)
    run.finish()
    assert (first.cached, second.cached) == (0, 158 if invariant else 128)
    figures = run.scheduler.figures()
    assert figures.prompt_tokens == 150 + len(ids) - second.cached and figures.cached_tokens == second.cached


@pytest.mark.parametrize("speculative", [False, True])
def test_the_same_prompt_again_computes_its_last_token_alone(model, invariant, speculative):
    run = Run(model)
    run.add(100, 3, speculative=speculative)
    run.finish()
    again, plain = run.add(100, 3, speculative=speculative), run.add(100, 3, speculative=not speculative)
    run.finish()
    assert again.cached == (99 if invariant else 0 if speculative else 64)
    assert plain.cached == 0, "what was read with a drafter stands for nothing that is read without, and the other way"


def test_prompts_that_share_a_beginning_share_its_blocks(model, invariant):
    run = Run(model, chunk=64)
    begin = tiny.tokens(0, 200, vocab=POISON).tolist()
    run.add(ids=[*begin, 1, 2])
    run.finish()
    other = run.add(ids=[*begin[:140], 3])
    run.finish()
    assert other.cached == 128


def test_log_probabilities_of_a_prompt_need_all_of_it(model):
    run = Run(model)
    for wanted in (False, True, True):
        run.add(150, 3, prompt_logprobs=wanted, top_logprobs=2)
        run.finish()
    assert [heard.cached for _, heard in run.jobs] == [0, 0, 0]


def test_nothing_is_kept_without_memory(model):
    run = Run(model, memory=0)
    for _ in range(2):
        run.add(150, 3)
        run.finish()
    assert run.jobs[1][1].cached == 0 and run.scheduler.figures().prefix_entries == 0


def test_the_context_ends_an_answer(model):
    run = Run(model, chunk=512)
    heard = run.add(396, 50), run.add(400, 50), run.add(396, 5)
    run.finish()
    assert [(one.ended.reason, one.ended.tokens) for one in heard] == [("context", 5), ("context", 1), ("length", 5)]


def test_figures_count_what_was_done(model):
    run = Run(model)
    for seed in range(3):
        run.add(10, 6, seed=seed, speculative=seed == 1)
    run.finish()
    figures = run.scheduler.figures()
    ends = [heard.ended for _, heard in run.jobs]
    assert figures.ended == dict.fromkeys(("stop", "context", "cancelled", "time", "error"), 0) | {"length": 3}
    assert (figures.tokens, figures.prompt_tokens, figures.running, figures.waiting) == (18, 30, 0, 0)
    assert figures.drafted == sum(end.drafted for end in ends) > 0
    assert figures.accepted == sum(end.accepted for end in ends)
    assert (
        figures.prefix_entries == len(run.scheduler.prefixes) and figures.prefix_bytes == run.scheduler.prefixes.nbytes
    )


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"ids": ()}, PromptError, "prompt 0: expected at least one token"),
        ({"ids": (40,)}, PromptError, "expected 0 … 39, found 40"),
        ({"ids": (1,) * 401}, PromptError, "prompt 0: expected at most 400 tokens, found 401"),
        ({"ids": ((1, 2), (3,))}, PromptError, "prompt 0"),
        ({"ids": ("1",)}, PromptError, "prompt 0"),
        ({"max_new_tokens": 0}, SettingError, "max_new_tokens"),
        ({"temperature": -1}, SettingError, "temperature"),
        ({"top_p": 0}, SettingError, "top_p"),
        ({"seed": -1}, SettingError, "seed"),
        ({"stop_ids": "a"}, SettingError, "stop_ids"),
        ({"top_logprobs": 41}, SettingError, "top_logprobs"),
        ({"prompt_logprobs": 1}, SettingError, "prompt_logprobs"),
        ({"speculative": "yes"}, SettingError, "speculative"),
    ],
)
def test_a_job_that_cannot_be_done(model, changes, error, message):
    with pytest.raises(error, match=message):
        Run(model).scheduler.prepare(Job(**({"ids": (1,), "max_new_tokens": 1} | changes)), Heard(), 0)


def test_drafts_without_a_drafter(backend):
    model = tiny.model(backend, dtype=np.float32, num_nextn_predict_layers=0, compress_ratios=(0, 4))
    with pytest.raises(CheckpointError, match="to draft with"):
        Run(model).scheduler.prepare(Job((1,), 1, speculative=True), Heard(), 0)


@pytest.mark.parametrize("settings", [{"running": 0}, {"chunk": 0}, {"memory": -1}], ids=repr)
def test_settings_out_of_range(model, settings):
    with pytest.raises(SettingError):
        Run(model, **settings)
