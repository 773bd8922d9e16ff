"""The reference on arrays with CuPy's manners: what the model's code does with arrays of a device, without kernels."""

from collections.abc import Sequence
from functools import wraps

import numpy as np

from cuda.host_array import HostArray
from dsv4.ops import OPERATIONS, Ops
from dsv4.ops.map_arrays import map_arrays


class ModelOps(Ops):
    """Operations that take and give arrays of a device, each computed by the reference, and so in float64, too."""

    asarray = staticmethod(lambda array: array if isinstance(array, HostArray) else HostArray(np.asarray(array)))
    to_numpy = staticmethod(lambda array: array if isinstance(array, np.ndarray) else array.get())
    zeros = staticmethod(lambda shape, dtype=np.float32: HostArray(np.zeros(shape, dtype)))


class _Fetched(Sequence):
    """Experts on the host, of which only those that are asked for are read."""

    def __init__(self, experts: Sequence) -> None:
        self.experts = experts

    def __len__(self) -> int:
        return len(self.experts)

    def __getitem__(self, number):
        return _fetched(self.experts[number])


def _fetched(value):
    """A value with NumPy arrays for those of the device, uncounted: a kernel would not fetch them."""
    if isinstance(value, Sequence) and not isinstance(value, str | tuple | list):
        return _Fetched(value)
    return map_arrays(value, lambda array: array.inner)


def _through_reference(function):
    @wraps(function)
    def operation(*arguments):
        return map_arrays(function(*map(_fetched, arguments)), HostArray)

    return staticmethod(operation)


for _name in OPERATIONS:
    setattr(ModelOps, _name, _through_reference(getattr(Ops, _name)))
