"""Numbers of experts that do not exist: what the reference makes of them, the kernels do, too."""

import numpy as np
import pytest

from accel.calls import bits
from dsv4.ops import Ops

pytest.importorskip("numba")

from dsv4_accel.numba import NumbaOps

LOGITS = np.random.default_rng(0).standard_normal((2, 5)).astype(np.float32)


@pytest.mark.parametrize("number", [5, -6])
def test_a_number_beyond_the_experts_is_an_error(number):
    for ops in (NumbaOps, Ops):
        with pytest.raises(IndexError, match=f"index {number} is out of bounds"):
            ops.route_by_id(LOGITS, np.array([[0, 1], [4, number]]), "sigmoid", 1.5)


def test_a_negative_number_counts_from_the_last_expert():
    indices = np.array([[0, 1], [-1, 2]])
    found, expected = (ops.route_by_id(LOGITS, indices, "sigmoid", 1.5) for ops in (NumbaOps, Ops))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(bits(one), bits(other), strict=True)
