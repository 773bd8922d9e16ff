"""A launch hands the driver what a kernel's declaration says, and costs the same few calls however much that is."""

import ctypes
import struct
import sys
import threading
import types

import numpy as np
import pytest

from dsv4_accel.cuda import source
from dsv4_accel.cuda.launcher import Launcher, layout

KERNELS = [kernel for file in source.files() for kernel in source.kernels(file).values()]
LARGEST = max(KERNELS, key=lambda kernel: len(kernel.parameters))

CTYPES = {
    "float": ctypes.c_float,
    "double": ctypes.c_double,
    "int": ctypes.c_int,
    "long long": ctypes.c_longlong,
    "bool": ctypes.c_bool,
    "unsigned": ctypes.c_uint,
    "unsigned char": ctypes.c_ubyte,
    "unsigned short": ctypes.c_ushort,
    "unsigned long long": ctypes.c_ulonglong,
}


NUMBERS = {"float": lambda n: n / 2, "double": lambda n: n / 2, "bool": lambda n: n % 2 == 1, "int": int.__neg__}
"""A number of each type, where it is not the count itself."""


class Placed:
    """An array with the attributes of CuPy's that a launch looks at."""

    def __init__(self, dtype, address: int, step: int = 1) -> None:
        self.inner = np.zeros(8, dtype)[::step]
        self.dtype, self.flags, self.strides = self.inner.dtype, self.inner.flags, self.inner.strides
        self.data = types.SimpleNamespace(ptr=address)


def arguments(kernel: source.Kernel) -> list:
    """Arrays at different addresses, the second one left out, and different numbers."""
    given, pointers = [], 0
    for number, parameter in enumerate(kernel.parameters, 1):
        pointers += parameter.is_pointer
        if parameter.is_pointer:
            dtype = source.DTYPES[parameter.type][-1]
            given.append(None if pointers == 2 else Placed(dtype, 0x7F00_0000_0000 + 256 * number))
        else:
            given.append(NUMBERS.get(parameter.type, int)(number))
    return given


class Driver:
    """Keeps what the last launch was given, its arguments read through their addresses as a driver reads them."""

    def __init__(self, kernel: source.Kernel) -> None:
        self.kernel, self.launched = kernel, None
        function = types.SimpleNamespace(kernel=types.SimpleNamespace(ptr=77), max_dynamic_shared_size_bytes=1000)
        self.launcher = Launcher(kernel, function, self.start, lambda: types.SimpleNamespace(ptr=5))

    def start(self, function, x, y, z, threads, threads_y, threads_z, shared, stream, addresses, extra):
        places = (ctypes.c_void_p * len(self.kernel.parameters)).from_address(addresses)
        kinds = [ctypes.c_void_p if one.is_pointer else CTYPES[one.type] for one in self.kernel.parameters]
        self.arguments = [kind.from_address(place).value for kind, place in zip(kinds, places, strict=True)]
        self.launched = (function, (x, y, z), (threads, threads_y, threads_z), shared, stream, extra)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_every_argument_arrives(kernel):
    driver, given = Driver(kernel), arguments(kernel)
    driver.launcher((3, 2), 128, given, 500)
    assert driver.arguments == [one.data.ptr if isinstance(one, Placed) else one for one in given]
    assert driver.launched == (77, (3, 2, 1), (128, 1, 1), 500, 5, 0)


@pytest.mark.parametrize(("blocks", "grid"), [((4,), (4, 1, 1)), ((4, 5), (4, 5, 1)), ((4, 5, 6), (4, 5, 6))])
def test_a_grid_has_three_axes(blocks, grid):
    driver = Driver(LARGEST)
    driver.launcher(blocks, 32, arguments(LARGEST), 0)
    assert driver.launched[1] == grid


