"""An array with CuPy's manners in the host's memory.

It obeys the rules that code for a GPU is likeliest to break: a NumPy array may not be mixed in, nothing becomes a NumPy
array unasked, an element is an array of no axes, and only functions and arguments that CuPy has may be used. What is
brought to the host is counted, and so are the indices that CuPy would bring to the device unasked.
"""

import inspect
from contextlib import suppress
from functools import cache
from importlib.util import find_spec

import ml_dtypes
import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

GUARD_BYTES = 512
"""Before and behind every array, so that a kernel that reads there meets NaN and one that writes there is found."""

GUARD = 0xFF
METHODS = frozenset(
    "all any argmax argmin argsort astype clip copy cumsum dot fill flatten max mean min nonzero prod put ravel "  # noqa: SIM905
    "repeat reshape searchsorted sort squeeze std sum swapaxes take transpose var view".split()
)
OWN_MEMORY = ("ravel", "reshape", "squeeze", "swapaxes", "transpose", "view")
"""Methods that may give a view."""


class HostArray(NDArrayOperatorsMixin):
    """A NumPy array behind CuPy's rules."""

    fetched = 0
    """How many numbers were brought to the host since someone last set this to 0, of all arrays."""
    computed = 0
    """How many arrays CuPy has computed since someone last set this to 0, each with a kernel or a copy of its own."""
    indices_placed = 0
    """How many arrays of NumPy were used as an index since someone last set this to 0: each is a transfer."""

    def __init__(self, array: np.ndarray, owner: np.ndarray | None = None) -> None:
        """owner: the memory with its guards that the array lies in; without it the array is copied into its own."""
        if owner is None:
            array, owner = _guarded(array)
        self.inner, self.owner = array, owner

    shape = property(lambda self: self.inner.shape)
    dtype = property(lambda self: self.inner.dtype)
    ndim = property(lambda self: self.inner.ndim)
    size = property(lambda self: self.inner.size)
    strides = property(lambda self: self.inner.strides)
    nbytes = property(lambda self: self.inner.nbytes)
    itemsize = property(lambda self: self.inner.itemsize)
    flags = property(lambda self: self.inner.flags)
    T = property(lambda self: HostArray(self.inner.T, self.owner))

    @property
    def guards_hold(self) -> bool:
        """Whether nobody wrote before or behind the memory."""
        return bool((self.owner[:GUARD_BYTES] == GUARD).all() and (self.owner[-GUARD_BYTES:] == GUARD).all())

    def get(self) -> np.ndarray:
        """A copy as a NumPy array."""
        HostArray.fetched += self.size
        return np.array(self.inner, order="C")

    def __array__(self, *arguments, **named):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`.")

    def __array_ufunc__(self, ufunc, method, *inputs, **named):
        if method != "__call__":
            raise TypeError(f"CuPy has no {ufunc.__name__}.{method}")
        HostArray.computed += 1
        return _wrapped(ufunc(*map(_inner, inputs), **_cupy_arguments(ufunc.__name__, (), named)))

    def __array_function__(self, function, types, arguments, named):
        named = _cupy_arguments(function.__name__, arguments, named)
        HostArray.computed += 1
        return _wrapped(function(*_inner(list(arguments)), **named))

    def __getattr__(self, name: str):
        if name not in METHODS:
            raise AttributeError(f"CuPy's ndarray has no {name} that these tests know of")

        def method(*arguments, **named):
            result = getattr(self.inner, name)(*_inner(list(arguments)), **_inner(named))
            if name in OWN_MEMORY and _shares(result, self):
                return HostArray(result, self.owner)
            HostArray.computed += not (name == "astype" and _shares(result, self))  # else of this dtype already
            return _wrapped(result)

        return method

    def __getitem__(self, index):
        result = self.inner[_index(index)]
        if _shares(result, self):
            return HostArray(result, self.owner)
        HostArray.computed += 1
        return _wrapped(result)

    def __setitem__(self, index, value) -> None:
        HostArray.computed += 1
        self.inner[_index(index)] = _inner(value)

    def __len__(self) -> int:
        return len(self.inner)

    def __iter__(self):
        return (self[number] for number in range(len(self)))

    def _item(self):
        HostArray.fetched += 1
        return self.inner.item()

    def item(self):
        return self._item()

    def __bool__(self) -> bool:
        return bool(self._item())

    def __int__(self) -> int:
        return int(self._item())

    def __float__(self) -> float:
        return float(self._item())

    def __index__(self) -> int:
        raise TypeError("only integer scalar arrays on the host can be used as an index")

    def __copy__(self):
        return HostArray(self.inner)

    def __deepcopy__(self, memo):
        return HostArray(self.inner)

    def __repr__(self) -> str:
        return f"HostArray({self.inner!r})"


def _guarded(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A copy of the array, aligned as CuPy's are, and the memory with guards that it lies in."""
    if array.dtype.kind not in "biuf" and array.dtype != ml_dtypes.bfloat16:
        raise TypeError(f"Unsupported dtype {array.dtype}")
    memory = np.full(array.nbytes + 3 * GUARD_BYTES, GUARD, np.uint8)
    skip = -memory.ctypes.data % GUARD_BYTES
    owner = memory[skip : skip + array.nbytes + 2 * GUARD_BYTES]
    copy = np.ndarray(array.shape, array.dtype, buffer=owner, offset=GUARD_BYTES)
    copy[...] = array
    return copy, owner


def _shares(result, array: HostArray) -> bool:
    return isinstance(result, np.ndarray) and np.may_share_memory(result, array.inner)


def _inner(value):
    """What lies behind CuPy's arrays in a value. Raises TypeError for NumPy's, which CuPy does not mix with its own."""
    match value:
        case HostArray():
            return value.inner
        case np.ndarray():
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
        case list() | tuple():
            return type(value)(map(_inner, value))
        case dict():
            return {name: _inner(one) for name, one in value.items()}
    return value


def _index(index):
    """An index: CuPy takes arrays of NumPy as well, and brings them to the device."""
    if isinstance(index, tuple):
        return tuple(map(_index, index))
    if isinstance(index, np.ndarray):
        HostArray.indices_placed += 1
    return index.inner if isinstance(index, HostArray) else index


def _wrapped(result):
    if isinstance(result, np.ndarray | np.generic):
        return HostArray(np.asarray(result))
    return type(result)(map(_wrapped, result)) if isinstance(result, tuple | list) else result


def _cupy_arguments(name: str, arguments, named):
    """The named arguments for NumPy. Raises TypeError for a function or an argument that CuPy does not have."""
    function = _of_cupy(name)
    if function is not None:
        with suppress(ValueError):  # written in C: nothing is known of its arguments
            inspect.signature(function).bind(*arguments, **named)
    return _inner(named)


@cache
def _of_cupy(name: str):
    """CuPy's function of this name, where CuPy is installed: it needs no GPU to be looked at."""
    if find_spec("cupy") is None:
        return None
    import cupy

    if not hasattr(cupy, name):
        raise TypeError(f"CuPy has no function {name}")
    function = getattr(cupy, name)
    return None if isinstance(function, cupy.ufunc) else function
