"""The rows of a ring by Numba's kernel are those that the reference's indices find."""

import numpy as np
import pytest

from dsv4.model.span import Span
from dsv4.ops import Ops
from rings import SPANS

pytest.importorskip("numba")
from dsv4_accel.numba import NumbaOps, compile
from dsv4_accel.numba.ring import extend_ring


def numbers(seed, dtype, *shape):
    return np.random.default_rng(seed).integers(0, 250, shape).astype(dtype)


def same(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other, strict=True)


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.float64])
@pytest.mark.parametrize(("keep", "capacity"), [(6, 7), (3, 9), (0, 1)])
@pytest.mark.parametrize("span", SPANS.values(), ids=SPANS)
@pytest.mark.parametrize("threads", [False, True])
def test_a_ring_is_extended(threads, span, keep, capacity, dtype, monkeypatch):
    if threads:
        monkeypatch.setattr(compile, "WORK_FOR_THREADS", 0)
    facts = np.array(span[0]), np.array(span[1]), span[2]
    stored, rows = numbers(1, dtype, len(span[0]), capacity, 9), numbers(2, dtype, len(span[0]), span[2], 9)
    expected = Ops().extend_ring(stored.copy(), rows, Span(*facts).ring(keep, capacity))
    same(NumbaOps().extend_ring(stored, rows, Span(*facts).ring(keep, capacity)), expected)


def test_rows_that_lie_anyhow_are_left_to_the_reference_or_copied():
    ring = Span(np.array([5]), np.array([2]), 2).ring(3, 4)
    stored, rows = numbers(3, np.float32, 1, 4, 8), numbers(4, np.float32, 1, 2, 8)
    expected = Ops().extend_ring(stored.copy(), rows, ring)
    same(NumbaOps().extend_ring(stored.copy(), np.asfortranarray(rows), ring), expected)
    same(NumbaOps().extend_ring(np.asfortranarray(stored), rows, ring), expected)
    assert extend_ring(np.asfortranarray(stored), rows, ring) is None
