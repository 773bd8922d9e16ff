"""A process that has imported what every run of tests needs, and forks itself for each run.

Importing NumPy, pytest, Hypothesis and Numba takes several times as long as most tests. Here it is done once; a run
starts with them, and with nothing else: dsv4, dsv4_accel and the tests are imported by the run itself, from the copy
that it is given.

`python -m mutants.nursery` reads a request from each line of its input, a `Request` in JSON, and answers each with a
line that holds the exit status, or null where the time limit ended the run.
"""

import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import asdict, dataclass

LIBRARIES = (
    *("pytest", "hypothesis", "hypothesis.strategies", "hypothesis.extra.numpy", "_hypothesis_pytestplugin"),
    *("numpy", "ml_dtypes", "safetensors.numpy", "tokenizers", "typer.testing", "numba", "numba.extending"),
)
"""What is imported before the first run, as far as it is installed."""

CRASHED = 71
"""The exit status of a run in which pytest itself ended with an exception."""


@dataclass(frozen=True)
class Request:
    """One run of tests."""

    arguments: list[str]
    """pytest's."""
    sources: list[str]
    """Source roots, which come before all others."""
    variables: dict[str, str]
    """Environment variables that are added to those of the nursery."""
    output: str
    """The file for all that the run prints."""
    time_limit: float
    """Seconds."""


class Nursery:
    """A running nursery, seen from the process that asks it for runs."""

    def __init__(self, directory: str, variables: dict[str, str]) -> None:
        """directory: where runs start; variables: the whole environment."""
        command = [sys.executable, "-m", "mutants.nursery"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = subprocess.Popen(command, cwd=directory, env=variables, text=True, **pipes)

    def run(self, request: Request) -> int | None:
        """The exit status of the run, or None where the time limit ended it."""
        self._process.stdin.write(json.dumps(asdict(request)) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """End it; it has no run under way."""
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def main() -> None:
    """Serve requests until there are no more."""
    _import_libraries()
    for line in sys.stdin:
        status = _supervise(Request(**json.loads(line)))
        print(json.dumps(status), flush=True)


def _import_libraries() -> None:
    for library in LIBRARIES:
        try:
            module = importlib.import_module(library)
        except ImportError:
            continue
        if library == "numba":
            module.njit(lambda x: x + 1)(1.0)  # the first compilation fetches what all need
    gc.freeze()  # no run need look through what is here


def _supervise(request: Request) -> int | None:
    """Run in a process of its own, and in a group of its own, so that nothing of it is left after the time limit."""
    child = os.fork()
    if child == 0:
        os.setsid()
        os._exit(_run(request))
    end = time.monotonic() + request.time_limit
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _run(request: Request) -> int:
    """pytest's exit status. Its output goes to a file, and nothing reads this process's input."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    output = os.open(request.output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for target, source in ((0, nothing), (1, output), (2, output)):
        os.dup2(source, target)
    os.environ.update(request.variables)
    sys.path[:0] = request.sources
    try:
        return int(importlib.import_module("pytest").main(request.arguments))
    except BaseException:  # a mistake may raise anything at all, SystemExit included
        traceback.print_exc()
        return CRASHED
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


if __name__ == "__main__":
    main()
