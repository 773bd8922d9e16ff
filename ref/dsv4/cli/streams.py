"""The standard streams, whatever they are: closed, full, or in an encoding that lacks most characters."""

import codecs
import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dsv4.errors import SettingError

ESCAPED = "dsv4.escaped"
"""Errors' name for: what an encoding lacks is written as JSON writes it, \\u00f6, so that JSON remains JSON."""


def prepare() -> None:
    """Let every text be printable, and no file get the number of a stream that is closed.

    What is said on a closed standard error is lost. Raises SettingError where standard output is closed; so does, once
    somebody reads from it, standard input.
    """
    if type(sys.stdout) is io.TextIOWrapper:  # and not what a test has put there
        encoding, lines, through = sys.stdout.encoding, sys.stdout.line_buffering, sys.stdout.write_through
        sys.stdout = _Output(sys.stdout.detach(), encoding, line_buffering=lines, write_through=through)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ESCAPED)
    for number in range(3):
        _occupy(number)
    if sys.stdin is None:
        sys.stdin = _Closed()
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  for as long as the process lives
    if sys.stdout is None:
        sys.stdout = sys.stderr
        raise SettingError("standard output: expected to write to it, found it closed")


class _Output(io.TextIOWrapper):
    """Standard output; an error that writing to it raises says so."""

    def write(self, text: str, /) -> int:
        with _named("standard output"):
            return super().write(text)

    def flush(self) -> None:
        with _named("standard output"):
            super().flush()


class _Closed(io.TextIOBase):
    """Standard input that is closed."""

    def readline(self, size: int = -1, /) -> str:  # type: ignore[override]
        raise SettingError("standard input: expected a line for each message, found it closed")


@contextmanager
def _named(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        error.filename = name
        raise


def _occupy(number: int) -> None:
    """Open the file of this number on nothing if it is closed; those of lower numbers are open."""
    try:
        os.fstat(number)
    except OSError:
        os.open(os.devnull, os.O_RDWR)


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


codecs.register_error(ESCAPED, _escape)
