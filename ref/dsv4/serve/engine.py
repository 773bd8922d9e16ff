"""One thread that runs a model for all who ask: jobs come in by a queue, and what becomes of them goes out by calls."""

from dsv4.errors import DSV4Error
from dsv4.model.model import Model
from dsv4.serve.job import Figures, Job, OnEvent


class Full(DSV4Error):
    """As many jobs wait as may wait."""


class Stopped(DSV4Error):
    """The engine has stopped, or is about to: it takes no more jobs."""


class Ticket:
    """A job that was submitted."""

    number: int
    """Counts from 0 in the order of submission."""

    def cancel(self) -> None:
        """End the job, if it has not ended: its last event says "cancelled". From any thread, any number of times."""
        raise NotImplementedError


class Engine:
    """Continues prompts with one model, all at once, in a thread of its own.

    Every job gets the tokens and log-probabilities that `dsv4.generate` gives for it alone with the same seed, whatever
    else runs, leaves or is cancelled meanwhile, and whether or not a part of its prompt was computed before.
    """

    def __init__(
        self,
        model: Model,
        *,
        running: int = 16,
        waiting: int = 64,
        prefill_chunk: int = 256,
        prefix_memory: int = 2**28,
        time_limit: float | None = None,
    ) -> None:
        """Start the thread.

        running: how many jobs at most are computed together; waiting: how many more may wait. prefill_chunk: how many
        tokens of prompts the model reads in a pass, before those that are being answered get their next token.
        prefix_memory: bytes that the caches of prompts and answers may take that are kept for what begins like them; 0
        for none. time_limit: seconds from its submission after which a job is ended. Raises SettingError.
        """
        raise NotImplementedError

    def submit(self, job: Job, on_event: OnEvent) -> Ticket:
        """Have a job done. From any thread; returns at once.

        on_event: called in the engine's thread with each event: `Prefilled`, then each `Chosen`, then `Ended`. A job
        that ends early has only some of these before `Ended`, which always comes. It must return quickly. What it
        raises ends its job, with "error". Raises Full if too many jobs wait, Stopped after `stop`, and as
        `dsv4.generate` does PromptError, SettingError or CheckpointError for a job that cannot be done.
        """
        raise NotImplementedError

    def figures(self) -> Figures:
        """What the engine does and has done. From any thread."""
        raise NotImplementedError

    def stop(self, finish: bool = True, timeout: float | None = None) -> None:
        """Take no more jobs, and return when the thread has ended. From any other thread, any number of times.

        finish: let the jobs that run or wait come to their end; else they are cancelled. timeout: seconds after which
        those that are left are cancelled.
        """
        raise NotImplementedError
