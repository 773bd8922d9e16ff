"""Products of rows so long that more chunks are on their way than one, and each part of a sum ends with fewer."""

import ml_dtypes
import numpy as np
import pytest

from dsv4.ops.quantise import dequantise, quantise_fp4, quantise_fp8

STORED = {
    "fp4": quantise_fp4,
    "fp8": quantise_fp8,
    "bfloat16": lambda weight: weight.astype(ml_dtypes.bfloat16),
    "float32": lambda weight: weight,
}


@pytest.mark.parametrize("store", STORED.values(), ids=STORED)
def test_rows_of_many_chunks(ops, store):
    """17 chunks in four parts of 4, 4, 4 and 5. Two tokens go through the kernel for few."""
    generator = np.random.default_rng(1)
    x, weight = (
        generator.standard_normal((2, 17 * 128), np.float32),
        generator.standard_normal((16, 17 * 128), np.float32),
    )
    stored = store(weight)
    truth = x.astype(np.float64) @ dequantise(stored, np.float64).T
    np.testing.assert_allclose(ops.linear(x, stored), truth, rtol=0, atol=1e-6 * np.abs(truth).max())
