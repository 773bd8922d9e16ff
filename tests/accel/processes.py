"""Python processes of their own, for what is decided when the Numba backend is imported: settings, cache, messages."""

import json
import os
import subprocess
import sys
from pathlib import Path

import dsv4
import dsv4_accel

SOURCES = [Path(package.__file__).parents[1] for package in (dsv4, dsv4_accel)] + [Path(__file__).parents[1]]
"""Where this process has dsv4, dsv4_accel and the tests from."""

OURS = ("NUMBA_", "DSV4_", "PYTHON")


LIMIT_SECONDS = 1200
"""For a process that hangs: far more than any takes."""


def run_python(code: str, sources: list[Path] = SOURCES, **variables: str) -> subprocess.CompletedProcess:
    """Run code with these source roots and environment variables, and none that this process was started with.

    Nothing may be left of an outer NUMBA_… or DSV4_… variable but the directory for compiled kernels.
    subprocess.TimeoutExpired: it hangs.
    """
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(OURS) or name == "NUMBA_CACHE_DIR"
    }
    path = {"PYTHONPATH": os.pathsep.join(map(str, sources))}
    command = [sys.executable, "-c", code]
    env = inherited | path | variables
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=LIMIT_SECONDS)


def report_of(process: subprocess.CompletedProcess) -> dict:
    """What the process printed on its last line, in JSON; an error where it failed."""
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])
