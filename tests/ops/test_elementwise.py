"""The scalar functions, compared with the standard library's, over the whole range of the dtype."""

import math

import numpy as np
import pytest

from dsv4.ops.elementwise import sigmoid, softplus
from verdicts import close

POINTS = np.array([-1e38, -1e4, -710, -100, -88, -20, -1, -1e-30, 0, 1e-8, 0.5, 20, 88, 100, 710, 1e4, 1e38])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sigmoid(dtype):
    truth = np.array([math.exp(x) / (1 + math.exp(x)) if x < 0 else 1 / (1 + math.exp(-x)) for x in POINTS])
    found = sigmoid(POINTS.astype(dtype))
    assert found.dtype == dtype
    close(found, truth, roundings=4)
    small = (truth > 1e-37) & (truth < 0.5)
    close(found[small] / truth[small].astype(dtype), np.ones(small.sum()), roundings=8)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_softplus(dtype):
    truth = np.array([max(x, 0.0) + math.log1p(math.exp(-abs(x))) for x in POINTS])
    found = softplus(POINTS.astype(dtype))
    assert found.dtype == dtype
    normal = (truth > 1e-37) & (truth < 1e37)
    close(found[normal] / truth[normal].astype(dtype), np.ones(normal.sum()), roundings=8)
    assert np.isfinite(found).all()
    assert (found >= 0).all()
