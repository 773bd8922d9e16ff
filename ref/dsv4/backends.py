"""Backends by name, and the one that is used by default.

The entry-point group `dsv4.ops` holds the backends: its entries' names are those of the backends, their values
subclasses of `dsv4.ops.Ops`. Any installed package may add one.
"""

import os
import warnings
from importlib.util import find_spec

from dsv4.entry_points import failure, installed
from dsv4.errors import BackendError
from dsv4.ops import Ops

GROUP = "dsv4.ops"
OURS = {"numpy": "dsv4.ops:Ops", "numba": "dsv4_accel.numba:NumbaOps", "cuda": "dsv4_accel.cuda:CudaOps"}
VARIABLE = "DSV4_BACKEND"


def backend(name: str = "auto") -> Ops:
    """The operations of a backend, ready to use.

    name: "numpy", "numba", "cuda", the name of another installed entry point of the group `dsv4.ops`, or "auto": the
    backend that the environment variable DSV4_BACKEND names; without it (or where it is empty or "auto") Numba's where
    Numba is installed, and else NumPy's: a GPU is never taken unasked. If Numba is installed but its backend fails to
    load, "auto" warns and takes NumPy's.
    Raises BackendError if there is none of that name or if it cannot run on this machine, and names the variable
    where that is what asked for it.
    """
    if name != "auto":
        return _create(name, "backend")
    wanted = os.environ.get(VARIABLE) or "auto"
    return _create(wanted, VARIABLE) if wanted != "auto" else _fastest()


def backend_names() -> list[str]:
    """The names of all installed backends, whether or not they can run here: NumPy's, then the others by name."""
    return ["numpy", *sorted(installed(GROUP, OURS).keys() - {"numpy"})]


def _fastest() -> Ops:
    """Numba's backend where Numba is installed and works, else NumPy's."""
    if "numba" in installed(GROUP, OURS) and _has_numba():
        try:
            return _create("numba", "backend")
        except BackendError as error:
            warnings.warn(f"{error}; using numpy instead", RuntimeWarning, stacklevel=4)  # where load is called
    return Ops()


def _create(name: str, asked_by: str) -> Ops:
    """The backend of this name. asked_by: what an error message calls the place where the name stood."""
    found = installed(GROUP, OURS)
    if name not in found:
        expected = ", ".join(["auto", *backend_names()])
        raise BackendError(f"{asked_by}: expected one of {expected}, found {name}")
    if name == "numba" and not _has_numba():
        raise BackendError(f"{asked_by} numba: expected Numba, found none installed: pip install 'dsv4[numba]'")
    try:
        ops = found[name].load()()
    except BackendError as error:  # it says itself what this machine lacks
        raise BackendError(f"{asked_by} {name}: {error}") from error
    except Exception as error:  # code from outside, and the libraries that it needs, can fail in any way
        raise BackendError(f"{asked_by} {name}: {failure(found[name], error)}") from error
    if not isinstance(ops, Ops):
        raise BackendError(f"{asked_by} {name}: expected a subclass of dsv4.ops.Ops, found {found[name].value}")
    return ops


def _has_numba() -> bool:
    """Whether Numba is installed, in whatever version; found out without importing it, which takes long."""
    return find_spec("numba") is not None
