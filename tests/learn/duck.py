"""An array that is none, as a tape's tensors are: whoever reads or writes its numbers behind its back fails."""

import numpy as np

FUNCTIONS = {np.where, np.sum, np.max, np.argsort, np.concatenate, np.take_along_axis}


class Duck(np.lib.mixins.NDArrayOperatorsMixin):
    """Answers NumPy's protocols for float results with another of its kind, for others with plain arrays."""

    def __init__(self, data):
        self.data = np.asarray(data)

    def __array_ufunc__(self, ufunc, method, *inputs, **settings):
        assert method == "__call__" and "out" not in settings
        return wrapped(ufunc(*map(plain, inputs), **settings))

    def __array_function__(self, function, types, arguments, settings):
        assert function in FUNCTIONS, function
        return wrapped(function(*map(plain, arguments), **settings))

    def __array__(self, *arguments, **settings):
        raise TypeError("no array")

    def __getitem__(self, index):
        return wrapped(self.data[index])

    def __getattr__(self, name):
        if name in ("shape", "dtype", "ndim"):
            return getattr(self.data, name)
        if name in ("reshape", "sum", "max", "astype", "swapaxes"):
            return lambda *arguments, **settings: wrapped(getattr(self.data, name)(*arguments, **settings))
        raise AttributeError(name)

    def __len__(self):
        return len(self.data)


def plain(value):
    """What is inside a duck, and else the value."""
    return value.data if isinstance(value, Duck) else value


def wrapped(value):
    """A duck for floats."""
    return Duck(value) if value.dtype.kind == "f" else value
