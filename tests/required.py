"""A run that must not pass because it ran nothing: what it demands is said in the environment.

DSV4_REQUIRE_BACKENDS=cuda,cuda-on-host makes a backend of these names that cannot run here an error, where its tests
would be skipped. DSV4_REQUIRE_PASSED=2000 makes fewer passed tests an error. Where `cuda` is required, warnings are no
errors: a machine with a GPU is lent with its packages, and what those warn of is not ours to mend.
"""

import os

import pytest

BACKENDS_VARIABLE, PASSED_VARIABLE = "DSV4_REQUIRE_BACKENDS", "DSV4_REQUIRE_PASSED"


def required_backends() -> list[str]:
    """The backends that must run."""
    return [name for name in os.environ.get(BACKENDS_VARIABLE, "").replace(" ", "").split(",") if name]


def skip(name: str, error: Exception) -> None:
    """Skips the test of a backend that cannot run here, or fails it where the backend must."""
    reason = f"backend {name} cannot run here: {type(error).__name__}: {error}"
    if name in required_backends():
        pytest.fail(f"{BACKENDS_VARIABLE}: {reason}", pytrace=False)
    pytest.skip(reason)


def pytest_configure(config) -> None:
    if "cuda" in required_backends():
        config.addinivalue_line("filterwarnings", "default")


def pytest_sessionstart(session) -> None:
    """Stops before the first test where a required backend cannot run: no test need be selected for that."""
    from backends import UNAVAILABLE, backend_names, create_backend

    for name in required_backends():
        if name not in backend_names():
            found = f"expected one of {', '.join(backend_names())}, found {name}"
            raise pytest.UsageError(f"{BACKENDS_VARIABLE}: {found}")
        try:
            create_backend(name)
        except UNAVAILABLE as error:
            reason = f"{type(error).__name__}: {error}"
            raise pytest.UsageError(f"{BACKENDS_VARIABLE}: backend {name} cannot run here: {reason}") from None


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session) -> None:
    """Fails a run in which too few tests passed. Only the process that gathers the results knows how many."""
    least, reporter = os.environ.get(PASSED_VARIABLE), session.config.pluginmanager.get_plugin("terminalreporter")
    if not least or reporter is None or hasattr(session.config, "workerinput"):
        return
    passed = len(reporter.stats.get("passed", []))
    if passed < int(least):
        reporter.write_line(f"{PASSED_VARIABLE}: expected {least} passed tests, found {passed}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
