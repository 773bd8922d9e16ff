"""The CUDA backend on the host, for tests of it alone; they are skipped where it cannot run."""

import pytest

from backends import CUDA_ON_HOST, Caller
from conftest import created


@pytest.fixture(scope="module")
def ops():
    """The backend, called with NumPy arrays that it must not write to."""
    return Caller(created(CUDA_ON_HOST))


@pytest.fixture(scope="module")
def hasty():
    """The backend as it is; for large tests, it runs no kernel in a second order."""
    backend = created(CUDA_ON_HOST)
    backend.device.check_order = False
    return backend
