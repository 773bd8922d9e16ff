"""From logits to a token: temperature, nucleus, and draws that a seed repeats.

Logits and probabilities stay where the backend computes; only token ids and single numbers come to the host.
"""

from typing import Any

import numpy as np

from dsv4.errors import DSV4Error, SettingError
from dsv4.ops.types import Array, Ints


class Sampler:
    """Chooses tokens for a batch of sequences; each sequence has its own stream of random numbers."""

    def __init__(self, temperature: float, top_p: float, seed: int | None, batch: int) -> None:
        """temperature ≥ 0, where 0 means greedy; 0 < top_p ≤ 1; seed: None for a new one every time.

        Raises SettingError for values outside these ranges.
        """
        if not (np.isfinite(temperature) and temperature >= 0):
            raise SettingError(f"temperature: expected a number of at least 0, found {temperature}")
        if not 0 < top_p <= 1:
            raise SettingError(f"top_p: expected a number above 0 and at most 1, found {top_p}")
        if seed is not None and (not isinstance(seed, int | np.integer) or seed < 0):
            raise SettingError(f"seed: expected None or an integer of at least 0, found {seed}")
        self.temperature, self.top_p = temperature, top_p
        self._random = [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(batch)]

    def choose(self, logits: Array) -> Ints:
        """The next token of every sequence: greedy, or drawn with the sequence's next random number.

        logits [B, vocab] float. Returns [B] token ids where the logits are, the lowest among equals if greedy, and −1
        where `require_numbers` would raise, so that nothing has to be looked at before the tokens themselves.
        """
        if self.temperature == 0:
            tokens = np.argmax(logits, axis=-1)
        else:
            with np.errstate(invalid="ignore"):
                tokens = np.stack([self._draw(self._shares(row), number) for number, row in enumerate(logits)])
        return np.where(logits.max(axis=-1) < np.inf, tokens, -1)

    def distribution(self, logits: Array) -> Array:
        """The probabilities to draw from. logits [vocab] float. Returns [vocab] float64, summing to 1.

        Greedy puts everything on the largest logit, the lowest id among equals. Raises DSV4Error for a NaN or +∞;
        −∞ is a token that is never drawn.
        """
        require_numbers(logits)
        return self._shares(logits)

    def draw(self, probabilities: Array, sequence: int) -> int:
        """One token id from the probabilities [vocab], with the next random number of that sequence."""
        return int(self._draw(probabilities, sequence))

    def chance(self, sequence: int) -> float:
        """The next random number of a sequence, uniform in [0, 1)."""
        return float(self._random[sequence].random())

    def _shares(self, logits: Array) -> Array:
        """As `distribution`, without a look at the logits."""
        if self.temperature == 0:
            greedy = np.zeros_like(logits, np.float64)
            greedy[np.argmax(logits)] = 1
            return greedy
        with np.errstate(over="ignore"):  # a tiny temperature leaves only the best: the others get exp(−∞) = 0
            scaled = (logits.astype(np.float64) - logits.max()) / self.temperature
        probabilities = np.exp(scaled)
        return nucleus(probabilities / probabilities.sum(), self.top_p)

    def _draw(self, probabilities: Array, sequence: int) -> np.integer[Any]:
        """As `draw`: the token id where the probabilities are."""
        cumulative = np.cumsum(probabilities)
        token: np.integer[Any] = np.searchsorted(cumulative, self.chance(sequence) * cumulative[-1], side="right")
        return token


def require_numbers(logits: Array) -> None:
    """Raises DSV4Error for a NaN or +∞ in logits [vocab], and names the first."""
    if not logits.max() < np.inf:  # the largest of numbers with a NaN among them is NaN
        first = int(np.argmax(np.isnan(logits) | (logits == np.inf)))
        raise DSV4Error(f"logits: expected numbers below infinity, found {float(logits[first])} for token {first}")


def nucleus(probabilities: Array, top_p: float) -> Array:
    """Only the most probable tokens that together reach top_p, renormalised; the token that reaches it is in.

    probabilities [vocab] float64, summing to 1; 0 < top_p ≤ 1. Returns [vocab] float64, summing to 1.
    """
    order = np.argsort(-probabilities, kind="stable")
    likelier = np.append(0, np.cumsum(probabilities[order])[:-1])  # the mass of all likelier tokens
    kept = order[(likelier < top_p) | (top_p == 1)]
    chosen = np.zeros_like(probabilities)
    chosen[kept] = probabilities[kept]
    share: Array = chosen / chosen.sum()
    return share


def residual(target: Array, draft: Array) -> Array:
    """What to draw from when a drafted token is refused, so that the outcome still follows the target.

    target, draft [vocab] float64 probabilities. Returns max(target − draft, 0), renormalised, [vocab] float64; the
    target itself where nothing is left. Source: speculative sampling (Leviathan et al. 2023, theorem 1).
    """
    left = np.maximum(target - draft, 0)
    return left / left.sum() if left.any() else target
