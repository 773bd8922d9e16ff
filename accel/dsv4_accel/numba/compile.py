"""How a Python function becomes machine code: compiled when first called, and kept on disk for the next process.

A kernel has one signature. Arrays that it only reads are declared read-only, which takes writable ones too, so that a
weight mapped from a file and an activation made a moment ago are served by the same machine code.
"""

import hashlib
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba import types
from numba.core import event
from numba.core.caching import FunctionCache, IndexDataCacheFile

from dsv4_accel.numba.cpu import PORTABLE

OPTIONS = {"error_model": "numpy", "nogil": True, "boundscheck": None}
"""Division by zero gives infinity as in NumPy; bounds are checked where NUMBA_BOUNDSCHECK asks for it."""

CHECKS_BOUNDS = bool(numba.config.BOUNDSCHECK)


def reads(number: types.Type, dimensions: int) -> types.Array:
    """The type of a C-contiguous array that a kernel only reads."""
    return types.Array(number, dimensions, "C", readonly=True)


def writes(number: types.Type, dimensions: int) -> types.Array:
    """The type of a C-contiguous array that a kernel writes."""
    return types.Array(number, dimensions, "C")


inlined = numba.njit(**OPTIONS)
"""A part of kernels: compiled into each of them."""


WORK_FOR_THREADS = 200_000
"""How many multiply-adds a call must hold to gain from a second thread, which takes some microseconds to wake."""


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
        alone = work < WORK_FOR_THREADS or CHECKS_BOUNDS or numba.get_num_threads() == 1
        form = self._one_thread if alone else self._all_threads
        if not form.is_ready:
            form.prepare()
        form.dispatcher(*arguments)


def kernel(*arguments: types.Type) -> Callable[[Callable[..., None]], Kernel]:
    """Make a function a kernel that takes arguments of these types."""
    return lambda function: Kernel(function, arguments)


class _Compiled:
    """One compiled form of a function, made or fetched from disk when it is first called."""

    def __init__(self, function: Callable[..., None], arguments: tuple[types.Type, ...], parallel: bool) -> None:
        self._signature = types.void(*arguments)
        self.dispatcher = _dispatcher(function, parallel)
        self.is_ready = False

    def prepare(self) -> None:
        """Compile it, or fetch it from disk, if that has not been done."""
        if self.is_ready:
            return
        with event.install_listener("numba:compile", _announcement):
            self.dispatcher.compile(self._signature)
        self.dispatcher.disable_compile()
        self.is_ready = True


def _dispatcher(function: Callable[..., None], parallel: bool) -> Any:
    """The function, ready to be compiled, with a place on disk where there is one."""
    dispatcher = numba.njit(parallel=parallel, **OPTIONS)(function)
    try:
        dispatcher._cache = _Cache(function, parallel)
    except (RuntimeError, OSError):
        _warn_of_no_cache()
    return dispatcher


class _Cache(FunctionCache):
    """Numba's cache of machine code, which by itself looks only at a kernel's own file.

    What is compiled into a kernel comes from the whole package, and depends on settings. A fingerprint of all of it
    joins the names of the files, so that processes that compile different code at the same time write different files.
    """

    def __init__(self, function: Callable[..., None], parallel: bool) -> None:
        super().__init__(function)
        settings = f"{_sources()} {parallel} {PORTABLE} {CHECKS_BOUNDS}"
        name = f"{self._impl.filename_base}-{hashlib.sha256(settings.encode()).hexdigest()[:16]}"
        self._cache_file = IndexDataCacheFile(self._cache_path, name, self._impl.locator.get_source_stamp())

    def load_overload(self, signature: Any, context: Any) -> Any:
        try:
            return super().load_overload(signature, context)
        except Exception:  # whatever a file that is damaged or may not be read makes of itself
            with suppress(OSError):
                self.flush()
            return None

    def save_overload(self, signature: Any, data: Any) -> None:
        try:
            super().save_overload(signature, data)
        except OSError:
            _warn_of_no_cache()


@cache
def _sources() -> str:
    """A fingerprint of this package's files."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


@cache
def _warn_of_no_cache() -> None:
    warnings.warn(
        "dsv4: found no directory to keep compiled kernels in, so each process compiles them anew; "
        "set NUMBA_CACHE_DIR to a directory that can be written",
        RuntimeWarning,
        stacklevel=2,
    )


class _Announcement(event.Listener):
    """Says on standard error that kernels are being compiled, once."""

    said = False

    def on_start(self, event: Any) -> None:
        if not self.said:
            print("dsv4: compiling the Numba kernels, once for this machine …", file=sys.stderr, flush=True)
            self.said = True

    def on_end(self, event: Any) -> None:
        pass


_announcement = _Announcement()