def test_arguments_are_aligned_as_in_c():
    types_, code = ("bool", "double", "int", "float", "unsigned short", "long long"), "?difHq"
    kernel = source.Kernel("", "", tuple(source.Parameter(kind, kind, False) for kind in types_))

    class Structure(ctypes.Structure):
        _fields_ = [(kind, CTYPES[kind]) for kind in types_]

    size, offsets = layout(kernel)
    assert offsets == [getattr(Structure, kind).offset for kind in types_]
    assert size == struct.calcsize(code)


def test_what_does_not_fit_is_an_error_at_every_launch():
    driver, right = Driver(LARGEST), arguments(LARGEST)
    driver.launcher((1,), 32, right, 0)
    wrong = [Placed(np.float64, 256), *right[1:]]
    with pytest.raises(TypeError, match=f"{LARGEST.name}: expected {LARGEST.parameters[0].name} of float32"):
        driver.launcher((1,), 32, wrong, 0)
    with pytest.raises(TypeError, match="argument"):
        driver.launcher((1,), 32, right[1:], 0)
    place = next(number for number, one in enumerate(LARGEST.parameters) if one.type == "int" and not one.is_pointer)
    with pytest.raises(struct.error):
        driver.launcher((1,), 32, [2**31 if number == place else one for number, one in enumerate(right)], 0)


def test_gaps_are_found_at_the_first_launch():
    given = arguments(LARGEST)
    given[0] = Placed(given[0].dtype, 256, step=2)
    with pytest.raises(TypeError, match="without gaps"):
        Driver(LARGEST).launcher((1,), 32, given, 0)


def test_shared_memory_is_asked_for_where_a_block_has_less():
    driver = Driver(LARGEST)
    found = []
    for shared in (1000, 3000, 2000, 3000, 4000):
        driver.launcher((1,), 32, arguments(LARGEST), shared)
        found.append(driver.launcher.function.max_dynamic_shared_size_bytes)
    assert found == [1000, 3000, 3000, 3000, 4000]


def calls(kernel: source.Kernel) -> int:
    """How many functions, of Python and of C, a launch calls that is not the kernel's first one."""
    launcher, given, count = Driver(kernel).launcher, arguments(kernel), [0]
    launcher._start = lambda *_: None
    launcher((1,), 32, given, 0)

    def counted(frame, event, argument):
        count[0] += event in ("call", "c_call")

    sys.setprofile(counted)
    try:
        launcher((1,), 32, given, 0)
    finally:
        sys.setprofile(None)
    return count[0]


def test_a_launch_with_many_arguments_calls_no_more_functions_than_one_with_few():
    found = {calls(kernel) for kernel in KERNELS}
    assert len(found) == 1
    assert found.pop() <= 6  # itself, what packs and its `struct`, the stream, the driver, and setprofile


def test_threads_pack_into_memory_of_their_own():
    driver, addresses = Driver(LARGEST), []
    driver.launcher._start = lambda *launch: addresses.append(launch[-2])

    def launch():
        driver.launcher((1,), 32, arguments(LARGEST), 0)

    launch()
    thread = threading.Thread(target=launch)
    thread.start()
    thread.join()
    launch()
    assert addresses[0] == addresses[2] != addresses[1]


def test_cupys_arrays_are_taken():
    """Over memory of the host, which needs no GPU to be given an address."""
    cupy = pytest.importorskip("cupy")
    held = np.zeros(4096, np.uint8)
    memory = cupy.cuda.UnownedMemory(held.ctypes.data, held.nbytes, held, 0)

    def on_cupy(number, array):
        if not isinstance(array, Placed):
            return array
        return cupy.ndarray((8,), array.dtype, memptr=cupy.cuda.MemoryPointer(memory, 64 * number))

    driver = Driver(LARGEST)
    driver.launcher((1,), 32, [on_cupy(*pair) for pair in enumerate(arguments(LARGEST))], 0)
    pointers = [number for number, one in enumerate(arguments(LARGEST)) if isinstance(one, Placed)]
    assert [driver.arguments[number] for number in pointers] == [held.ctypes.data + 64 * number for number in pointers]
