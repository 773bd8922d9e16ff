"""The pytest plugin inside a mutant's run: is the mutated copy the one under test, and how did each test end?

The run loads it with `-p mutants.guard`. Two environment variables say where the copies of dsv4 and dsv4_accel lie and
where to write one line of JSON for each failure.
"""

import json
import os
from pathlib import Path

import pytest
from hypothesis import Phase, settings

import dsv4
import dsv4_accel

COPY, REPORT = "DSV4_MUTANT_COPY", "DSV4_MUTANT_REPORT"
WRONG_COPY = 70
"""The exit status where the tests would run another dsv4 than the copy."""


def pytest_configure(config):
    """Refuse to run where another installation of dsv4 comes first: its tests would say nothing about the copy."""
    expected = Path(os.environ[COPY]).resolve()
    for package in (dsv4, dsv4_accel):
        found = Path(package.__file__).resolve()
        if not found.is_relative_to(expected):
            message = f"expected {package.__name__} from {expected}, found {found}"
            pytest.exit(message, returncode=WRONG_COPY)


def pytest_sessionstart(session):
    """Hypothesis runs the examples of the ordinary suite, but does not make a failing one smaller."""
    phases = (Phase.explicit, Phase.generate)
    settings.register_profile("mutants", settings(), phases=phases, report_multiple_bugs=False, database=None)
    settings.load_profile("mutants")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Write down each failure, and whether an assertion failed or something else went wrong."""
    report = yield
    if report.failed:
        is_assertion = call.when == "call" and isinstance(call.excinfo.value, AssertionError | pytest.fail.Exception)
        line = {"test": report.nodeid, "is_assertion": is_assertion, "error": call.excinfo.exconly()}
        with Path(os.environ[REPORT]).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    return report
