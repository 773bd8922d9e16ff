"""Fixtures and settings of the whole suite: the backends, and how long Hypothesis searches.

HYPOTHESIS_PROFILE=fuzz searches longer, each time from another seed; by default every run tests the same examples, and
with HYPOTHESIS_PROFILE=quick the first few of them, to see whether other versions of Python and its packages will do.
A property test takes its backend from a fixture of session scope, so that one backend serves all its examples.
"""

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores: one thread in each, and one that waits does not spin
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
from hypothesis import settings

from backends import CUDA_ON_HOST, UNAVAILABLE, Caller, backend_names, create_backend
from explain.browser import PROGRAMS, Browser, SilentError, program
from mutants.summary import pytest_terminal_summary
from required import pytest_configure, pytest_sessionfinish, pytest_sessionstart, skip

__all__ = ["pytest_configure", "pytest_sessionfinish", "pytest_sessionstart", "pytest_terminal_summary"]

settings.register_profile("fixed", derandomize=True, deadline=None, max_examples=40)
settings.register_profile("quick", derandomize=True, deadline=None, max_examples=5)
settings.register_profile("fuzz", deadline=None, max_examples=200, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


def marked(name):
    """A backend as a parameter; tests on a GPU have a marker, so that they can be run by themselves."""
    return pytest.param(name, marks=pytest.mark.gpu if name == "cuda" else ())


def created(name):
    """The backend of this name; the test is skipped where it cannot run, or fails where it must (required.py)."""
    try:
        return create_backend(name)
    except UNAVAILABLE as error:
        skip(name, error)


@pytest.fixture(scope="session", params=[marked(name) for name in backend_names() if name != CUDA_ON_HOST])
def backend(request):
    """Every registered backend in turn, as the model would use it; skipped where it cannot run.

    What stands for a GPU takes too long for whole models: it has this fixture in tests/ops alone, and a few models of
    its own in tests/cuda.
    """
    return created(request.param)


@pytest.fixture(scope="session")
def ops(backend):
    """Every registered backend in turn, called with NumPy arrays that it must not write to."""
    return Caller(backend)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    """A real browser, or a visible skip; DSV4_CHROMIUM names one that is not found by itself."""
    path = program()
    if path is None:
        pytest.skip(f"no Chromium found: expected one of {', '.join(PROGRAMS)}, or its path in DSV4_CHROMIUM")
    try:
        browser = Browser(path, tmp_path_factory.mktemp("profile"))
    except SilentError as error:
        pytest.skip(f"{path} shows no page here: {error}")
    with browser:
        yield browser
