"""How a Python function becomes machine code: compiled when first called, and kept on disk for the next process.

A kernel has one signature. Arrays that it only reads are declared read-only, which takes writable ones too, so that a
weight mapped from a file and an activation made a moment ago are served by the same machine code.
"""

import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numba
from numba import types
from numba.core import event
from numba.core.compiler_lock import global_compiler_lock

from dsv4_accel.numba import threads
from dsv4_accel.numba.cpu import PORTABLE
from dsv4_accel.numba.kernel_files import KernelCache, warn_of_no_place

OPTIONS = {"error_model": "numpy", "nogil": True, "boundscheck": None}
"""Division by zero gives infinity as in NumPy; bounds are checked where NUMBA_BOUNDSCHECK asks for it."""

CHECKS_BOUNDS = bool(numba.config.BOUNDSCHECK)


def reads(number: types.Type, dimensions: int) -> types.Array:
    """The type of a C-contiguous array that a kernel only reads."""
    return types.Array(number, dimensions, "C", readonly=True)


def writes(number: types.Type, dimensions: int) -> types.Array:
    """The type of a C-contiguous array that a kernel writes."""
    return types.Array(number, dimensions, "C")


inlined = numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, **OPTIONS)
"""A part of kernels: compiled into each of them, and not to be called by Python."""

merged = numba.njit(inline="always", **OPTIONS)
"""As `inlined`, but becomes part of its caller before either is compiled. For what is large and is called in one place:
LLVM then goes through its machine code once less. Anything else compiles faster by itself."""


WORK_FOR_THREADS = 200_000
"""How many multiply-adds a call must hold to gain from a second thread, which takes some microseconds to wake."""


def threads_for(work: int) -> int:
    """How many threads may share a call of so many multiply-adds."""
    return 1 if work < WORK_FOR_THREADS else int(numba.get_num_threads())


class Kernel:
    """A compiled function that writes its results into arrays it is given, and returns nothing.

    It is compiled twice at most: for one thread, and, if it has any, with its `prange` loops spread over all threads.
    What it computes must not depend on which of the two runs.
    """

    def __init__(self, function: Callable[..., None], arguments: tuple[types.Type, ...]) -> None:
        self._one_thread = _Compiled(function, arguments, parallel=False)
        spreads = "prange" in function.__code__.co_names
        self._all_threads = _Compiled(function, arguments, parallel=True) if spreads else self._one_thread
        self.__doc__, self.__name__, self.__module__ = function.__doc__, function.__name__, function.__module__

    def prepare(self) -> None:
        """Compile both forms, or fetch them from disk, as the first call of each does."""
        self._one_thread.prepare()
        self._all_threads.prepare()

    def __call__(self, work: int, *arguments: Any) -> None:
        """work: about how many multiply-adds the call takes, which decides whether threads share it."""
        alone = work < WORK_FOR_THREADS or CHECKS_BOUNDS or not threads.are_usable()
        form = self._one_thread if alone else self._all_threads
        if not form.is_ready:
            form.prepare()
        if alone or not threads.take_turns():
            form.dispatcher(*arguments)
        else:
            with threads.turn:
                form.dispatcher(*arguments)


def kernel(*arguments: types.Type) -> Callable[[Callable[..., None]], Kernel]:
    """Make a function a kernel that takes arguments of these types."""
    return lambda function: Kernel(function, arguments)


class _Compiled:
    """One compiled form of a function, made or fetched from disk when it is first called."""

    def __init__(self, function: Callable[..., None], arguments: tuple[types.Type, ...], parallel: bool) -> None:
        self._signature = types.void(*arguments)
        self.dispatcher = numba.njit(parallel=parallel, no_cfunc_wrapper=True, **OPTIONS)(function)
        self._kept = _kept(function, parallel)
        if self._kept:
            self.dispatcher._cache = self._kept
        self.is_ready = False

    def prepare(self) -> None:
        """Compile it, or fetch it from disk, if that has not been done; other threads wait meanwhile."""
        with global_compiler_lock:
            if self.is_ready:
                return
            turn = self._kept.turn(_announcement.say) if self._kept else nullcontext()
            with event.install_listener("numba:compile", _announcement), turn:
                self.dispatcher.compile(self._signature)
            self.dispatcher.disable_compile()
            self.is_ready = True


def _kept(function: Callable[..., None], parallel: bool) -> KernelCache | None:
    """The function's place on disk, where there is one."""
    try:
        return KernelCache(function, f"{parallel} {PORTABLE} {CHECKS_BOUNDS} {numba.config.OPT}")
    except (RuntimeError, OSError):
        warn_of_no_place()
        return None


class _Announcement(event.Listener):
    """Says on standard error that kernels are being compiled, once."""

    said = False

    def on_start(self, event: Any) -> None:
        self.say()

    def on_end(self, event: Any) -> None:
        pass

    def say(self) -> None:
        if not self.said:
            print("dsv4: compiling the Numba kernels, once for this machine …", file=sys.stderr, flush=True)
            self.said = True


_announcement = _Announcement()
