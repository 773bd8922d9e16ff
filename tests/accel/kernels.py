"""All kernels of the Numba backend."""

import importlib
import pkgutil


def all_kernels() -> dict:
    """Every kernel by the name of its module and its own."""
    import dsv4_accel.numba as package
    from dsv4_accel.numba.compile import Kernel

    modules = [
        importlib.import_module(info.name) for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    ]
    found = [thing for module in modules for thing in vars(module).values() if isinstance(thing, Kernel)]
    return {f"{kernel.__module__.removeprefix(package.__name__ + '.')}.{kernel.__name__}": kernel for kernel in found}
