"""AdamW: the optimiser of the embedding, the head and everything that is no matrix (report §2.4, §4.2.2)."""

from typing import NamedTuple

import numpy as np

from dsv4.ops.types import Array

BETA_1, BETA_2 = 0.9, 0.95
"""How much of the mean gradient and of the mean squared gradient each step keeps."""

EPSILON = 1e-20
"""Joins the divisor, so that 0/0 is 0. It is a normal float32, and too small to be felt otherwise."""

DECAY = 0.1
"""λ: the weight decay, which the learning rate scales."""


class AdamWStep(NamedTuple):
    """What a step leaves behind, each of the shape and dtype of the weight."""

    weight: Array
    first: Array
    """m, the running mean of the gradients."""
    second: Array
    """v, the running mean of their squares."""


def adamw_step(
    weight: Array, gradient: Array, first: Array, second: Array, step: int, learning_rate: float
) -> AdamWStep:
    """m ← β₁m + (1 − β₁)G; v ← β₂v + (1 − β₂)G²; W ← W(1 − ηλ) − η · m/(1 − β₁ᵗ) / (√(v/(1 − β₂ᵗ)) + ε).

    weight W, gradient G, first m, second v: any one shape, float; step t: 1 for the weight's first step, before which
    m and v are zeros; learning_rate η. Nothing is written to. Every weight decays, norms and biases, too: the report
    names no exception. Source: report §2.4 for its weights, §4.2.2 for the constants; 1711.05101 for the rule.
    """
    first = BETA_1 * first + (1 - BETA_1) * gradient
    second = BETA_2 * second + (1 - BETA_2) * np.square(gradient)
    mean, mean_square = first / (1 - BETA_1**step), second / (1 - BETA_2**step)
    update = mean / (np.sqrt(mean_square) + EPSILON)
    return AdamWStep(weight * (1 - learning_rate * DECAY) - learning_rate * update, first, second)
