"""The bench's neighbours: they keep the cores busy, change no result, and are gone afterwards."""

import numpy as np
import pytest

from dsv4.backends import backend
from dsv4.ops import Fp4Weight
from dsv4_accel.bench.load import Neighbours


def test_neighbours_run_until_they_are_ended():
    neighbours = Neighbours(2)
    neighbours.begin()
    running = list(neighbours._processes)
    assert [one.poll() for one in running] == [None, None]
    neighbours.begin()
    assert neighbours._processes == running  # not more than were asked for
    running[0].kill()
    running[0].wait()
    neighbours.begin()
    assert [one.poll() for one in neighbours._processes] == [None, None]
    ours = set(running + neighbours._processes)
    neighbours.end()
    assert all(one.poll() is not None for one in ours)


def test_a_neighbour_changes_no_result():
    pytest.importorskip("numba", reason="numba is not installed")
    ops, random = backend("numba"), np.random.default_rng(0)
    weight = Fp4Weight(random.integers(0, 256, (512, 256), np.uint8), random.integers(118, 122, (512, 16), np.uint8))
    x = random.standard_normal((64, 512), np.float32)
    alone = ops.linear(x, weight)
    neighbours = Neighbours(2)
    neighbours.begin()
    try:
        beside = [ops.linear(x, weight) for _ in range(20)]
    finally:
        neighbours.end()
    for result in beside:
        np.testing.assert_array_equal(result, alone)
