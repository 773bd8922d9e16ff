"""The bound of rows that multiply: how fast this machine multiplies dense float32 matrices, by NumPy's product."""

from functools import partial

import numpy as np

from dsv4.ops.types import Array
from dsv4_accel.bench.case import Contest
from dsv4_accel.bench.stage import Stage, lives_elsewhere
from dsv4_accel.bench.timing import Contestant

DENSE = "dense"
"""A float32 product with as many multiply-adds as the row has, of matrices that nobody has to unpack or to choose."""

SIDE = 1024
"""Each product is of [rows, SIDE] and [SIDE, SIDE]."""

MOST_ROWS = 4 * SIDE


def beside_dense(stage: Stage, contest: Contest, multiply_adds: int) -> Contest:
    """The contest with DENSE as its last contestant. On a GPU, which NumPy does not use, the contest as it is."""
    if lives_elsewhere(stage.ops):
        return contest
    dense = Contestant(partial(_multiply, *_matrices(stage, multiply_adds)))
    return Contest({**contest.contestants, DENSE: dense}, contest.bytes_moved, contest.notes)


def _matrices(stage: Stage, multiply_adds: int) -> tuple[list[Array], Array, Array]:
    """The rows of each product, views of one array; the matrix of all; room for a result."""
    count = round(multiply_adds / SIDE**2)
    rows = stage.floats(min(count, MOST_ROWS), SIDE)
    parts = [rows[: min(MOST_ROWS, count - start)] for start in range(0, count, MOST_ROWS)]
    return parts, stage.floats(SIDE, SIDE), np.empty_like(rows)


def _multiply(parts: list[Array], matrix: Array, out: Array) -> None:
    for rows in parts:
        np.matmul(rows, matrix, out=out[: len(rows)])
