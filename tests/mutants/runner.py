"""Runs tests on a copy of dsv4 and dsv4_accel, with a mistake in it or without, in a process of their own."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mutants import guard
from mutants.mutant import Mutant

ROOT = Path(__file__).parents[2]
PACKAGES = ROOT / "ref" / "dsv4", ROOT / "accel" / "dsv4_accel"
TIME_LIMIT = 240
"""Seconds that one run may take; the tests that kill a mutant take a few."""

PYTEST = [
    *(sys.executable, "-m", "pytest", "-o", "addopts=", "-p", "no:xdist", "-p", "no:cacheprovider"),
    *("-p", "mutants.guard", "-x", "-q", "--no-header", "--tb=short", "-W", "error"),
]


class SurvivorError(AssertionError):
    """No test failed: the mistake could come back unnoticed."""


class BrokenError(Exception):
    """Tests failed for another reason than the mistake's effect, or did not run."""


@dataclass(frozen=True)
class Outcome:
    """How a run of tests ended."""

    status: int
    """pytest's exit status: 0 all passed, 1 a test failed; anything else means that something is wrong."""
    failures: list[dict]
    """What `guard` wrote down of each failed test."""
    output: str


def kill(mutant: Mutant) -> str:
    """The node id of the first test that fails an assertion because of the mistake.

    Raises SurvivorError if all tests pass, StaleError if the patch does not fit, and BrokenError for everything else:
    an error on import, another exception than a failed assertion, a test that does not exist, the time limit.
    """
    outcome = run(mutant.tests, mutant)
    if outcome.status == 0:
        raise SurvivorError(f"{mutant.name} survives: {', '.join(mutant.tests)} pass although {mutant.trap}")
    if outcome.status != 1 or not outcome.failures or not outcome.failures[0]["is_assertion"]:
        reason = outcome.failures[0]["error"] if outcome.failures else f"exit status {outcome.status}"
        raise BrokenError(f"{mutant.name}: expected a failed assertion, found {reason}\n{outcome.output}")
    return outcome.failures[0]["test"]


def run(tests: Sequence[str], mutant: Mutant | None = None) -> Outcome:
    """Run tests, given by files or node ids below tests/, on a copy of the packages with this mistake."""
    with tempfile.TemporaryDirectory(prefix="dsv4-mutant-") as directory:
        copy = copy_of_packages(Path(directory))
        if mutant:
            mutant.apply(copy)
        report = Path(directory, "report.jsonl")
        command = [*PYTEST, *_backends(tests), *(f"tests/{test}" for test in tests)]
        try:
            process = subprocess.run(
                command,
                cwd=ROOT,
                env=environment(copy, report),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=TIME_LIMIT,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise BrokenError(f"expected tests to end within {TIME_LIMIT} s, found: {error.output}") from error
        lines = report.read_text(encoding="utf-8").splitlines() if report.exists() else []
        return Outcome(process.returncode, [json.loads(line) for line in lines], process.stdout)


def _backends(tests: Sequence[str]) -> list[str]:
    """Options that leave out kernels, which take long to compile, where no test is about them."""
    return [] if any("numba" in test or "cuda" in test for test in tests) else ["-k", "not numba and not cuda"]


def copy_of_packages(directory: Path) -> Path:
    """A source root with copies that may be changed; the bundled model, which nobody changes, is a link."""
    source_root = directory / "source"
    for package in PACKAGES:
        left_out = shutil.ignore_patterns("__pycache__", "bundled")
        shutil.copytree(package, source_root / package.name, ignore=left_out)
    (source_root / "dsv4" / "bundled").symlink_to(PACKAGES[0] / "bundled")
    return source_root


def environment(copy: Path, report: Path) -> dict[str, str]:
    """The variables of a run: the copy comes before any installed dsv4, and no outer pytest has a say.

    Compiled kernels go where the copy goes, so that no later run meets those of a mistake.
    """
    others = ("PYTEST_", "HYPOTHESIS_", "NUMBA_", "DSV4_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    path = os.pathsep.join(str(part) for part in (copy, ROOT / "tests"))
    ours = {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", guard.COPY: str(copy), guard.REPORT: str(report)}
    ours["NUMBA_CACHE_DIR"] = str(copy / "kernels")
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # the runs themselves go in parallel
    return inherited | ours | one_thread
