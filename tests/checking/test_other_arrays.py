"""Functions on arrays of other libraries: what they are given, and how their results come back."""

import numpy as np
import pytest

import dsv4
from dsv4.checking.arrays import laid_out, to_numpy
from dsv4.ops import Fp4Weight, Ops
from dsv4.ops.map_arrays import map_arrays


class Device:
    """An array elsewhere: NumPy cannot read it, and it leads back by one method alone."""

    def __init__(self, array, back):
        self.array, self.back = array, back
        self.dtype, self.shape, self.size = array.dtype, array.shape, array.size
        setattr(self, back, lambda: array)

    def __array__(self, *_, **__):
        raise TypeError("implicit conversion to a NumPy array is not allowed")

    def __getitem__(self, places):
        return Device(self.array[places], self.back)

    def transpose(self, axes):
        return Device(self.array.transpose(axes), self.back)


class Gradient(Device):
    """As torch: first without its gradient, then on the host, then as NumPy's."""

    def __init__(self, array):
        super().__init__(array, "numpy")
        self.numpy = lambda: pytest.fail("with its gradient")

    def detach(self):
        return type("Detached", (), {"cpu": lambda _: type("Host", (), {"numpy": lambda _: self.array})()})()


class Readable:
    """Anything that NumPy can read."""

    def __init__(self, array):
        self.array, self.dtype, self.shape = array, array.dtype, array.shape

    def __array__(self, dtype=None, copy=None):
        return self.array


@pytest.mark.parametrize(
    "elsewhere", [lambda a: a, lambda a: Device(a, "get"), lambda a: Device(a, "numpy"), Gradient, Readable]
)
def test_arrays_come_back(elsewhere):
    array = np.arange(6.0).reshape(2, 3)
    assert to_numpy(elsewhere(array)) is array or (to_numpy(elsewhere(array)) == array).all()


@pytest.mark.parametrize("back", ["get", "numpy"])
@pytest.mark.parametrize("operation", ["sparse_attention", "linear", "experts", "route"])
def test_a_function_on_arrays_elsewhere_is_checked(operation, back):
    """It is given such arrays alone, in weights, routings and lists, too."""

    def leave(array):
        assert isinstance(array, Device), type(array)
        return array.array

    def function(*arguments):
        found = getattr(Ops, operation)(*map_arrays(list(arguments), leave))
        return map_arrays(found, lambda array: Device(array, back))

    report = dsv4.check(function, operation, asarray=lambda array: Device(array, back))
    assert report.passed, report


def test_arrays_of_another_library_lie_in_every_layout_but_backwards():
    seen = set()

    def function(x, eps):
        seen.add((x.array.flags.c_contiguous, min(x.array.strides) < 0))
        return Device(Ops.rms_scale(x.array, eps), "get")

    assert dsv4.check(function, "rms_scale", asarray=lambda array: Device(array, "get")).passed
    assert seen == {(True, False), (False, False)}


def test_a_layout_changes_no_number_and_fills_gaps_with_what_shows():
    array = np.arange(24.0).reshape(2, 3, 4)
    view = laid_out(array, (2, 0, 1), (2, 1, 2), (True, False, False))
    assert (view == array).all()
    assert view.base is not None
    memory = view.base if view.base.base is None else view.base.base
    assert np.isnan(memory).sum() == memory.size - array.size > 0


def test_torch_functions_are_checked():
    torch = pytest.importorskip("torch")

    def scaled(x, eps):
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps)

    assert dsv4.check(scaled, "rms_scale", asarray=torch.from_numpy).passed
    assert not dsv4.check(lambda x, eps: scaled(x.half(), eps).float(), "rms_scale", asarray=torch.from_numpy).passed

    def product(x, weight, round_inputs=False):
        assert not isinstance(weight, Fp4Weight)
        return x @ weight.T

    report = dsv4.check(product, "linear", asarray=torch.from_numpy)
    assert not report.passed  # packed weights are part of it
