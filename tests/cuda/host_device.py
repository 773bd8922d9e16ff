"""A device for the CUDA backend that runs its kernels on the host: see host/cuda_on_host.h."""

import ctypes
from collections import Counter
from functools import cache

import numpy as np

from cuda.host_array import HostArray
from cuda.host_build import compiler, library
from dsv4.errors import BackendError
from dsv4_accel.cuda import compiler as for_gpus
from dsv4_accel.cuda import status
from dsv4_accel.cuda.source import Kernel

FORWARD, BACKWARD = 0, 1
"""Orders in which threads and blocks get their turn."""


ALWAYS_CHECKED, THEN_EVERY = 30, 10
"""How many launches of a kernel run in both orders: the first ones, and then one in so many, since it takes time."""


class HostDevice:
    """Runs kernels with threads and blocks in one order, and many once more in another, which must change nothing."""

    multiprocessors = 3
    memory = 2**30
    """How many bytes of arrays it pretends to have room for."""

    def __init__(self, check_order: bool = True) -> None:
        """check_order: whether kernels run a second time. Raises BackendError without a C++ compiler."""
        if compiler() is None:
            raise BackendError("backend cuda on the host: expected a C++ compiler, found none")
        self.check_order = check_order
        self.status = self.zeros((status.FIELDS,), np.uint64)
        self.launched: list[str] = []
        """The names of all kernels that ran, in their order."""
        self._launches: Counter[str] = Counter()

    def asarray(self, array):
        return array if isinstance(array, HostArray) else HostArray(np.asarray(array))

    def to_numpy(self, array):
        if isinstance(array, np.ndarray | np.generic):
            return np.asarray(array)
        note = self.status.inner.copy()
        self.status.fill(0)
        status.raise_for(note)
        return array.get()

    def empty(self, shape, dtype):
        """Full of bytes 0xff, which are NaN, so that what a kernel forgets to write is seen."""
        bytes_of_each = np.dtype(dtype).itemsize
        return HostArray(np.full((*_as_tuple(shape), bytes_of_each), 0xFF, np.uint8).view(dtype)[..., 0])

    def zeros(self, shape, dtype):
        return HostArray(np.zeros(shape, dtype))

    def free_bytes(self) -> int:
        return self.memory

    def compact(self, array):
        whole = array.flags.c_contiguous and array.inner.ctypes.data % 16 == 0
        return array if whole else array.copy()

    def address(self, array) -> int:
        return array.inner.ctypes.data

    def launch(self, kernel: Kernel, blocks, threads: int, arguments, shared: int = 0) -> None:
        values = kernel.arguments(arguments)
        arrays = [value for value in values if isinstance(value, HostArray)]
        checks = self._checks_order(kernel)
        before = [array.inner.copy() for array in arrays] if checks else []
        self._run(kernel, blocks, threads, values, shared, FORWARD)
        self.launched.append(kernel.name)
        self._launches[kernel.name] += 1
        if checks:
            first = [array.inner.copy() for array in arrays]
            for array, content in zip(arrays, before, strict=True):
                array.inner[...] = content
            self._run(kernel, blocks, threads, values, shared, BACKWARD)
            for parameter, array, content in zip(_pointers(kernel, values), arrays, first, strict=True):
                same = array.inner.tobytes() == content.tobytes()
                assert same, f"{kernel.name}: {parameter} depends on the order of threads or blocks"

    def _checks_order(self, kernel: Kernel) -> bool:
        so_far = self._launches[kernel.name]
        return self.check_order and (so_far < ALWAYS_CHECKED or so_far % THEN_EVERY == 0)

    def _run(self, kernel: Kernel, blocks, threads: int, values, shared: int, order: int) -> None:
        built = library(kernel.file)
        grid = (ctypes.c_uint * 3)(*blocks, *[1] * (3 - len(blocks)))
        holders = [_holder(value) for value in values]
        addresses = (ctypes.c_void_p * len(holders))(*(holder.ctypes.data for holder in holders))
        message = built.run_on_host(_call(kernel), addresses, grid, threads, shared, order, flushes(for_gpus.OPTIONS))
        assert message is None, f"{kernel.name}: {message.decode()}"
        for parameter, value in zip(kernel.parameters, values, strict=True):
            if isinstance(value, HostArray):
                assert value.guards_hold, f"{kernel.name}: wrote before or behind {parameter.name}"


@cache
def flushes(options: tuple[str, ...]) -> bool:
    """Whether a GPU's program, so compiled, takes subnormal numbers for zeros. The last option counts."""
    found = False
    for option in options:
        name, _, value = option.lstrip("-").partition("=")
        if name in ("ftz", "use_fast_math"):
            found = value != "false"
    return found


@cache
def _call(kernel: Kernel):
    return ctypes.cast(getattr(library(kernel.file), f"call_{kernel.name}"), ctypes.c_void_p)


def _holder(value) -> np.ndarray:
    """Memory that holds what a parameter is given: a number, or the address of an array."""
    if value is None:
        return np.zeros(1, np.uint64)
    return np.array([value.inner.ctypes.data], np.uint64) if isinstance(value, HostArray) else np.array([value])


def _pointers(kernel: Kernel, values) -> list[str]:
    """The names of the parameters that are given an array."""
    pairs = zip(kernel.parameters, values, strict=True)
    return [parameter.name for parameter, value in pairs if isinstance(value, HostArray)]


def _as_tuple(shape) -> tuple[int, ...]:
    return (shape,) if isinstance(shape, int) else tuple(shape)
