"""Where compiled kernels are kept for the next process: a file for each, which is believed as a whole or not at all."""

import hashlib
import pickle
import re
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, TextIO

import llvmlite
import numba
from numba.core.caching import FunctionCache
from numba.core.serialize import dumps

from dsv4 import ops

_ROOTS = {"dsv4_accel.numba": Path(__file__).parent, "dsv4.ops": Path(ops.__file__).parent}

_IMPORT = re.compile(r"^from (dsv4_accel\.numba|dsv4\.ops)(?:\.(\w+))? import (.*)", re.MULTILINE)

PATIENCE = 180
"""Seconds that a process waits for another to finish a kernel, which takes it less than a minute."""

MOMENT = 0.5
"""Seconds of waiting of which nobody is told: the other process may only be reading the kernel."""


class KernelCache(FunctionCache):
    """Numba's cache of machine code, with files of our own behind it.

    What is compiled into a kernel comes from every file that its own imports, and depends on settings and on who
    compiled it, where Numba's own files know of the kernel's source file and Numba's version. Numba keeps an index
    beside them, too, and hands LLVM whatever it finds in them, which ends the process where they are damaged.
    """

    def __init__(self, function: Callable[..., None], settings: str) -> None:
        """settings: what the machine code depends on besides the sources. OSError, RuntimeError: no place"""
        super().__init__(function)
        made_of = (
            f"{numba.__version__} {llvmlite.__version__} {_sources(Path(function.__code__.co_filename))} {settings}"
        )
        chosen = numba.config.CACHE_DIR  # a file goes by what it is made of, so that copies of the package share it
        directory = Path(chosen) / "dsv4" if chosen else Path(self._cache_path)
        self._cache_file = KernelFiles(directory, self._impl.filename_base, made_of)

    def turn(self, waits: Callable[[], None]) -> AbstractContextManager[None]:
        """As KernelFiles.turn."""
        return self._cache_file.turn(waits)

    def save_overload(self, signature: Any, data: Any) -> None:
        """Keep a compiled kernel; where that cannot be done, one warning says so."""
        try:
            super().save_overload(signature, data)
        except OSError:
            warn_of_no_place()


class KernelFiles:
    """A file for each key, whose name says all that it was made of.

    It begins with a digest of its name and of all that follows, so that one that was cut short, has pages of zeros, as
    a loss of power leaves them, or stands in another's place is as good as none.
    """

    def __init__(self, directory: Path, name: str, made_of: str) -> None:
        self._directory, self._name, self._made_of = directory, name, made_of

    def _path(self, key: Any) -> Path:
        fingerprint = hashlib.sha256(f"{self._made_of} {key}".encode()).hexdigest()[:16]
        return self._directory / f"{self._name}-{fingerprint}.kernel"

    @contextmanager
    def turn(self, waits: Callable[[], None]) -> Iterator[None]:
        """While this is held, other processes wait, and then find the kernel here instead of making it themselves.

        waits: called where waiting takes longer than a moment. It has an end: the other process may have been stopped
        by its user. Where there is no place, or there are no locks, nobody waits.
        """
        with ExitStack() as stack:
            with suppress(OSError, ImportError):
                import fcntl

                self._directory.mkdir(parents=True, exist_ok=True)
                lock = stack.enter_context((self._directory / f"{self._name}.lock").open("w"))
                begun = time.monotonic()
                while not _is_locked(fcntl, lock) and (waited := time.monotonic() - begun) < PATIENCE:
                    if waited > MOMENT:
                        waits()
                    time.sleep(0.05)
            yield

    def load(self, key: Any) -> Any:
        """What was saved for this key; None where nothing was, or it is damaged or may not be read."""
        path = self._path(key)
        try:
            kept = path.read_bytes()
        except OSError:
            return None
        digest, data = kept[: hashlib.sha256().digest_size], kept[hashlib.sha256().digest_size :]
        return pickle.loads(data) if digest == _digest(path, data) else None

    def save(self, key: Any, value: Any) -> None:
        """Put the file into its place in one step: another process finds none or a whole one. OSError: no place"""
        path, data = self._path(key), dumps(value)
        unfinished = path.with_name(f"{path.name}.{uuid.uuid4().hex[:16]}.tmp")
        try:
            unfinished.write_bytes(_digest(path, data) + data)
            unfinished.replace(path)
        except BaseException:
            with suppress(OSError):
                unfinished.unlink()
            raise


def _is_locked(fcntl: Any, file: TextIO) -> bool:
    """Whether this process has the lock now. OSError: a file system without locks"""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _digest(path: Path, data: bytes) -> bytes:
    return hashlib.sha256(path.name.encode() + data).digest()


@cache
def _sources(kernels: Path) -> str:
    """A fingerprint of a file of kernels and of every file of ours that it imports, directly or through others."""
    digest, files = hashlib.sha256(), [kernels]
    for file in files:  # grows on the way
        digest.update(_content(file))
        files += [other for other in _imported(file) if other not in files]
    return digest.hexdigest()


@cache
def _content(file: Path) -> bytes:
    return file.read_bytes()


@cache
def _imported(file: Path) -> list[Path]:
    """The modules of this package and of the reference's operations that a file names in its imports, in their order.

    Constants of the operations are compiled into kernels, their functions are not.
    """
    files = []
    for package, module, names in _IMPORT.findall(_content(file).decode()):
        modules = [module] if module else re.findall(r"\w+", names)
        files += [_ROOTS[package] / f"{name}.py" for name in modules]
    return [file for file in files if file.is_file()]


@cache
def warn_of_no_place() -> None:
    """Say once that no kernel can be kept."""
    warnings.warn(
        "dsv4: found no directory to keep compiled kernels in, so each process compiles them anew; "
        "set NUMBA_CACHE_DIR to a directory that can be written",
        RuntimeWarning,
        stacklevel=2,
    )
