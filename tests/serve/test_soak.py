"""Many jobs that come and go, with cancellations and failures: nothing is lost, nothing mixed up, nothing kept."""

import gc
import weakref

import numpy as np

import tiny
from dsv4.serve.job import Job
from dsv4.serve.scheduler import Scheduler
from serve.alone import Heard, Rule, every_third_but_one

JOBS = 120
PREFIXES = 300_000


def test_after_many_jobs_nothing_is_left_but_what_is_kept_of_prompts(backend):
    """Every answer is the one of the job alone; caches of jobs that have left are gone, and no prefix is too much."""
    model = tiny.model(backend, dtype=np.float32, max_position_embeddings=200)
    random = np.random.default_rng(0)
    scheduler = Scheduler(model, 4, 64, PREFIXES, lambda: 0.0)
    caches, new_cache = weakref.WeakSet(), model.new_cache

    def counted(*arguments, **named):
        cache = new_cache(*arguments, **named)
        caches.add(cache)
        return cache

    model.new_cache = counted
    pending, answers, checked = [], [], 0
    for number in range(JOBS):
        ids = tiny.tokens(int(random.integers(3)), int(random.choice([1, 5, 66, 130]))).tolist()
        job = Job(
            tuple(ids),
            int(random.integers(1, 6)),
            seed=number,
            top_logprobs=1,
            speculative=bool(random.integers(2)),
            constraint=Rule(every_third_but_one, 40) if random.integers(2) else None,
        )
        heard = Heard()
        answer = scheduler.prepare(job, heard, number)
        scheduler.add(answer)
        answers.append(answer)  # as their owners may hold them
        pending.append((job, heard, answer))
        for _ in range(int(random.integers(3))):
            scheduler.step()
        if random.integers(4) == 0:
            pending[int(random.integers(len(pending)))][2].cancelled = True
        while pending and pending[0][1].ended:
            job, heard, _ = pending.pop(0)
            if number % 5 == 0:
                heard.check(model, job, 64)
            checked += 1
        assert scheduler.figures().prefix_bytes <= PREFIXES
    while scheduler.busy:
        scheduler.step()
    for job, heard, _ in pending:
        heard.check(model, job, 64)
    assert checked + len(pending) == JOBS == sum(scheduler.figures().ended.values())
    gc.collect()
    assert not caches, f"{len(answers)} answers that have ended still have what they were read with"
    assert not scheduler._groups and not scheduler._reading
