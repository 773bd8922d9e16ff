"""The rows of a cache by one kernel are those that the reference's indices find."""

import numpy as np
import pytest

from backends import CUDA_ON_HOST
from conftest import created
from dsv4.model.span import Span
from dsv4.ops import Ops
from rings import SPANS

DTYPES = pytest.mark.parametrize(
    ("dtype", "width", "kernel"),
    [(np.float32, 8, "vectors"), (np.uint8, 7, "bytes"), (np.float32, 6, None), (np.float64, 8, None)],
    ids=["float32", "bytes", "an odd width", "float64"],
)


@pytest.fixture
def device(request):
    backend = created(CUDA_ON_HOST)
    backend.device.launched.clear()
    return backend


def numbers(seed, dtype, *shape):
    return np.random.default_rng(seed).integers(0, 250, shape).astype(dtype)


def both(device, starts, counts, length):
    """The span on the host and on the device."""
    facts = np.array(starts), np.array(counts), length
    return Span(*facts), Span(*facts, place=device.asarray)


def launched(device, name, kernel):
    return device.device.launched == ([f"{name}_{kernel}"] if kernel else [])


@DTYPES
@pytest.mark.parametrize(("keep", "capacity"), [(6, 7), (3, 9), (0, 1)])
@pytest.mark.parametrize("span", SPANS.values(), ids=SPANS)
def test_a_ring_is_extended(device, span, keep, capacity, dtype, width, kernel):
    here, there = both(device, *span)
    stored, rows = (
        numbers(1, dtype, len(here.starts), capacity, width),
        numbers(2, dtype, len(here.starts), span[2], width),
    )
    expected = Ops().extend_ring(stored.copy(), rows, here.ring(keep, capacity))
    placed = device.asarray(stored), device.asarray(rows)
    found = device.extend_ring(*placed, there.ring(keep, capacity))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(device.to_numpy(one), other)
    assert launched(device, "extend_ring", kernel)


@DTYPES
@pytest.mark.parametrize("span", [((3, 8), (1, 1), 1), ((2, 0, 7), (14, 3, 9), 14)], ids=["a step", "a prompt"])
def test_entries_are_written(device, span, dtype, width, kernel):
    """Of three sequences one completes fewer entries, and what stands behind them is left out."""
    here, there = both(device, *span)
    most = int(here.completed(4).counts.max())
    stored, rows = numbers(3, dtype, len(here.starts), 6, width), numbers(4, dtype, len(here.starts), most, width)
    expected = Ops().write_entries(stored.copy(), rows, here.completed(4))
    found = device.write_entries(device.asarray(stored), device.asarray(rows), there.completed(4))
    np.testing.assert_array_equal(device.to_numpy(found), expected)
    assert (expected != stored).any() and (expected == stored).any()
    assert launched(device, "write_entries", kernel)


def test_a_ring_by_hand():
    """Position p stands at slot p mod 4; three rows before position 5 are wanted, and two more come."""
    ring, rows = np.array([[[4], [1], [2], [3]]]), np.array([[[5], [6]]])
    ring, joined = Ops().extend_ring(ring, rows, Span(np.array([5]), np.array([2]), 2).ring(3, 4))
    assert ring[0, :, 0].tolist() == [4, 5, 6, 3]
    assert joined[0, :, 0].tolist() == [2, 3, 4, 5, 6]
