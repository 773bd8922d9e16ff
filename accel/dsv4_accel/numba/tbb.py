"""Intel's TBB as the layer of threads below Numba's loops, where it is installed (extra `numba`, on x86-64 Linux).

Its threads sleep when they have nothing to do. GNU's OpenMP, which Numba takes without it, lets them spin first: on a
machine with other work they take the time of those that they wait for, and a step may take many times as long.
"""

import ctypes
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, files

LIBRARY = "libtbb.so.12"


def load() -> None:
    """Load TBB's library from where pip has put it, outside of the linker's path: then Numba finds it by its name.

    Without the package `tbb`, or where its library cannot be loaded, Numba chooses among its other layers.
    """
    with suppress(PackageNotFoundError, OSError):
        for file in files("tbb") or []:
            if file.name == LIBRARY:
                ctypes.CDLL(str(file.locate()), mode=ctypes.RTLD_GLOBAL)
