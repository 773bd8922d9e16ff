"""The thread: jobs from several threads, a full queue, and every way to stop. Nothing here waits for a time."""

import queue
import threading
from dataclasses import replace

import numpy as np
import pytest

import tiny
from dsv4.errors import SettingError
from dsv4.serve.engine import Engine, Full, Stopped
from dsv4.serve.job import Ended, Job
from serve.alone import Heard

PATIENCE = 120
"""Seconds after which a test that hangs fails."""


@pytest.fixture(scope="module")
def model(backend):
    return tiny.model(backend, dtype=np.float32, max_position_embeddings=400)


@pytest.fixture
def engine(model):
    """Starts engines, and stops them all in the end."""
    started = []

    def start(**settings):
        started.append(Engine(model, **settings))
        return started[-1]

    yield start
    for one in started:
        one.stop(finish=False)


class Listener(Heard):
    """An owner who can be waited for, and who can hold the engine up at the first event until it is let go."""

    def __init__(self, holds=False):
        super().__init__()
        self.over, self.held, self.go = threading.Event(), threading.Event(), threading.Event()
        if not holds:
            self.go.set()

    def __call__(self, event):
        super().__call__(event)
        self.held.set()
        assert self.go.wait(PATIENCE)
        if isinstance(event, Ended):
            self.over.set()

    def wait(self):
        assert self.over.wait(PATIENCE)
        return self.ended


def job(seed=0, length=5, new=6, **settings):
    return Job(tuple(tiny.tokens(seed, length).tolist()), new, seed=seed, **settings)


def held(engine):
    """A job at whose first event the engine stands still."""
    listener = Listener(holds=True)
    engine.submit(job(new=20), listener)
    assert listener.held.wait(PATIENCE)
    return listener


def test_jobs_of_several_threads_are_those_of_each_alone(model, engine):
    running, results = engine(running=3, prefill_chunk=32), queue.SimpleQueue()

    def client(number):
        for turn in range(3):
            listener = Listener()
            wanted = job(number, 40 * turn + 3, 7, speculative=number % 2 == 1, top_logprobs=2)
            ticket = running.submit(wanted, listener)
            listener.wait()
            results.put((ticket.number, wanted, listener))

    threads = [threading.Thread(target=client, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    found = [results.get_nowait() for _ in range(12)]
    assert sorted(number for number, *_ in found) == list(range(12))
    for _, wanted, listener in found:
        listener.check(model, wanted, 32)
    assert running.figures().ended["length"] == 12 and running.figures().running == 0


def test_a_full_engine_says_so_and_takes_jobs_again_when_one_has_ended(engine):
    running = engine(running=2, waiting=1)
    first = held(running)
    others = [Listener(), Listener()]
    for number, listener in enumerate(others):
        running.submit(job(number), listener)
    with pytest.raises(Full, match="expected fewer than 3 jobs"):
        running.submit(job(), Listener())
    assert running.figures().waiting == 2
    first.go.set()
    for listener in (first, *others):
        listener.wait()
    again = Listener()
    assert running.submit(job(), again).number == 3
    again.wait()


def test_there_is_room_as_soon_as_the_end_is_said(engine):
    running, later, refused = engine(running=1, waiting=0), Listener(), []
    over = threading.Event()

    def follow(event):
        if isinstance(event, Ended):
            try:
                running.submit(job(1), later)
            except Full as error:
                refused.append(error)
            over.set()

    running.submit(job(), follow)
    assert over.wait(PATIENCE) and not refused
    assert later.wait().reason == "length"


def test_a_refused_job_takes_no_place(engine):
    running = engine(running=1, waiting=0)
    for _ in range(3):
        with pytest.raises(SettingError):
            running.submit(job(new=0), Listener())
    listener = Listener()
    assert running.submit(job(), listener).number == 0
    listener.wait()


def test_a_job_is_cancelled_from_another_thread_any_number_of_times(engine):
    running = engine()
    listener = Listener(holds=True)
    ticket = running.submit(job(new=300), listener)
    assert listener.held.wait(PATIENCE)
    for _ in range(2):
        ticket.cancel()
    listener.go.set()
    assert listener.wait().reason == "cancelled"
    ticket.cancel()
    assert running.figures().ended["cancelled"] == 1


def test_time_runs_from_the_submission(engine):
    running, listener = engine(time_limit=1e-9), Listener()
    running.submit(job(), listener)
    assert listener.wait() == Ended("time", 0, 0, 0)


@pytest.mark.parametrize("finish", [True, False])
def test_stopping_lets_jobs_end_or_cancels_them(model, engine, finish):
    running = engine(running=1)
    first, second = held(running), Listener()
    running.submit(job(1), second)
    stopper = threading.Thread(target=running.stop, args=[finish])
    stopper.start()
    with running._wake:
        assert running._wake.wait_for(lambda: running._stopping, PATIENCE)
    with pytest.raises(Stopped):
        running.submit(job(), Listener())
    first.go.set()
    stopper.join(PATIENCE)
    assert not stopper.is_alive()
    assert {first.wait().reason, second.wait().reason} == ({"length"} if finish else {"cancelled"})
    first.check(model, job(new=20), 512)


def test_who_is_not_ready_in_time_is_cancelled(engine):
    running = engine()
    first = held(running)
    stopper = threading.Thread(target=running.stop, kwargs={"timeout": 0})
    stopper.start()
    with running._wake:
        assert running._wake.wait_for(lambda: running._cancelling, PATIENCE)
    first.go.set()
    stopper.join(PATIENCE)
    assert first.wait().reason == "cancelled" and not running._thread.is_alive()


def test_an_engine_that_has_nothing_to_do_stops_at_once_and_again(engine):
    running = engine()
    running.stop()
    running.stop(finish=False)
    assert not running._thread.is_alive()
    with pytest.raises(Stopped):
        running.submit(job(), Listener())


def test_memory_of_prefixes_stays_within_its_limit(engine):
    running = engine(prefix_memory=200_000, prefill_chunk=64)
    for number in range(6):
        listener = Listener()
        running.submit(job(number, 200), listener)
        listener.wait()
        assert running.figures().prefix_bytes <= 200_000
    assert running.figures().prefix_entries > 0


def test_an_answer_does_not_depend_on_when_its_job_came(model, engine):
    """The same job into an idle engine, and among others that begin and end while it runs."""
    running, wanted = engine(prefill_chunk=32), job(9, 150, 12, top_logprobs=1)
    alone, among, others = Listener(), Listener(), [Listener() for _ in range(5)]
    running.submit(wanted, alone)
    alone.wait()
    for number, listener in enumerate(others[:3]):
        running.submit(job(number, 100, number + 1), listener)
    running.submit(wanted, among)
    for number, listener in enumerate(others[3:]):
        running.submit(job(number, 20, 9), listener)
    for listener in (among, *others):
        listener.wait()
    assert among.events[1:] == alone.events[1:] and replace(among.events[0], cached=0) == alone.events[0]
    alone.check(model, wanted, 32)


@pytest.mark.parametrize(
    "settings",
    [{"waiting": -1}, {"running": 0}, {"time_limit": 0}, {"time_limit": "1"}, {"prefill_chunk": 0}],
    ids=repr,
)
def test_settings_out_of_range(model, settings):
    with pytest.raises(SettingError):
        Engine(model, **settings)
