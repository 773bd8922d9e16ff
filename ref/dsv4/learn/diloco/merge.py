"""Several learners' differences of a tensor become one, each weighed by what it has learnt from."""

from collections.abc import Sequence

import numpy as np

from dsv4.errors import SettingError
from dsv4.ops.types import Array

CANCELLED = 1e-6
"""A mean of directions that is shorter than this has no direction of its own: it is rounding."""


def token_weight(tokens: int, steps: int) -> float:
    """w = c_tokens² / c_steps: the tokens learnt from, times how many there were in a step; 0 before the first step.

    tokens, steps: since the fragment last came from the syncer. Raises SettingError for tokens without a step, and
    below 0. Source: Decoupled DiLoCo (2604.21428, second-hand).
    """
    if min(tokens, steps) < 0 or (tokens > 0 and steps == 0):
        raise SettingError(f"counters: expected none below 0 and tokens of steps, found {tokens} of {steps} steps")
    return tokens**2 / steps if steps else 0.0


def pseudo_gradient(before: Array, after: Array) -> Array:
    """Δ = Θ_prev − θ: what a step of size 1 *against* it turns `before` into `after`.

    before Θ_prev: the tensor as it came from the syncer; after θ: as the learner has it now; any one shape and dtype.
    Source: DiLoCo (2311.08105) alg. 1.
    """
    return before - after


def merged(name: str, differences: Sequence[Array], weights: Sequence[float], radially: bool = True) -> Array:
    """One difference from those of several learners: the mean for the embedding, `radial_mean` for all else.

    name: the tensor's official name; differences: Δ of each learner, of one shape and dtype; weights: w of each, not
    below 0; radially: False for the mean of every tensor, to compare with. A learner of weight 0 is as if it were not
    there, whatever its numbers. A router's bias takes the mean, too: it is no direction in which a loss falls, which is
    ours to say. Raises SettingError without a weight above 0.
    Source: Decoupled DiLoCo (2604.21428, second-hand): embeddings by the weighted mean, every other tensor radially.
    """
    if len(differences) != len(weights) or min(weights, default=0) < 0 or not sum(weights) > 0:
        raise SettingError(f"weights: expected one for each difference and one above 0, found {list(weights)}")
    heard = [(one, weight) for one, weight in zip(differences, weights, strict=True) if weight > 0]
    these, their_weights = [one for one, _ in heard], [weight for _, weight in heard]
    if not radially or name == "embed.weight" or name.endswith("gate.bias"):
        return weighted_mean(these, their_weights)
    return radial_mean(these, their_weights)


def weighted_mean(differences: Sequence[Array], weights: Sequence[float]) -> Array:
    """Σ w Δ / Σ w, summed in the learners' order and in float64; the shape and dtype of one difference."""
    total = sum(weights)
    mean = sum(one.astype(np.float64) * (weight / total) for one, weight in zip(differences, weights, strict=True))
    found: Array = np.asarray(mean).astype(differences[0].dtype)
    return found


def radial_mean(differences: Sequence[Array], weights: Sequence[float]) -> Array:
    """(Σ w‖Δ‖ / Σ w) · φ(Σ w φ(Δ) / Σ w) with φ(x) = x / ‖x‖: the mean length, in the mean direction.

    A plain mean of differences that point different ways is short; this one is as long as they are. Where the
    directions cancel it is the plain mean. φ(0) = 0. ‖·‖ is over the whole tensor. The shape and dtype of one
    difference, from sums in float64. Source: Decoupled DiLoCo (2604.21428, second-hand), RDA.
    """
    wide = [one.astype(np.float64) for one in differences]
    lengths = [float(np.linalg.norm(one)) for one in wide]
    shares = [weight / sum(weights) for weight in weights]
    parts = zip(wide, lengths, shares, strict=True)
    direction = np.asarray(sum(one * (share / length) for one, length, share in parts if length > 0))
    agreement = float(np.linalg.norm(direction))
    if agreement < CANCELLED:
        return weighted_mean(differences, weights)
    length = sum(length * share for length, share in zip(lengths, shares, strict=True))
    found: Array = (direction * (length / agreement)).astype(differences[0].dtype)
    return found
