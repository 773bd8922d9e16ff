"""The outer step: stochastic gradient descent with Nesterov's momentum, on merged differences."""

from typing import NamedTuple

from dsv4.ops.types import Array


class OuterStep(NamedTuple):
    """What a step leaves behind, each of the shape and dtype of the weight."""

    weight: Array
    momentum: Array


def outer_step(
    weight: Array, difference: Array, momentum: Array, learning_rate: float, momentum_kept: float
) -> OuterStep:
    """m ← μm + Δ; Θ ← Θ − η(Δ + μm).

    weight Θ, difference Δ (`merge.merged`), momentum m: any one shape and dtype; learning_rate η; momentum_kept μ.
    Nothing is written to. With η = 1, μ = 0 and one learner, Θ becomes what that learner has.
    Source: DiLoCo (2311.08105) alg. 1: SGD with Nesterov momentum; the form without (1 − μ) is the usual one.
    """
    momentum = momentum_kept * momentum + difference
    return OuterStep(weight - learning_rate * (difference + momentum_kept * momentum), momentum)
