"""Placed matrices of one width that are stored alike, as one launch multiplies with all of them (linear.cu)."""

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from dsv4.ops.quantise import Weight
from dsv4.ops.types import Array, Bytes
from dsv4_accel.cuda.device import Device
from dsv4_accel.cuda.kept import Known, kept
from dsv4_accel.cuda.matrix import Form, but_the_weights, matrix_of
from dsv4_accel.cuda.vectors import VECTOR

BLOCK_ROWS = 16
"""Rows of a matrix that a block takes where tokens are few."""


class Beside(NamedTuple):
    """Some matrices, one below the other."""

    places: Array
    """[matrices, 5] uint64: addresses of items and scales, rows, blocks before its own, rows before its own."""
    form: Form
    """Of the first: storage and columns are those of all."""
    heights: tuple[int, ...]
    """The rows of each."""
    ends: tuple[int, ...]
    """How many rows there are up to the end of each, in whole vectors."""
    alive: list[Bytes]
    """The arrays at these addresses, but for dense weights themselves, which would then never be gone."""
    lasts: bool = True
    """All of the matrices were placed."""


_known: Known[Beside] = {}


def beside_of(device: Device, weights: Sequence[Weight]) -> Beside | None:
    """Placed weights of one width and storage as a launch takes them, kept while they live; None for malformed ones."""
    return kept(_known, tuple(weights), lambda: _beside(device, weights))


def _beside(device: Device, weights: Sequence[Weight]) -> Beside | None:
    matrices = [matrix for weight in weights if (matrix := matrix_of(device, weight)) and 0 not in matrix.form]
    if len(matrices) < len(weights):
        return None
    heights = tuple(matrix.form.rows for matrix in matrices)
    blocks = accumulate((-(-height // BLOCK_ROWS) for height in heights), initial=0)
    ends = tuple(accumulate(-(-height // VECTOR) * VECTOR for height in heights))
    places = [
        (*matrix.addresses(device), height, block, start)
        for matrix, height, block, start in zip(matrices, heights, blocks, (0, *ends), strict=False)
    ]
    alive = but_the_weights(device, [array for matrix in matrices for array in matrix.arrays], weights)
    return Beside(device.asarray(np.array(places, np.uint64)), matrices[0].form, heights, ends, alive)
