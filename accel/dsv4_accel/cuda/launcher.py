"""Starts a kernel in about a microsecond of Python: a function that is written for the kernel packs its arguments.

CuPy looks at each argument of each launch. Here a kernel's declaration (source.py) is read once, and becomes the text
of a function that compares dtypes, takes addresses and writes all arguments with one call of `struct`.
"""

import ctypes
import struct
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dsv4_accel.cuda.source import DTYPES, Kernel, Parameter

CODES = {
    "float": "f",
    "double": "d",
    "int": "i",
    "long long": "q",
    "bool": "?",
    "unsigned": "I",
    "unsigned char": "B",
    "unsigned short": "H",
    "unsigned long long": "Q",
}
"""How `struct` writes a number of each type of source.DTYPES."""

POINTER = "P"


class Launcher:
    """One kernel, as the driver starts it."""

    def __init__(self, kernel: Kernel, function: Any, start: Callable[..., None], stream: Callable[[], Any]) -> None:
        """function: CuPy's RawKernel; start: `cupy.cuda.driver.launchKernel`; stream: gives the current stream."""
        self.kernel, self.function, self._pointer = kernel, function, function.kernel.ptr
        self.most_shared = int(function.max_dynamic_shared_size_bytes)
        """The dynamic shared memory that a block may have without asking for more."""
        self._start, self._stream, self._pack = start, stream, packer(kernel)
        self._was_checked = False
        self._own = threading.local()  # each thread writes to memory of its own: while one launches, others run

    def __call__(self, blocks: tuple[int, ...], threads: int, arguments: Sequence[Any], shared: int) -> None:
        """As `Device.launch`. Dtypes are compared at each launch, gaps in arrays are looked for at the first."""
        if not self._was_checked:
            self.kernel.arguments(arguments)
            self._was_checked = True
        if shared > self.most_shared:
            self.function.max_dynamic_shared_size_bytes = self.most_shared = shared
        try:
            places = self._own.places
        except AttributeError:
            places = self._own.places = Places(self.kernel)
        self._pack(places.memory, *arguments)
        x, y, z = (*blocks, 1, 1)[:3]
        self._start(self._pointer, x, y, z, threads, 1, 1, shared, self._stream().ptr, places.address, 0)


class Places:
    """Memory for the arguments of one kernel, and the addresses of all of them, which the driver wants in an array."""

    def __init__(self, kernel: Kernel) -> None:
        size, offsets = layout(kernel)
        self.memory = ctypes.create_string_buffer(size)
        start = ctypes.addressof(self.memory)
        self._addresses = (ctypes.c_void_p * len(offsets))(*(start + offset for offset in offsets))
        self.address = ctypes.addressof(self._addresses)


def layout(kernel: Kernel) -> tuple[int, list[int]]:
    """How many bytes the arguments take, and where each one begins, aligned as in C."""
    codes = _codes(kernel)
    offsets = [struct.calcsize(codes[: end + 1]) - struct.calcsize(code) for end, code in enumerate(codes)]
    return struct.calcsize(codes), offsets


def packer(kernel: Kernel) -> Callable[..., None]:
    """pack(memory, *arguments) writes the arguments of a launch: of an array its address, for None a null pointer.

    It raises TypeError as `Kernel.arguments` for a dtype that does not fit, and struct.error for a number that its type
    does not hold.
    """
    names = [f"a{number}" for number in range(len(kernel.parameters))]
    pairs = list(zip(names, kernel.parameters, strict=True))
    checks = [_check(name, parameter) for name, parameter in pairs if parameter.is_pointer]
    lines = [
        f"def pack(memory, {', '.join(names)}):",
        f"    if not ({' and '.join(checks) or True}): check(({', '.join(names)},))",
        f"    write(memory, 0, {', '.join(_value(*pair) for pair in pairs)})",
    ]
    dtypes = {_dtype_name(kind): np.dtype(kind) for kinds in DTYPES.values() for kind in kinds}
    scope: dict[str, Any] = dtypes | {"write": struct.Struct(_codes(kernel)).pack_into, "check": kernel.arguments}
    exec("\n".join(lines), scope)  # made of the names above alone
    pack: Callable[..., None] = scope["pack"]
    return pack


def _codes(kernel: Kernel) -> str:
    return "".join(POINTER if parameter.is_pointer else CODES[parameter.type] for parameter in kernel.parameters)


def _check(name: str, parameter: Parameter) -> str:
    """An expression that is true where an array has one of the dtypes, as NumPy's own objects, or there is none."""
    fitting = " or ".join(f"{name}.dtype is {_dtype_name(kind)}" for kind in DTYPES[parameter.type])
    return f"({name} is None or {fitting})"


def _value(name: str, parameter: Parameter) -> str:
    return f"0 if {name} is None else {name}.data.ptr" if parameter.is_pointer else name


def _dtype_name(kind: type[np.generic]) -> str:
    return f"dtype_{np.dtype(kind).name}"
