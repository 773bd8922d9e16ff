"""How kernels read weights: every code in every column, and every cache line of a chunk."""

import numpy as np
import pytest

from dsv4.ops import Fp8Weight
from dsv4.ops.formats import fp8_decode
from dsv4.ops.quantise import quantise_fp4, quantise_fp8

pytest.importorskip("numba")
import ml_dtypes

from dsv4_accel.numba import NumbaOps
from dsv4_accel.numba.packed import CHUNK
from dsv4_accel.numba.products import FEW_TOKENS, LINES, Layout
from dsv4_accel.numba.weights import flat

LINE = 64
"""Bytes of a cache line."""

NUMBERS = np.setdiff1d(np.arange(256), [0x7F, 0xFF]).astype(np.uint8)
"""All codes of FP8 but those of NaN."""


@pytest.mark.parametrize("tokens", [1, CHUNK])
@pytest.mark.parametrize("side", [32, 128])
def test_every_fp8_code_in_every_column(side, tokens):
    """x has a single 1 in each row, so that each product is one number of the weight."""
    assert FEW_TOKENS["FP8"] < CHUNK
    codes = NUMBERS[(np.arange(256)[:, None] + np.arange(CHUNK)) % len(NUMBERS)]  # [256, 128]: each code in each column
    scales = np.full((256 // side, CHUNK // side), 127, np.uint8)  # 2^0
    weight, identity = Fp8Weight(codes, scales, (side, side)), np.eye(CHUNK, dtype=np.float32)
    found = np.concatenate([NumbaOps.linear(some, weight) for some in np.split(identity, CHUNK // tokens)])
    np.testing.assert_array_equal(found, fp8_decode(codes).T)


def test_each_cache_line_of_a_chunk_is_asked_for():
    dense = np.ones((256, 2 * CHUNK), np.float32)
    for weight in (
        dense,
        dense.astype(ml_dtypes.bfloat16),
        quantise_fp8(dense),
        quantise_fp8(dense, (32, 32)),
        quantise_fp4(dense),
    ):
        memory = flat(weight).alone
        layout, items = Layout(*memory.matrices[0, : len(Layout._fields)]), memory.memory[0]
        assert LINES[memory.storage.name] * LINE == layout.chunk_items * items.itemsize
