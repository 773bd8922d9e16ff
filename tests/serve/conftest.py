"""The backends of these tests: those of the whole suite, and one that is batch-invariant everywhere."""

import pytest

from backends import CUDA_ON_HOST, backend_names
from conftest import created, marked
from one_by_one import OneByOne


@pytest.fixture(
    scope="session", params=[*(marked(name) for name in backend_names() if name != CUDA_ON_HOST), "one-by-one"]
)
def backend(request):
    """Every registered backend in turn, as elsewhere, and `OneByOne`."""
    return OneByOne() if request.param == "one-by-one" else created(request.param)
