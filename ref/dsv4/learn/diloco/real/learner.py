"""A learner as a process: its steps in one thread, what comes from outside in others, and nobody waits."""

import os
import signal
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from dsv4.learn.blas import one_blas_thread
from dsv4.learn.diloco.chaos import Chaos
from dsv4.learn.diloco.messages import Change, Fragment, Progress, Request
from dsv4.learn.diloco.real.lines import Line, Outbox
from dsv4.learn.diloco.real.wire import packed, unpacked
from dsv4.learn.diloco.recovery import rejoined


class LearnerProcess:
    """What Ray makes an actor of. Its methods are called by several threads; `run` by one."""

    def __init__(self, start: Any, number: int, life: int, chaos: Chaos, began: float, state: Mapping[str, Any] | None):
        """start: makes the learner; life: how often it was killed before; began: when the run began, by `time.time`.

        state: what it begins with after a failure, of `recovery.copy_of`; None at the start of a run.
        """
        self.learner = start.learner(number)
        if state is not None:
            self.learner = rejoined(self.learner, state)
        self._began, self._syncer, self._syncers_life = began, None, 0
        self._outbox = Outbox(f"{number}.{life}")
        self._lock, self._more = threading.Lock(), threading.Event()
        self._waiting: list[Fragment | Change] = []
        self._asked: list[tuple[int, Future[tuple[Any, bytes]]]] = []
        deaths = [kill.after for kill in chaos.kills if kill.who == number]
        self._dies_after = deaths[life] if life < len(deaths) else None
        self._seconds: float | None = None
        if state is not None:
            self._line("returned")
        self._times = dict(chaos.slow).get(number, 1.0)
        self._unread: list[Any] = []

    def meet(self, syncer: Any, life: int) -> None:
        """The syncer's handle, at the start and whenever there is a new one; of two calls the later life holds."""
        with self._lock:
            if life < self._syncers_life:
                return
            self._syncer, self._syncers_life = syncer, life
        if self._seconds is not None or self.learner.is_done:
            self._send(Progress(self.learner.number, self.learner.trainer.step, self._seconds or 1.0))

    def hear(self, sent: bytes) -> None:
        """Requests are answered at once, with what the last step has left; fragments wait for the end of the step."""
        message: Request | Fragment | Change = unpacked(sent)
        if not isinstance(message, Request):
            with self._lock:
                self._waiting.append(message)
            self._more.set()
            return
        with self._lock:
            update = self.learner.update(message)
            if update is not None:
                self._line("answered", round=message.round, steps=update.steps)
        if update is not None:
            self._send(update)

    def state(self, number: int) -> tuple[Any, bytes]:
        """Its state between two steps, for a learner that returns, and the lines up to there, as `hear` takes them."""
        asked: Future[tuple[Any, bytes]] = Future()
        with self._lock:
            self._asked.append((number, asked))
        self._more.set()
        return asked.result()

    def run(self) -> None:
        """All steps; then only what comes from outside, until somebody ends the process."""
        with one_blas_thread():
            while not self.learner.is_done:
                start = time.monotonic()
                report = self.learner.advance()
                seconds = time.monotonic() - start
                if self._times > 1:  # a slow machine; fragments may come meanwhile
                    threading.Event().wait((self._times - 1) * seconds)
                    seconds *= self._times
                self._seconds = seconds
                with self._lock:
                    self.learner.count(report)
                    about = {"step": report.step, "loss": report.loss, "tokens": report.tokens, "seconds": seconds}
                    self._line("step", **about)
                self._between_steps()
                self._send(Progress(self.learner.number, self.learner.trainer.step, seconds))
                if self._dies_after is not None and report.step + 1 >= self._dies_after:
                    os.kill(os.getpid(), signal.SIGKILL)
            while True:
                self._more.wait()
                self._more.clear()
                self._between_steps()

    def _between_steps(self) -> None:
        """Put in place what has come, and give its state to whoever asked."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
            for fragment in waiting:
                if self.learner.receive(fragment):
                    self._line("received", fragment=fragment.fragment, version=fragment.version)
            asked, self._asked = self._asked, []
            for number, future in asked:
                self._outbox.line(
                    {"time": self._now(), "event": "copied", "learner": number, "peer": self.learner.number}
                )
                future.set_result((self.learner.state(), packed(self._outbox.tell(None))))

    def _line(self, event: str, **about: Any) -> None:
        """A line of the tape; the lock is held."""
        line: Line = {"time": self._now(), "event": event, "learner": self.learner.number}
        self._outbox.line(line | about)

    def _now(self) -> float:
        return round(time.time() - self._began, 3)

    def _send(self, message: Any) -> None:
        """To the syncer, if there is one; the lines that are known to have arrived need not go again."""
        import ray

        with self._lock:
            unread, self._unread = self._unread, []
            for ref in unread:
                try:
                    self._outbox.arrived(ray.get(ref, timeout=0))
                except ray.exceptions.GetTimeoutError:
                    self._unread.append(ref)
                except ray.exceptions.RayError:
                    continue  # that syncer is gone: what it may not have read goes again
            if self._syncer is not None:
                self._unread.append(self._syncer.hear.remote(packed(self._outbox.tell(message))))
