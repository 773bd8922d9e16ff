"""Tensors read from their files into memory of their own, which is given back with the array."""

import mmap
import os
import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from dsv4.checkpoint.header import DTYPES, Entry, stamp_of
from dsv4.errors import CheckpointError, reason

LARGE = 2**18
"""From so many bytes on, a tensor has pages to itself, which the system gets back with it. The C library keeps much of
what it frees, the more so the more threads allocate."""


def read_tensor(entry: Entry) -> npt.NDArray[Any]:
    """The numbers of a tensor, [*entry.shape], as `Checkpoint.tensor` views them, but read and not mapped.

    A file that is cut short while it is read is so no end of the process, as it is where it is mapped. Raises
    CheckpointError where the file is gone, too short, or changed since its header was read.
    """
    numbers = _empty(entry)
    place = numbers.reshape(-1).view(np.uint8).data
    try:
        with entry.file.open("rb", buffering=0) as stream:
            found = os.fstat(stream.fileno())
            if entry.stamp and found.st_size >= entry.start + entry.size and entry.stamp != stamp_of(found):
                raise CheckpointError(
                    f"{entry}: expected the file as it was when it was opened, found it changed since"
                )
            _read_no_further(stream.fileno())
            stream.seek(entry.start)
            while place and (count := stream.readinto(place)):
                place = place[count:]
    except OSError as error:
        raise CheckpointError(f"{entry}: expected a readable file, found: {reason(error)}") from error
    if place:
        end = entry.start + entry.size
        raise CheckpointError(
            f"{entry}: truncated after it was opened: expected {end} bytes of file, found {end - len(place)}"
        )
    return numbers


def _empty(entry: Entry) -> npt.NDArray[Any]:
    """Room for a tensor's numbers."""
    if entry.size < LARGE:
        return np.empty(entry.shape, DTYPES[entry.dtype])
    return np.ndarray(entry.shape, DTYPES[entry.dtype], buffer=_pages(entry.size))


def _read_no_further(descriptor: int) -> None:
    """Tell the system that what lies behind a tensor is not wanted: it would read megabytes of that."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)


def _pages(size: int) -> mmap.mmap:
    if sys.platform == "win32":
        return mmap.mmap(-1, size)
    return mmap.mmap(
        -1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    )  # private ones may be large, and come quickly
