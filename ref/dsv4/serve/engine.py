"""One thread that runs a model for all who ask: jobs come in by a queue, and what becomes of them goes out by calls."""

import math
import threading
import time
from dataclasses import replace

from dsv4.arguments import integer, number
from dsv4.errors import DSV4Error, SettingError, quoted
from dsv4.model.language_model import LanguageModel
from dsv4.serve.answer import Answer
from dsv4.serve.job import Figures, Job, OnEvent
from dsv4.serve.scheduler import Scheduler
from dsv4.text.generate import PREFILL_CHUNK
from dsv4.text.prefixes import PREFIX_MEMORY


class Full(DSV4Error):  # noqa: N818 - what has happened, not a mistake
    """As many jobs run and wait as may."""


class Stopped(DSV4Error):  # noqa: N818
    """The engine has stopped, or is about to: it takes no more jobs."""


class Ticket:
    """A job that was submitted."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.number = answer.number
        """Counts from 0 in the order of submission."""

    def cancel(self) -> None:
        """End the job, if it has not ended: its last event says "cancelled". From any thread, any number of times."""
        self._answer.cancelled = True


class Engine:
    """Continues prompts with one model, all at once, in a thread of its own.

    Every job gets the tokens and log-probabilities that `dsv4.generate` gives for it alone with the same seed, whatever
    else runs, leaves or is cancelled meanwhile, and whether or not a part of its prompt was computed before. Where the
    backend is not batch-invariant, that holds for calls of `generate` with the same prefill_chunk.
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        running: int = 16,
        waiting: int = 64,
        prefill_chunk: int = PREFILL_CHUNK,
        prefix_memory: int = PREFIX_MEMORY,
        time_limit: float | None = None,
    ) -> None:
        """Start the thread.

        running: how many jobs at most are computed together; waiting: how many more may wait. prefill_chunk: how many
        tokens of prompts the model reads before those that are being answered get their next token. prefix_memory:
        bytes that the caches of prompts and answers may take that are kept for what begins like them; 0 for none.
        time_limit: seconds from its submission after which a job is ended. Raises SettingError.
        """
        self._scheduler = Scheduler(model, running, prefill_chunk, prefix_memory, time.monotonic)
        self._most = running + integer("waiting", waiting)
        self._time_limit = math.inf if time_limit is None else number("time_limit", time_limit)
        if self._time_limit <= 0:
            raise SettingError(f"time_limit: expected a number of seconds above 0, found {quoted(time_limit)}")
        self._wake = threading.Condition()
        self._submitted: list[Answer] = []
        """Those that the thread has not seen yet."""
        self._number = 0
        self._stopping = self._cancelling = False
        self._thread = threading.Thread(target=self._run, name="dsv4-engine", daemon=True)
        self._thread.start()

    def submit(self, job: Job, on_event: OnEvent) -> Ticket:
        """Have a job done. From any thread; returns at once.

        on_event: called in the engine's thread with each event: `Prefilled`, then each `Chosen`, then `Ended`. A job
        that ends early has only some of these before `Ended`, which always comes. It must return quickly. What it
        raises ends its job, with "error". Raises Full if too many jobs wait, Stopped after `stop`, and as
        `dsv4.generate` does PromptError, SettingError or CheckpointError for a job that cannot be done.
        """
        with self._wake:
            if self._stopping:
                raise Stopped("engine: expected one that runs, found one that has been stopped")
            if self._number - self._scheduler.ended.total() >= self._most:
                raise Full(f"engine: expected fewer than {self._most} jobs that run or wait, found as many")
            deadline = time.monotonic() + self._time_limit
            answer = self._scheduler.prepare(job, on_event, self._number, deadline)
            self._number += 1
            self._submitted.append(answer)
            self._wake.notify()
        return Ticket(answer)

    def figures(self) -> Figures:
        """What the engine does and has done. From any thread."""
        with self._wake:
            figures = self._scheduler.figures()
            return replace(figures, waiting=figures.waiting + len(self._submitted))

    def stop(self, finish: bool = True, timeout: float | None = None) -> None:
        """Take no more jobs, and return when the thread has ended. From any other thread, any number of times.

        finish: let the jobs that run or wait come to their end; else they are cancelled. timeout: seconds after which
        those that are left are cancelled.
        """
        with self._wake:
            self._stopping, self._cancelling = True, self._cancelling or not finish
            self._wake.notify_all()
        self._thread.join(timeout)
        if self._thread.is_alive():
            with self._wake:
                self._cancelling = True
                self._wake.notify_all()
            self._thread.join()

    def _run(self) -> None:
        """Go on with what there is to do until the engine is stopped and nothing is left."""
        scheduler = self._scheduler
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._submitted or scheduler.busy or self._stopping)
                submitted, self._submitted = self._submitted, []
                cancelling, stopping = self._cancelling, self._stopping
            for answer in submitted:
                scheduler.add(answer)
            if stopping and not scheduler.busy:
                return
            if cancelling:
                scheduler.cancel_all()
            scheduler.step()
