"""Whether a kernel's loops are spread over Numba's threads where a process was forked, or has threads of its own.

Below its loops Numba puts one of several layers, TBB if it is there. GNU's OpenMP ends a forked process that begins a
loop after its parent has: the threads stay with the parent. TBB cannot always take its threads down before a fork, and
says so. "workqueue" ends a process that begins two loops at once.
"""

import os
import threading
from contextlib import suppress

import numba
from numba.core.compiler_lock import global_compiler_lock

from dsv4_accel.numba import tbb

turn = threading.RLock()
"""Held by the one thread of Python that runs a loop on all threads, where they `take_turns`."""

_stayed_with_the_parent = False

tbb.load()


def are_usable() -> bool:
    """Whether this process has more than one thread for a loop."""
    return not _stayed_with_the_parent and numba.get_num_threads() > 1


def take_turns() -> bool:
    """Whether only one thread of Python at a time may begin a loop; known once Numba's threads have been started."""
    layer: str = numba.threading_layer()
    return layer == "workqueue"


def _before_fork() -> None:
    """Wait until no other thread runs such a loop or compiles: in the forked process nobody would finish it."""
    turn.acquire()
    global_compiler_lock.acquire()


def _after_fork() -> None:
    global_compiler_lock.release()
    turn.release()


def _after_fork_in_child() -> None:
    global _stayed_with_the_parent
    _after_fork()
    with suppress(ValueError):  # no thread has been started, so this process may start its own
        _stayed_with_the_parent = numba.threading_layer() in ("omp", "tbb")


if hasattr(os, "register_at_fork"):  # no other system forks
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
