"""The heart of Muon: a matrix brought near to the closest one whose singular values are all 1 (report §2.4)."""

import numpy as np

from dsv4.ops.types import Array

FAST, SETTLING = (3.4445, -4.7750, 2.0315), (2.0, -1.5, 0.5)
"""The coefficients a, b, c of the steps that raise small singular values, and of those that bring all to 1."""

FAST_STEPS, SETTLING_STEPS = 8, 2


def newton_schulz(matrix: Array) -> Array:
    """The hybrid Newton–Schulz iteration: X ← aX + b(XXᵀ)X + c(XXᵀ)²X, from X = matrix / ‖matrix‖.

    matrix [..., rows, columns] float, each of which is orthogonalised by itself; ‖·‖ is Frobenius' norm. Returns the
    same shape and dtype: singular vectors as they were, singular values near 1; a matrix of zeros stays one. There are
    eight steps with FAST and two with SETTLING. Source: report §2.4 eq. 28.
    """
    is_tall = matrix.shape[-2] > matrix.shape[-1]
    x = matrix.swapaxes(-1, -2) if is_tall else matrix  # XXᵀ is then the smaller of the two squares
    norm = np.sqrt(np.sum(np.square(x), axis=(-2, -1), keepdims=True))
    x = x / np.where(norm == 0, x.dtype.type(1), norm)
    for coefficients in (FAST,) * FAST_STEPS + (SETTLING,) * SETTLING_STEPS:
        a, b, c = (x.dtype.type(coefficient) for coefficient in coefficients)
        square = x @ x.swapaxes(-1, -2)  # [..., rows, rows]
        x = a * x + (b * square + c * (square @ square)) @ x
    return x.swapaxes(-1, -2) if is_tall else x
