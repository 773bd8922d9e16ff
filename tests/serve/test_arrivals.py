"""Events on their way to the loop: none is lost or late, and most of them wake nobody."""

import asyncio
import random
import threading

from dsv4.serve.arrivals import AT_ONCE, Arrivals
from dsv4.serve.job import Chosen, Ended, Prefilled

FOREVER = 10**6
"""Seconds of a pause that a test would not outlast."""

PATIENCE = 20
"""Seconds after which a test that hangs fails."""

END = Ended("length", 3, 0, 0)


def token(number):
    return Chosen(number, None, False)


def run(test):
    async def limited():
        done, _ = await asyncio.wait([asyncio.ensure_future(test)], timeout=PATIENCE)
        assert done, "something waits for ever"
        for one in done:
            one.result()

    asyncio.run(limited())


async def first_of(arrivals):
    """A token that comes while somebody waits for it."""
    reading = asyncio.create_task(arrivals.batch(FOREVER))
    await asyncio.sleep(0)
    arrivals.put(0, token(1))
    assert await reading == [(0, token(1))]


def test_the_first_token_is_handed_over_at_once():
    async def test():
        arrivals = Arrivals()
        reading = asyncio.create_task(arrivals.batch(FOREVER))
        await asyncio.sleep(0)
        arrivals.put(0, Prefilled(0, ()))
        arrivals.put(0, token(5))
        assert await reading == [(0, Prefilled(0, ())), (0, token(5))]

    run(test())


def test_what_comes_in_a_pause_is_handed_over_together_and_wakes_nobody(monkeypatch):
    async def test():
        loop, pauses, wakes = asyncio.get_running_loop(), [], []
        wake = loop.call_soon_threadsafe
        monkeypatch.setattr(loop, "call_soon_threadsafe", lambda *call: (wakes.append(call), wake(*call)))
        monkeypatch.setattr(loop, "call_later", lambda seconds, *call: (pauses.append(call), loop.call_soon(print))[1])
        arrivals = Arrivals()
        await first_of(arrivals)
        reading = asyncio.create_task(arrivals.batch(FOREVER))
        for number in (2, 3, 4):
            await asyncio.sleep(0)
            arrivals.put(number % 2, token(number))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not reading.done() and len(wakes) == 1
        [(over,)] = pauses
        over()
        assert await reading == [(0, token(2)), (1, token(3)), (0, token(4))]
        assert len(wakes) == 1

    run(test())


def test_the_end_of_a_job_ends_a_pause():
    async def test():
        arrivals = Arrivals()
        await first_of(arrivals)
        reading = asyncio.create_task(arrivals.batch(FOREVER))
        await asyncio.sleep(0)
        arrivals.put(0, token(2))
        arrivals.put(0, END)
        assert await reading == [(0, token(2)), (0, END)]

    run(test())


def test_much_is_handed_over_in_parts_and_others_have_their_turn():
    async def test():
        arrivals, turns = Arrivals(), 0

        async def other():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        for number in range(3 * AT_ONCE):
            arrivals.put(0, token(number))
        arrivals.put(0, END)
        seen = []
        while (0, END) not in seen:
            before = turns
            found = await arrivals.batch(0.0)
            assert len(found) <= AT_ONCE and (not seen or turns > before)
            seen += found
        task.cancel()
        assert seen == [*((0, token(number)) for number in range(3 * AT_ONCE)), (0, END)]

    run(test())


def test_none_is_lost_between_two_threads():
    async def test():
        arrivals, chance = Arrivals(), random.Random(0)

        def say():
            for number in range(2000):
                arrivals.put(number % 3, token(number))
                if chance.random() < 0.1:
                    threading.Event().wait(chance.random() / 2000)
            arrivals.put(0, END)

        thread = threading.Thread(target=say)
        thread.start()
        seen = []
        while not seen or seen[-1] != (0, END):
            seen += await arrivals.batch(chance.choice([0.0, 0.0001, 0.001]))
        thread.join()
        assert seen[:-1] == [(number % 3, token(number)) for number in range(2000)]

    run(test())


def test_nobody_minds_when_the_loop_has_closed():
    async def test():
        return Arrivals()

    arrivals = asyncio.run(test())
    arrivals.put(0, END)
    assert list(arrivals._events) == [(0, END)]
