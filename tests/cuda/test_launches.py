"""What a step of decoding asks of the device: launches of ours and of CuPy's, and transfers. No kernel is run."""

import numpy as np
import pytest

from cuda.host_array import HostArray
from cuda.host_build import compiler
from cuda.host_device import HostDevice
from dsv4.checkpoint import Checkpoint
from dsv4.loading import bundled_model
from dsv4.model.model import Model
from dsv4_accel.cuda import CudaOps

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler is installed")


class Listening(HostDevice):
    """Notes what it is asked for. Results hold anything: what the host asks for may not depend on them."""

    def __init__(self) -> None:
        self.placed, self.cleared = [], 0
        super().__init__()

    def asarray(self, array):
        if not isinstance(array, HostArray):
            self.placed.append(np.asarray(array))
        return super().asarray(array)

    def zeros(self, shape, dtype):
        self.cleared += 1
        return super().zeros(shape, dtype)

    def launch(self, kernel, blocks, threads, arguments, shared=0):
        kernel.arguments(arguments)
        self.launched.append(kernel.name)

    def forget(self) -> None:
        """Count from here on."""
        self.launched.clear()
        self.placed.clear()
        self.cleared = HostArray.computed = HostArray.indices_placed = HostArray.fetched = 0


@pytest.fixture(scope="module")
def model():
    """The bundled model: a layer with a window alone, one with HCA and two with CSA."""
    return Model(Checkpoint.open(bundled_model()), CudaOps(Listening()), fake_quant=True)


def step(model, position: int, batch: int = 1, packed: bool = False):
    """What one step behind `position` tokens asks for, once the step before it has asked for the same."""
    cache, device = model.new_cache(batch, packed=packed), model.ops.device
    ids = np.arange(batch * (position + 1)).reshape(batch, -1) % model.config.vocab_size
    model(ids[:, : position - 4], cache)
    for place in range(position - 4, position):
        model(ids[:, place : place + 1], cache)
    device.forget()
    model(ids[:, position:], cache)
    return device


POSITIONS = pytest.mark.parametrize("position", [137, 139, 255], ids=["no entry", "CSA's", "CSA's and HCA's"])


LAUNCHES = [
    pytest.param(137, 111, 23, id="no entry"),
    pytest.param(139, 125, 26, id="CSA's"),
    pytest.param(255, 128, 29, id="CSA's and HCA's"),
]
"""A position, and what its step launches in all four layers: kernels of ours, and of CuPy's."""


@POSITIONS
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("packed", [False, True], ids=["floats", "packed"])
def test_tokens_and_their_positions_are_all_that_goes_to_the_device(model, position, batch, packed):
    """And nothing comes to the host, of a packed cache neither."""
    device = step(model, position, batch, packed)
    [placed] = device.placed
    assert placed.nbytes <= 8 * (3 * batch + 3)  # ids, positions, how many: each in whole pairs
    assert HostArray.indices_placed == HostArray.fetched == 0


@pytest.mark.parametrize(("position", "launches", "of_cupy"), LAUNCHES)
def test_a_step_makes_no_more_launches_than_it_did(model, position, launches, of_cupy):
    """Of ours, and of CuPy's: for its arrays, and where one is cleared. Fewer are better: then lower the numbers."""
    device = step(model, position)
    assert (len(device.launched), HostArray.computed + device.cleared) == (launches, of_cupy)
