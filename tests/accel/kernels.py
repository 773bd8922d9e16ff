"""All kernels of the Numba backend."""

import importlib
import pkgutil


def all_kernels() -> dict:
    """Every kernel by the name of its module and its own."""
    import dsv4_accel.numba as package
    from dsv4_accel.numba.compile import Kernel

    modules = [
        importlib.import_module(f"{package.__name__}.{info.name}") for info in pkgutil.iter_modules(package.__path__)
    ]
    found = [thing for module in modules for thing in vars(module).values() if isinstance(thing, Kernel)]
    return {f"{kernel.__module__.rpartition('.')[2]}.{kernel.__name__}": kernel for kernel in found}
