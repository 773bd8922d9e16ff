"""The backends that the suite runs for, and a caller that speaks NumPy to each of them."""

import copy
import tomllib
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import numpy as np

import verdicts
from cuda.host_device import HostDevice
from dsv4.errors import BackendError
from dsv4.ops import Fp4Weight, Fp8Weight, Ops
from dsv4.ops.map_arrays import map_arrays
from dsv4.ops.packed_rows import PackedRows
from dsv4_accel.cuda import CudaOps

CUDA_ON_HOST = "cuda-on-host"
"""The CUDA backend with its kernels built by the C++ compiler of this machine, where no GPU is needed."""

GROUP = "dsv4.ops"

UNAVAILABLE = (ImportError, BackendError)
"""What a backend may raise where its library or its device is missing. Anything else is a mistake in the backend."""


def backend_names() -> list[str]:
    """The reference, every backend registered in the entry-point group `dsv4.ops`, and CUDA's kernels on the host."""
    return ["numpy", *sorted(_registered().keys() - {"numpy"}), CUDA_ON_HOST]


def create_backend(name: str) -> Ops:
    """The backend of this name; raises one of UNAVAILABLE where this machine cannot run it."""
    if name == "numpy":
        return Ops()
    if name == CUDA_ON_HOST:
        return CudaOps(HostDevice())
    return _registered()[name].load()()


@cache
def _registered() -> dict[str, EntryPoint]:
    """The backends of this project, also where it lies uninstalled on a machine, and those of installed packages."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    own = {name: EntryPoint(name, value, GROUP) for name, value in project["entry-points"][GROUP].items()}
    return own | {entry.name: entry for entry in entry_points(group=GROUP)}


class Caller:
    """Calls the operations of a backend with NumPy arrays, and fails if an operation writes to an argument.

    `caller.linear(x, weight)` hands read-only views to the backend's `linear` and returns NumPy arrays. Weights,
    named tuples and lists are gone through; every other object is handed over as it is.
    """

    def __init__(self, backend: Ops) -> None:
        self.backend = backend

    def __getattr__(self, operation):
        method = getattr(self.backend, operation)

        def call(*arguments):
            placed = self.place(list(arguments))
            before = copy.deepcopy([argument for argument in arguments if _is_data(argument)])
            result = self.fetch(method(*placed))
            after = self.fetch([argument for argument in placed if _is_data(argument)])
            _require_equal(after, before, operation)
            return result

        return call

    def place(self, value):
        """The value where the backend computes; NumPy arrays become read-only."""
        return map_arrays(value, self._place_one)

    def _place_one(self, array):
        if not isinstance(array, np.ndarray):  # a number of NumPy's
            return array
        view = array.view()
        view.flags.writeable = False
        return self.backend.asarray(view)

    def fetch(self, value):
        """The value with NumPy arrays for the backend's."""
        return map_arrays(value, lambda array: np.asarray(self.backend.to_numpy(array)))


def _is_data(value) -> bool:
    return _is_array(value) or isinstance(value, tuple | list | Fp8Weight | Fp4Weight | PackedRows)


def _is_array(value) -> bool:
    """Whether this is an array of any backend."""
    return hasattr(value, "dtype") and hasattr(value, "strides")


def _require_equal(found, expected, operation: str) -> None:
    match expected:
        case np.ndarray():
            try:
                verdicts.exact(found, expected)
            except AssertionError as error:
                raise AssertionError(f"{operation} wrote to an argument") from error
        case Fp8Weight() | Fp4Weight():
            _require_equal(list(vars(found).values()), list(vars(expected).values()), operation)
        case PackedRows():
            _require_equal(found.stored, expected.stored, operation)
        case tuple() | list():
            for one, other in zip(found, expected, strict=True):
                _require_equal(one, other, operation)
