"""Where the arrays of this backend live and its kernels run: a GPU through CuPy.

`Device` is all that the operations know of it, so that their tests can run the same kernels without a GPU.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import ml_dtypes
import numpy as np
import numpy.typing as npt

from dsv4.errors import BackendError
from dsv4.ops.map_arrays import map_arrays
from dsv4_accel.cuda import source, status
from dsv4_accel.cuda.compiler import architecture_for, machine_code
from dsv4_accel.cuda.launcher import Launcher
from dsv4_accel.cuda.requirements import require_gpu

PLAIN_SHARED_BYTES = 48 * 1024
"""The dynamic shared memory that a block of any kernel may have without asking for more."""

VECTOR_BYTES = 16
"""The kernels' widest loads, and so the alignment that an array must have."""


class Device(Protocol):
    """Arrays that understand NumPy's functions, and kernels that take them."""

    multiprocessors: int
    """How many blocks run side by side at least."""

    status: Any
    """[3] uint64 on the device: what kernels note of numbers that name nothing (status.cuh)."""

    def asarray(self, array: Any) -> Any:
        """A NumPy array on the device; an array of the device as it is."""

    def to_numpy(self, array: Any) -> npt.NDArray[Any]:
        """A copy in the host's memory, once everything before it has run.

        Raises the error that a kernel has noted since the last call, IndexError or ValueError (status.py).
        """

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Any:
        """A new array that holds anything."""

    def zeros(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Any:
        """A new array of zeros."""

    def free_bytes(self) -> int:
        """How much memory new arrays may take."""

    def compact(self, array: Any) -> Any:
        """The array as kernels take it: itself, or a copy where it has gaps, is permuted or is not aligned."""

    def address(self, array: Any) -> int:
        """Where the first number of an array lies in the device's memory."""

    def launch(
        self, kernel: source.Kernel, blocks: tuple[int, ...], threads: int, arguments: Sequence[Any], shared: int = 0
    ) -> None:
        """Run a kernel: a grid of one to three axes, threads per block, bytes of dynamic shared memory.

        Raises TypeError where an argument does not fit the kernel's declaration.
        """


def require_room(device: Device, nbytes: int) -> None:
    """Raises BackendError if so many bytes of weights do not fit in the device's free memory."""
    free = device.free_bytes()
    if nbytes > free:
        found = f"found {free:,} free: {nbytes - free:,} are missing"
        raise BackendError(f"backend cuda: expected {nbytes:,} bytes of the GPU's memory for the weights, {found}")


def on_host(device: Device, function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function of the reference gives for arrays of the device: brought to the host, computed, brought back.

    For what has no kernel: float64, which is the ground truth, and arguments that do not fit, which it refuses.
    """
    return map_arrays(function(*(map_arrays(argument, device.to_numpy) for argument in arguments)), device.asarray)


class CupyDevice:
    """The current CUDA device of CuPy."""

    def __init__(self) -> None:
        """Raises BackendError that says in one line what is missing: CuPy, NVRTC, a driver, a GPU, a new enough one."""
        self._cupy = require_gpu()
        self.multiprocessors = int(self._cupy.cuda.Device().attributes["MultiProcessorCount"])
        self.status = self.zeros((status.FIELDS,), np.uint64)
        capability = self._cupy.cuda.Device().compute_capability
        self._architecture = architecture_for(self._cupy.cuda.nvrtc, capability)
        self._launchers: dict[str, Launcher] = {}

    def asarray(self, array: Any) -> Any:
        if isinstance(array, np.ndarray) and array.dtype == ml_dtypes.bfloat16:
            return self._cupy.asarray(array.view(np.uint16)).view(ml_dtypes.bfloat16)
        return self._cupy.asarray(array)

    def to_numpy(self, array: Any) -> npt.NDArray[Any]:
        if isinstance(array, np.ndarray | np.generic):
            return np.asarray(array)
        note = self._cupy.asnumpy(self.status)
        if note.any():
            self.status.fill(0)
            status.raise_for(note)
        if array.dtype == ml_dtypes.bfloat16:
            bits: npt.NDArray[Any] = self._cupy.asnumpy(array.view(np.uint16))
            return bits.view(ml_dtypes.bfloat16)
        numbers: npt.NDArray[Any] = self._cupy.asnumpy(array)
        return numbers

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Any:
        return self._cupy.empty(shape, dtype)

    def zeros(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Any:
        return self._cupy.zeros(shape, dtype)

    def free_bytes(self) -> int:
        free, _ = self._cupy.cuda.runtime.memGetInfo()
        return int(free) + int(self._cupy.get_default_memory_pool().free_bytes())

    def compact(self, array: Any) -> Any:
        whole = array.flags.c_contiguous and array.data.ptr % VECTOR_BYTES == 0
        return array if whole else array.copy(order="C")

    def address(self, array: Any) -> int:
        return int(array.data.ptr)

    def launch(
        self, kernel: source.Kernel, blocks: tuple[int, ...], threads: int, arguments: Sequence[Any], shared: int = 0
    ) -> None:
        launcher = self._launchers.get(kernel.name) or self._load(kernel.file)[kernel.name]
        launcher(blocks, threads, arguments, shared)

    def _load(self, file: str) -> dict[str, Launcher]:
        """The kernels of a source file by name, compiled now or before, and all others that were loaded."""
        cuda = self._cupy.cuda
        module = self._cupy.RawModule(path=str(machine_code(cuda.nvrtc, file, self._architecture)))
        for name, kernel in source.kernels(file).items():
            function, start = module.get_function(name), cuda.driver.launchKernel
            self._launchers[name] = Launcher(kernel, function, start, cuda.get_current_stream)
        return self._launchers
