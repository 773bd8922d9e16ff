"""Runs tests on a copy of dsv4 and dsv4_accel, with a mistake in it or without, in a process of their own."""

import atexit
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mutants import guard
from mutants.mutant import Mutant
from mutants.nursery import Nursery, Request

ROOT = Path(__file__).parents[2]
PACKAGES = ROOT / "ref" / "dsv4", ROOT / "accel" / "dsv4_accel"
TIME_LIMIT = 240
"""Seconds that one run may take; the tests that kill a mutant take a few."""

ARGUMENTS = [
    *("-o", "addopts=", "-p", "no:cacheprovider", "-p", "_hypothesis_pytestplugin", "-p", "mutants.guard"),
    *("-x", "-q", "--no-header", "--tb=short", "-W", "error"),
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),  # the nursery has imported Hypothesis before pytest starts
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
    place = workshop()
    copy = place.copy_with(mutant)
    report, output = place.directory / "report.jsonl", place.directory / "output.txt"
    report.unlink(missing_ok=True)
    arguments = [*ARGUMENTS, *_backends(tests), *(f"tests/{test}" for test in tests)]
    request = Request(arguments, sources(copy), variables(copy, report), str(output), TIME_LIMIT)
    status = place.nursery.run(request)
    printed = output.read_text(encoding="utf-8", errors="replace")
    if status is None:
        raise BrokenError(f"expected tests to end within {TIME_LIMIT} s, found: {printed}")
    lines = report.read_text(encoding="utf-8").splitlines() if report.exists() else []
    return Outcome(status, [json.loads(line) for line in lines], printed)


def _backends(tests: Sequence[str]) -> list[str]:
    """Options that leave out kernels, which take long to compile, where no test is about them."""
    return [] if any("numba" in test or "cuda" in test for test in tests) else ["-k", "not numba and not cuda"]


@cache
def workshop() -> "Workshop":
    """The workshop of this process, made when it is first asked for."""
    return Workshop()


class Workshop:
    """A directory with copies of the packages, in which mistakes take turns, and a nursery that runs tests on them."""

    def __init__(self) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="dsv4-mutants-")
        self.directory = Path(self._temporary.name)
        self._source_root = self.directory / "source"
        for package in PACKAGES:
            left_out = shutil.ignore_patterns("__pycache__", "bundled")
            shutil.copytree(package, self._source_root / package.name, ignore=left_out)
        (self._source_root / "dsv4" / "bundled").symlink_to(PACKAGES[0] / "bundled")  # nobody changes it
        self._changed: list[tuple[Path, Path]] = []
        self._runs = 0
        self.nursery = Nursery(str(ROOT), environment(self.directory))
        atexit.register(self.close)

    def copy_with(self, mutant: Mutant | None) -> Path:
        """A source root with copies of the packages, one file of which has the mistake in it."""
        for changed, original in self._changed:
            shutil.copy2(original, changed)
        self._changed = []
        self._runs += 1
        if mutant:
            changed = mutant.apply(self._source_root)
            [package] = (package for package in PACKAGES if package.name == mutant.package)
            self._changed = [(changed, package / mutant.file)]
            os.utime(changed, (self._runs, self._runs))  # bytecode goes by time: no two mistakes may have the same
        return self._source_root

    def close(self) -> None:
        """End the nursery and remove the directory."""
        self.nursery.close()
        self._temporary.cleanup()


def environment(directory: Path) -> dict[str, str]:
    """The variables of a nursery that keeps bytecode in this directory.

    No outer pytest has a say, pytest's other plugins are not loaded, and each run has one thread: runs go in parallel,
    and of a kernel one form is compiled. Kernels go by their sources: what a mistake does not touch is taken from
    NUMBA_CACHE_DIR, where all of them may keep theirs, or else is compiled once in this directory.
    """
    others = ("PYTEST_", "HYPOTHESIS_", "NUMBA_", "DSV4_", "PYTHON")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    paths = {"PYTHONPATH": str(ROOT / "tests"), "PYTHONPYCACHEPREFIX": str(directory / "bytecode")}
    kernels = {"NUMBA_CACHE_DIR": os.environ.get("NUMBA_CACHE_DIR", str(directory / "kernels"))}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    return inherited | paths | kernels | threads | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def sources(copy: Path) -> list[str]:
    """The source roots of a run: the copy comes before any installed dsv4."""
    return [str(copy), str(ROOT / "tests")]


def variables(copy: Path, report: Path) -> dict[str, str]:
    """What a run's own processes need to find the copy, and what `guard` needs."""
    return {"PYTHONPATH": os.pathsep.join(sources(copy)), guard.COPY: str(copy), guard.REPORT: str(report)}
