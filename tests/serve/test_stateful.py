"""Whatever joins, leaves, is cancelled or reuses a prefix: each job is told what `generate` would give for it alone."""

import numpy as np
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

import tiny
from dsv4.serve.job import Job
from dsv4.serve.scheduler import Scheduler
from serve.alone import Heard, Rule, every_third_but_one

CONTEXT = 300
LENGTHS = st.sampled_from([1, 2, 3, 9, 60, 127, 128, 129, 130, 200, 257, 290, 300])
VOCAB = tiny.CONFIG.vocab_size

SETTINGS = st.fixed_dictionaries(
    {
        "max_new_tokens": st.integers(1, 14),
        "temperature": st.sampled_from([0.0, 0.7, 1.0]),
        "top_p": st.sampled_from([1.0, 0.8]),
        "seed": st.integers(0, 3),
        "stop_ids": st.sampled_from([frozenset(), frozenset([7, 8, 9])]),
        "top_logprobs": st.sampled_from([None, 0, 3]),
        "prompt_logprobs": st.sampled_from([False, False, False, True]),
        "speculative": st.booleans(),
    }
)


def machine(model):
    """A state machine over the schedulers of one model."""

    class Machine(RuleBasedStateMachine):
        @initialize(
            running=st.integers(1, 5),
            chunk=st.sampled_from([5, 64, 200]),
            memory=st.sampled_from([2**24, 2**18, 0]),
        )
        def start(self, running, chunk, memory):
            self.now, self.chunk, self.running = 0.0, chunk, running
            self.scheduler = Scheduler(model, running, chunk, memory, lambda: self.now)
            self.jobs, self.answers, self.checked = [], [], 0

        @rule(tape=st.integers(0, 1), length=LENGTHS, other_end=st.booleans(), constrained=st.booleans(), how=SETTINGS)
        def submit(self, tape, length, other_end, constrained, how):
            """A prompt that begins like others; its last token may be another one."""
            ids = tiny.tokens(tape, CONTEXT)[:length].tolist()
            ids[-1] = (ids[-1] + other_end) % VOCAB
            self.add(ids, constrained, how)

        @precondition(lambda self: any(heard.tokens for _, heard in self.jobs))
        @rule(which=st.integers(0, 9), more=st.integers(1, 20), constrained=st.booleans(), how=SETTINGS)
        def next_turn(self, which, more, constrained, how):
            """A prompt that goes on behind an answer, or behind what there is of it."""
            said = [(job, heard) for job, heard in self.jobs if heard.tokens]
            job, heard = said[which % len(said)]
            ids = [*job.ids, *heard.tokens, *tiny.tokens(which, more)]
            self.add(ids[:CONTEXT], constrained, how)

        def add(self, ids, constrained, how):
            constraint = Rule(every_third_but_one, VOCAB) if constrained else None
            job, heard = Job(tuple(int(one) for one in ids), constraint=constraint, **how), Heard()
            answer = self.scheduler.prepare(job, heard, len(self.jobs), self.now + 50)
            self.scheduler.add(answer)
            self.jobs.append((job, heard))
            self.answers.append(answer)

        @rule(count=st.integers(1, 6))
        def step(self, count):
            for _ in range(count):
                self.now += 1
                self.scheduler.step()
                figures = self.scheduler.figures()
                assert figures.running <= self.running
                assert figures.prefix_bytes <= self.scheduler.prefixes.memory
            while self.checked < len(self.jobs) and self.jobs[self.checked][1].ended:
                self.check(self.checked)
                self.checked += 1

        @precondition(lambda self: self.answers)
        @rule(which=st.integers(0, 9))
        def cancel(self, which):
            self.answers[which % len(self.answers)].cancelled = True

        def check(self, number):
            job, heard = self.jobs[number]
            heard.check(model, job, self.chunk)

        def teardown(self):
            if not hasattr(self, "jobs"):
                return
            for _ in range(60):  # the last of them are late by then
                self.step(1)
            assert not self.scheduler.busy
            for number in range(self.checked, len(self.jobs)):
                self.check(number)
            assert sum(self.scheduler.figures().ended.values()) == len(self.jobs)

    return Machine


SMALL = {"max_position_embeddings": CONTEXT}
MODELS = {
    "mtp": lambda backend: tiny.model(backend, dtype=np.float32, **SMALL),
    "dspark": lambda backend: tiny.model(backend, dtype=np.float32, **(tiny.DSPARK | SMALL)),
    "rounded": lambda backend: tiny.model(
        backend, tiny.quantised(tiny.checkpoint(**(tiny.WIDE | SMALL))), fake_quant=True, dtype=np.float32
    ),
}


@pytest.mark.parametrize("kind", MODELS)
def test_every_answer_is_the_one_that_the_job_alone_would_get(backend, kind):
    phases = (Phase.generate,) if settings.default.derandomize else settings.default.phases  # shrinking takes minutes
    run_state_machine_as_test(
        machine(MODELS[kind](backend)), settings=settings(stateful_step_count=15, phases=phases, max_examples=6)
    )
