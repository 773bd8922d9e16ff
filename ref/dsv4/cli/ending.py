"""How the command ends: the exit status, and one line for whatever hindered it.

Only an exception that is not expected, and so is a bug in dsv4, is shown as a traceback.
"""

import os
import signal
import sys
import traceback
from collections.abc import Iterable

from typer import TyperException

from dsv4.errors import DSV4Error

DONE, TOO_FAR, REFUSED, MISTAKEN, INTERRUPTED = 0, 1, 2, 70, 130

STATUSES = (
    f"Exit status: {DONE} on success, {TOO_FAR} if verify found a difference that is too large or bench something that "
    f"is slower, {REFUSED} if something is wrong with the input, an option or the machine (one line on standard error "
    "says what), "
    f"{MISTAKEN} after a bug in dsv4 (with a traceback), {INTERRUPTED} after Ctrl-C."
)
"""How the help describes them.

A library may end the process without Python's knowledge. When OpenBLAS gets no memory, it prints a line of its own and
ends with status 1. When Rust or LLVM abort, the status is that of the signal, 134 in a shell.
"""


def end(error: BaseException) -> int:
    """Say what ended the command, and give the exit status. Does not return where a pipe was closed by its reader."""
    if isinstance(error, KeyboardInterrupt):
        _finish_output()
        if sys.stderr.isatty():
            print(file=sys.stderr)  # the terminal has written ^C where the shell will go on
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):
        _end_by_closed_pipe()
    _finish_output()
    line = _line(error)
    if line is not None:
        say(line)
        return REFUSED
    say("this is a bug in dsv4; please report it with these lines", traceback.format_exception(error))
    return MISTAKEN


def say(message: str, details: Iterable[str] = ()) -> None:
    """One line on standard error, and what belongs below it. Where nobody can be told, the exit status must do."""
    try:
        print("dsv4: " + " ".join(message.split()), *details, sep="\n", end="\n", file=sys.stderr, flush=True)
    except OSError:
        _to_nowhere(sys.stderr.fileno())


def _line(error: BaseException) -> str | None:
    """What to say about an exception; None for one that is not expected."""
    match error:
        case TyperException():
            return error.format_message()
        case DSV4Error():
            return str(error)
        case OSError(filename=None):
            return f"the operating system reported an error: {error.strerror or str(error) or type(error).__name__}"
        case OSError():
            return f"{error.filename}: {error.strerror or type(error).__name__}"
        case MemoryError():
            return f"not enough memory: {str(error) or 'an allocation failed'}"
        case RecursionError():
            return f"the input is nested too deeply: {error}"
        case RuntimeError() if "Symlink loop" in str(error):  # so says pathlib before Python 3.13
            return f"the path is a loop of links: {error}"
        case RuntimeError() if "can't start new thread" in str(error):
            return "the operating system allows no further threads"
    if type(error).__name__ == "PanicException":  # of libraries in Rust; it is no Exception, and has no module
        return f"a library failed on this input: {error}"
    return None


def _finish_output() -> None:
    """Write what is left of the output; if that fails, let it go, so that Python does not try again at its own end."""
    try:
        sys.stdout.flush()
    except OSError:
        _to_nowhere(sys.stdout.fileno())


def _end_by_closed_pipe() -> None:
    """End as a program does that knows nothing of pipes: by SIGPIPE, without a word."""
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGPIPE)
    for number in (1, 2):
        _to_nowhere(number)


def _to_nowhere(number: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)
