"""The roof of everything that is bound by memory: how fast this machine reads, found by adding up a large buffer."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from dsv4.ops import Ops
from dsv4_accel.bench.machine import available_bytes, cache_bytes

Words = npt.NDArray[np.uint64]

CACHES = 4
"""How many times the last cache the buffer holds."""

LEAST_BYTES = 2**28

DEVICE_BYTES = 2**29
"""More than the cache of any GPU holds."""


def buffer_bytes() -> int:
    """The size of a buffer that no cache holds: four times the last cache, but at most a twelfth of the free memory."""
    return min(max(CACHES * cache_bytes(), LEAST_BYTES), available_bytes() // 12)


class Roof:
    """A buffer of `nbytes` bytes, and the fastest known way to add it up with so many threads."""

    def __init__(self, nbytes: int, threads: int) -> None:
        self.threads = threads
        self.buffer: Words = np.ones(nbytes // 8, np.uint64)
        self._pool = ThreadPoolExecutor(threads)
        sums: dict[str, Callable[[Words], Any]] = {"NumPy sums in threads": np.add.reduce}
        if find_spec("numba"):
            sums["Numba loops in threads"] = _numba_sum()
        self._sum, self.reader = min(((one, name) for name, one in sums.items()), key=lambda way: self._seconds(way[0]))

    @property
    def nbytes(self) -> int:
        """The bytes that one reading moves."""
        return self.buffer.nbytes

    def read(self, threads: int | None = None) -> int:
        """Add up the buffer, with all threads or with this many. Returns the sum."""
        return self._add_up(self._sum, threads or self.threads)

    def _add_up(self, sum_part: Callable[[Words], Any], threads: int) -> int:
        return sum(map(int, self._pool.map(sum_part, np.array_split(self.buffer, threads))))

    def _seconds(self, sum_part: Callable[[Words], Any]) -> float:
        """The best of three readings, after one that compiles and brings in the pages."""
        return min([self._time(sum_part) for _ in range(4)][1:])

    def _time(self, sum_part: Callable[[Words], Any]) -> float:
        start = time.perf_counter()
        self._add_up(sum_part, self.threads)
        return time.perf_counter() - start


class DeviceRoof:
    """How fast a device copies its own memory, for a backend whose arrays live there; both directions count."""

    reader = "copies within the device's memory"

    def __init__(self, ops: Ops, nbytes: int) -> None:
        """nbytes: the size of each of the two buffers."""
        self.nbytes = 2 * nbytes
        self._source, self._target = (ops.zeros((nbytes // 4,)) for _ in range(2))

    def read(self, threads: int | None = None) -> None:
        """Begin one copy. threads: of the host, which have no part in it."""
        self._target[...] = self._source


def thread_count() -> int:
    """How many threads may compute: NUMBA_NUM_THREADS where it is set, else the cores that this process may use."""
    wanted = os.environ.get("NUMBA_NUM_THREADS", "")
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _numba_sum() -> Callable[[Words], Any]:
    import numba

    @numba.njit(nogil=True)  # type: ignore[untyped-decorator]
    def add_up(words: Words) -> Any:
        total = np.uint64(0)
        for word in words:
            total += word
        return total

    compiled: Callable[[Words], Any] = add_up
    return compiled
