"""Files mapped into memory to be read, none of them kept open.

Python's own `mmap` holds a descriptor for as long as a mapping lives (before Python 3.13 always), and so does NumPy's
memmap: a checkpoint of many shards would use up the descriptors that a process may have. The system call needs none.
"""

import ctypes
import mmap
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dsv4.checkpoint.header import DTYPES, Entry, stamp_of
from dsv4.errors import CheckpointError, reason


class MappedFile:
    """The bytes of one file, mapped when this is made, for as long as an array of them lives."""

    def __init__(self, file: Path) -> None:
        """Raises CheckpointError where the file cannot be read."""
        self._file = file
        try:
            with file.open("rb") as stream:
                self._found = os.fstat(stream.fileno())
                self._bytes = _map(stream.fileno(), self._found.st_size)
        except OSError as error:
            raise CheckpointError(f"{file}: expected a readable file, found: {reason(error)}") from error

    def tensor(self, entry: Entry) -> npt.NDArray[Any]:
        """A read-only view of one of the file's tensors.

        Raises CheckpointError where the file has become too short for it, or was changed before it was mapped, since
        its header was read. Where it becomes too short later, the system ends the process when it reads bytes that are
        gone (SIGBUS).
        """
        end, size = entry.start + entry.size, min(self._found.st_size, self._size_now())
        if size < end:
            raise CheckpointError(f"{entry}: truncated after it was opened: expected {end} bytes of file, found {size}")
        if entry.stamp and entry.stamp != stamp_of(self._found):
            raise CheckpointError(f"{entry}: expected the file as it was when it was opened, found it changed since")
        return np.ndarray(entry.shape, DTYPES[entry.dtype], buffer=self._bytes, offset=entry.start)

    def _size_now(self) -> int:
        """The size of the mapped file; one that was removed or replaced stays whole while it is mapped."""
        try:
            now = self._file.stat()
        except OSError:
            return self._found.st_size
        return now.st_size if os.path.samestat(now, self._found) else self._found.st_size


class _Mapping:
    """Mapped memory as NumPy takes it; it is given back when the last array of it is gone."""

    def __init__(self, address: int, size: int) -> None:
        self._address, self._size = address, size
        read_only = True
        self.__array_interface__ = {"version": 3, "shape": (size,), "typestr": "|u1", "data": (address, read_only)}
        self._unmap = _system().munmap  # which may be gone from the module when the process ends

    def __del__(self) -> None:
        self._unmap(self._address, self._size)


def _map(descriptor: int, size: int) -> npt.NDArray[np.uint8]:
    """The bytes of an open file, which may be closed then. Raises OSError as the system does."""
    if size == 0:
        return np.zeros(0, np.uint8)  # there is no mapping of nothing
    if sys.platform == "win32":  # which lacks these functions, and has descriptors in plenty
        return np.frombuffer(mmap.mmap(descriptor, size, access=mmap.ACCESS_READ), np.uint8)
    address = _system().mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
    if address == ctypes.c_void_p(-1).value:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return np.asarray(_Mapping(address, size))


@cache
def _system() -> ctypes.CDLL:
    """The system's own functions, with the types that they take."""
    library = ctypes.CDLL(None, use_errno=True)
    library.mmap.restype = ctypes.c_void_p
    library.mmap.argtypes = [
        *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_ssize_t)
    ]
    library.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    return library
