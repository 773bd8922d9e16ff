"""Muon: the optimiser of matrices, whose update has singular values of 1 (report §2.4, algorithm 1, eq. 28)."""

from typing import NamedTuple

import numpy as np

from dsv4.ops.types import Array

MOMENTUM = 0.95
"""μ: how much of the momentum each step keeps."""

DECAY = 0.1
"""λ: the weight decay, which the learning rate scales."""

UPDATE_RMS = 0.18
"""The root mean square of an update of full rank, per unit of the learning rate: as large as one of AdamW's, so that
both share a learning rate."""

FAST, SETTLING = (3.4445, -4.7750, 2.0315), (2.0, -1.5, 0.5)
"""The coefficients a, b, c of the steps that raise small singular values, and of those that bring all to 1."""

FAST_STEPS, SETTLING_STEPS = 8, 2


class MuonStep(NamedTuple):
    """What a step leaves behind."""

    weight: Array
    """The new weight, of the old one's shape and dtype."""
    momentum: Array
    """M for the next step, likewise."""


def muon_step(weight: Array, gradient: Array, momentum: Array, learning_rate: float) -> MuonStep:
    """M ← μM + G; O = NS(μM + G) · 0.18 · √max(n, m); W ← W(1 − ηλ) − ηO, with NS the `newton_schulz` iteration.

    weight W, gradient G, momentum M [..., n, m] float, each matrix by itself; learning_rate η. The momentum is zeros
    before the first step. It has no factor 1 − μ and no bias correction, since NS does not see its size; the update
    uses M after the step, once more moved on by G (Nesterov). Nothing is written to.

    A matrix that has never had a gradient other than zeros has M = 0, and W shrinks by the factor 1 − ηλ and does not
    move otherwise. One that has had some goes on in the direction of its momentum, however small that has become.
    Source: report §2.4, algorithm 1, with the constants of §4.2.2.
    """
    momentum = MOMENTUM * momentum + gradient
    direction = newton_schulz(MOMENTUM * momentum + gradient)
    update = direction * (UPDATE_RMS * float(np.sqrt(max(weight.shape[-2:]))))
    return MuonStep(weight * (1 - learning_rate * DECAY) - learning_rate * update, momentum)


def newton_schulz(matrix: Array) -> Array:
    """The hybrid Newton–Schulz iteration: X ← aX + b(XXᵀ)X + c(XXᵀ)²X, from X = matrix / ‖matrix‖.

    matrix [..., rows, columns] float, each of which is orthogonalised by itself; ‖·‖ is Frobenius' norm. Returns the
    same shape and dtype: singular vectors as they were, singular values near 1; a matrix of zeros stays one. There are
    eight steps with FAST and two with SETTLING. Source: report §2.4 eq. 28.
    """
    is_tall = matrix.shape[-2] > matrix.shape[-1]
    x: Array = matrix.swapaxes(-1, -2) if is_tall else matrix  # XXᵀ is then the smaller of the two squares
    largest = np.max(np.abs(x), axis=(-2, -1), keepdims=True)
    x = np.ldexp(x, -np.frexp(largest)[1])  # to about 1, in powers of two: squares of tiny numbers would be lost
    norm = np.sqrt(np.sum(np.square(x), axis=(-2, -1), keepdims=True))
    x = x / np.where(norm == 0, x.dtype.type(1), norm)
    for coefficients in (FAST,) * FAST_STEPS + (SETTLING,) * SETTLING_STEPS:
        a, b, c = (x.dtype.type(coefficient) for coefficient in coefficients)
        square = x @ x.swapaxes(-1, -2)  # [..., rows, rows]
        x = a * x + (b * square + c * (square @ square)) @ x
    result: Array = x.swapaxes(-1, -2) if is_tall else x
    return result
