"""How the command `dsv4` starts: it loads the package, and says in one line what hinders that.

This lies outside the package because whoever imports anything from `dsv4` has already loaded NumPy and the rest, which
takes a while, in which a user may press Ctrl-C, and may fail. `dsv4.cli` has everything that comes later. For the same
reason this imports nothing that Python has not loaded by itself, or soon.
"""

import _thread
import os
import signal
import sys
import time

REFUSED, MISTAKEN, INTERRUPTED = 2, 70, 130
"""Exit statuses, as in `dsv4.cli.ending`."""

CAN_HOLD_BACK = hasattr(signal, "sigtimedwait")
"""Whether the system lets a signal wait, and tells who sent it: as Linux does, and macOS and Windows do not."""

AFTERWARDS = 0.01
"""Seconds after which an interrupt that was lost is sent again: a finaliser has ended by then."""

SENT_SOON = _thread.allocate_lock()
"""Held while an interrupt waits to be sent again: several that are lost in one moment are one."""


def main() -> None:
    """Load the command and run it. SIGINT ends the process without a traceback, whenever it comes."""
    sys.unraisablehook = _interrupt_again
    try:
        _decode_as_utf8()
        _load()
        from dsv4.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    finally:
        _hold_back_interrupts()  # there is nothing left to interrupt but Python's own end


def _decode_as_utf8() -> None:
    """Start anew in Python's UTF-8 mode where the locale knows nothing but ASCII, and so none of the user's texts."""
    if sys.getfilesystemencoding() == "ascii" and not sys.flags.utf8_mode:
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def _load() -> None:
    """Import the command. A SIGINT waits until that is done: in the midst of an import it may become another error."""
    _hold_back_interrupts()
    try:
        import dsv4.cli  # noqa: F401
    except (ImportError, MemoryError, OSError, SystemError) as error:
        _refuse(f"its modules cannot be loaded: {_first_cause(error)}")
    except Exception:
        import traceback

        traceback.print_exc()
        sys.exit(MISTAKEN)
    if CAN_HOLD_BACK:
        _let_interrupts_through()


def _hold_back_interrupts() -> None:
    if CAN_HOLD_BACK:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def _let_interrupts_through() -> None:
    sent = signal.sigtimedwait({signal.SIGINT}, 0)
    if sent is None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    elif sent.si_pid == os.getpid():  # so OpenBLAS ends a process; without its threads, its products never return
        _refuse("the operating system allows OpenBLAS no further threads: see above")
    else:
        sys.exit(INTERRUPTED)


def _interrupt_again(lost: "sys.UnraisableHookArgs") -> None:
    """Python drops whatever is raised in a finaliser or a callback. If that was a KeyboardInterrupt, send it again."""
    if not issubclass(lost.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(lost)
    elif SENT_SOON.acquire(blocking=False):
        _thread.start_new_thread(_interrupt_soon, ())


def _interrupt_soon() -> None:
    time.sleep(AFTERWARDS)
    SENT_SOON.release()
    signal.raise_signal(signal.SIGINT)


def _first_cause(error: BaseException) -> str:
    """What was wrong in the first place: NumPy wraps it into pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def _refuse(message: str) -> None:
    if sys.stderr is not None:  # as it is where that is closed
        print("dsv4: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(REFUSED)
