"""Events on their way from the engine's thread to an event loop, which they wake as seldom as can be."""

import asyncio
from collections import deque
from contextlib import suppress

from dsv4.serve.job import Chosen, Ended, Event

AT_ONCE = 64
"""How many events are handed over together at most: then it is the turn of other requests."""


class Arrivals:
    """What the jobs of one request say, in batches.

    To wake the loop for a token, and to send it by itself, takes far longer than to read it. So the first token wakes
    the loop; after each batch the reader rests for a pause, and takes what has come meanwhile together. The end of a
    job ends a pause.
    """

    def __init__(self) -> None:
        """For the loop that runs."""
        self._loop, self._woken = asyncio.get_running_loop(), asyncio.Event()
        self._events = deque[tuple[int, Event]]()
        self._sleeps = True
        """Whether the next token has to wake the reader."""
        self._rests = self._more = False
        """Whether a batch was given, after which there is a pause; and whether there was more than it could hold."""

    def put(self, number: int, event: Event) -> None:
        """An event of this job. From any thread."""
        self._events.append((number, event))
        if isinstance(event, Ended) or (self._sleeps and isinstance(event, Chosen)):
            self._sleeps = False
            with suppress(RuntimeError):  # the loop has closed: nobody waits
                self._loop.call_soon_threadsafe(self._woken.set)

    async def batch(self, pause: float) -> list[tuple[int, Event]]:
        """The next events, at least one, with the number of the job of each. pause: in seconds."""
        if self._more:
            await asyncio.sleep(0)
        elif self._rests:
            timer = self._loop.call_later(pause, self._woken.set)
            await self._wake()
            timer.cancel()
        self._sleeps = True  # before the look: what comes behind it wakes
        while not self._events:
            await self._wake()
        self._sleeps, self._rests = False, True
        batch = [self._events.popleft() for _ in range(min(len(self._events), AT_ONCE))]
        self._more = bool(self._events)
        return batch

    async def _wake(self) -> None:
        await self._woken.wait()
        self._woken.clear()
