"""The backends that run the tests of operations: those of all tests, and CUDA's kernels on the host."""

import pytest

from backends import backend_names
from conftest import created, marked


@pytest.fixture(scope="session", params=map(marked, backend_names()))
def backend(request):
    """Every backend in turn; skipped where it cannot run."""
    return created(request.param)
