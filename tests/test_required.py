"""A run that demands a backend or a number of passed tests says so when it has not got it."""

import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

import required
from backends import CUDA_ON_HOST, UNAVAILABLE
from conftest import created
from dsv4.errors import BackendError

ROOT = Path(__file__).parents[1]


@pytest.fixture
def no_compiler(monkeypatch):
    """What stands for a GPU cannot run."""
    monkeypatch.setenv("CXX", "/nowhere/no-compiler")


def demand(monkeypatch, names):
    monkeypatch.setenv(required.BACKENDS_VARIABLE, names)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (CUDA_ON_HOST, "backend cuda-on-host cannot run here: BackendError: .* expected a C.. compiler, found none"),
        ("abacus", "expected one of numpy, cuda, numba, cuda-on-host, found abacus"),
    ],
)
def test_a_run_without_a_required_backend_does_not_start(monkeypatch, no_compiler, name, message):
    demand(monkeypatch, f"numpy, {name}")
    with pytest.raises(pytest.UsageError, match=f"^DSV4_REQUIRE_BACKENDS: {message}"):
        required.pytest_sessionstart(None)


def test_a_run_with_its_required_backends_starts(monkeypatch, no_compiler):
    demand(monkeypatch, "numpy")
    assert required.pytest_sessionstart(None) is None
    demand(monkeypatch, "")
    assert required.pytest_sessionstart(None) is None


def test_a_skip_of_a_required_backend_fails(monkeypatch, no_compiler):
    demand(monkeypatch, "numpy")
    with pytest.raises(pytest.skip.Exception, match="cannot run here"):
        created(CUDA_ON_HOST)
    demand(monkeypatch, CUDA_ON_HOST)
    with pytest.raises(pytest.fail.Exception, match="DSV4_REQUIRE_BACKENDS: backend cuda-on-host cannot run here"):
        created(CUDA_ON_HOST)


def test_a_mistake_of_a_backend_is_no_missing_library():
    """A kernel that does not build, a start that fails: these are errors, not skips."""
    for mistake in (RuntimeError, OSError, ValueError, AttributeError):
        assert not issubclass(mistake, UNAVAILABLE)
    assert issubclass(BackendError, UNAVAILABLE)
    assert issubclass(ModuleNotFoundError, UNAVAILABLE)


@pytest.mark.parametrize(("names", "added"), [("", []), (CUDA_ON_HOST, []), ("cuda-on-host,cuda", ["default"])])
def test_warnings_are_errors_but_where_a_gpu_is_required(monkeypatch, names, added):
    demand(monkeypatch, names)
    lines = []
    required.pytest_configure(types.SimpleNamespace(addinivalue_line=lambda name, line: lines.append((name, line))))
    assert lines == [("filterwarnings", line) for line in added]


@pytest.mark.parametrize(("least", "status"), [("100000", pytest.ExitCode.TESTS_FAILED), ("1", pytest.ExitCode.OK)])
def test_too_few_passed_tests_are_an_error(least, status):
    command = [sys.executable, "-m", "pytest", "-n1", "-p", "no:cacheprovider", "tests/ops/test_chunks.py"]
    variables = {required.BACKENDS_VARIABLE: "numpy", required.PASSED_VARIABLE: least, "PYTEST_ADDOPTS": ""}
    environment = os.environ | variables
    process = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert process.returncode == status, process.stdout + process.stderr
    said = f"DSV4_REQUIRE_PASSED: expected {least} passed tests, found" in process.stdout
    assert said == (status != pytest.ExitCode.OK)
