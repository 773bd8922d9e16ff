"""From logits to a token: temperature, nucleus, and draws that a seed repeats.

Logits and probabilities stay where the backend computes; only token ids and single numbers come to the host.
"""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from dsv4.arguments import integer, number
from dsv4.errors import DSV4Error, SettingError, quoted
from dsv4.ops.elementwise import log_softmax
from dsv4.ops.types import Array, Ints

Setting = float | Sequence[float] | npt.NDArray[np.floating]
"""A number for all sequences of a batch, or one for each."""


class Sampler:
    """Chooses tokens for a batch of sequences; each sequence has its own stream of random numbers."""

    def __init__(self, temperature: Setting, top_p: Setting, seed: int | None, batch: int) -> None:
        """temperature ≥ 0, where 0 means greedy; 0 < top_p ≤ 1; seed ≥ 0, or None for a new one every time; batch ≥ 1.

        temperature, top_p: a number for all sequences, or one for each. Raises SettingError for other values.
        """
        batch = integer("batch", batch, least=1)
        self.temperatures = _for_each("temperature", temperature, batch)
        self.top_ps = _for_each("top_p", top_p, batch)
        if min(self.temperatures) < 0:
            raise SettingError(f"temperature: expected a number of at least 0, found {quoted(temperature)}")
        if not 0 < min(self.top_ps) <= max(self.top_ps) <= 1:
            raise SettingError(f"top_p: expected a number above 0 and at most 1, found {quoted(top_p)}")
        seeds = np.random.SeedSequence(None if seed is None else integer("seed", seed))
        self._random = [np.random.default_rng(child) for child in seeds.spawn(batch)]

    @classmethod
    def join(cls, samplers: "Sequence[Sampler]") -> Self:
        """One for the sequences of several samplers, at least one, the first one's first: they keep their streams.

        A draw from the joined sampler is one from the stream of its part, too.
        """
        joined = cls.__new__(cls)
        joined.temperatures = [one for each in samplers for one in each.temperatures]
        joined.top_ps = [one for each in samplers for one in each.top_ps]
        joined._random = [one for each in samplers for one in each._random]
        return joined

    def choose(self, logits: Array) -> Ints:
        """The next token of every sequence: greedy, or drawn with the sequence's next random number.

        logits [B, vocab] float. Returns [B] token ids where the logits are, the lowest among equals if greedy, and −1
        where `require_numbers` would raise, so that nothing has to be looked at before the tokens themselves.
        Raises SettingError for another number of rows than there are sequences.
        """
        _check_shape("logits", logits, len(self._random))
        tokens = np.argmax(logits, axis=-1)
        if max(self.temperatures) > 0:
            with np.errstate(invalid="ignore"):
                tokens = np.stack(
                    [
                        self._draw(self._shares(logits[number], number), number) if temperature else tokens[number]
                        for number, temperature in enumerate(self.temperatures)
                    ]
                )
        return np.where(np.isfinite(logits.max(axis=-1)), tokens, -1)

    def distribution(self, logits: Array, sequence: int) -> Array:
        """The probabilities that a sequence draws from. logits [vocab] float. Returns [vocab] float64, summing to 1.

        Greedy puts everything on the largest logit, the lowest id among equals. −∞ is a token that is never drawn.
        Raises DSV4Error for a NaN, a +∞, or −∞ for every token, whatever the temperature and top-p, and SettingError
        for an unknown sequence.
        """
        _check_shape("logits", logits)
        require_numbers(logits)
        return self._shares(logits, self._known(sequence))

    def draw(self, probabilities: Array, sequence: int) -> int:
        """One token id from the probabilities [vocab], with the next random number of that sequence.

        Raises DSV4Error for probabilities whose sum is not a positive number, SettingError for an unknown sequence.
        """
        _check_shape("probabilities", probabilities)
        token = int(self._draw(probabilities, sequence))
        if token == len(probabilities):  # no share of the sum holds the random number
            found = float(probabilities.sum())
            raise DSV4Error(f"probabilities: expected a sum that is a positive number, found {found}")
        return token

    def chance(self, sequence: int) -> float:
        """The next random number of a sequence, uniform in [0, 1). Raises SettingError for an unknown sequence."""
        return float(self._random[self._known(sequence)].random())

    def _known(self, sequence: int) -> int:
        return integer("sequence", sequence, most=len(self._random) - 1)

    def _shares(self, logits: Array, sequence: int) -> Array:
        """As `distribution`, without a look at the logits."""
        temperature, top_p = self.temperatures[sequence], self.top_ps[sequence]
        if temperature == 0:
            greedy = np.zeros_like(logits, np.float64)
            greedy[np.argmax(logits)] = 1
            return greedy
        with np.errstate(over="ignore"):  # a tiny temperature leaves only the best: the others get exp(−∞) = 0
            scaled = (logits.astype(np.float64) - logits.max()) / temperature
        probabilities = np.exp(scaled)
        return nucleus(probabilities / probabilities.sum(), top_p)

    def _draw(self, probabilities: Array, sequence: int) -> np.integer[Any]:
        """As `draw`: the token id where the probabilities are."""
        cumulative = np.cumsum(probabilities)
        token: np.integer[Any] = np.searchsorted(cumulative, self.chance(sequence) * cumulative[-1], side="right")
        return token


def require_numbers(logits: Array) -> None:
    """Raises DSV4Error for a NaN or +∞ in logits [vocab], and names the first; and for −∞ throughout."""
    largest = float(logits.max())  # of numbers with a NaN among them, this is NaN
    if largest == -np.inf:
        raise DSV4Error("logits: expected a number for at least one token, found -inf for all of them")
    if not np.isfinite(largest):
        first = int(np.argmax(np.isnan(logits) | (logits == np.inf)))
        raise DSV4Error(f"logits: expected numbers below infinity, found {float(logits[first])} for token {first}")


def log_probabilities(logits: Array) -> Array:
    """How likely each token is without regard to temperature and top-p: log softmax, in float64.

    logits [vocab] float. Returns [vocab] float64, natural logarithms. Raises DSV4Error as `require_numbers` does.
    """
    require_numbers(logits)
    return log_softmax(logits.astype(np.float64))


def nucleus(probabilities: Array, top_p: float) -> Array:
    """Only the most probable tokens that together reach top_p, renormalised; the token that reaches it is in.

    probabilities [vocab] float64, summing to 1; 0 < top_p ≤ 1. Returns [vocab] float64, summing to 1.
    """
    chosen = probabilities
    if top_p < 1:  # with 1 every token is in, also the last ones, which a rounded sum may leave out
        order = np.argsort(-probabilities, kind="stable")
        likelier = np.append(0, np.cumsum(probabilities[order])[:-1])  # the mass of all likelier tokens
        kept = order[likelier < top_p]
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


def _for_each(name: str, setting: Setting, batch: int) -> list[float]:
    """The numbers of a setting, one for each sequence. Raises SettingError."""
    if not isinstance(setting, list | tuple | np.ndarray) or np.ndim(setting) == 0:
        return [number(name, setting)] * batch
    if len(setting) != batch:
        raise SettingError(f"{name}: expected a number, or one for each of {batch} sequences, found {quoted(setting)}")
    return [number(name, one) for one in setting]


def _check_shape(name: str, array: Array, *batch: int) -> None:
    """The array has the axes [*batch, vocab], and vocab is not 0. Raises SettingError."""
    found: tuple[int, ...] = getattr(array, "shape", ())
    if found[:-1] != batch or 0 in (found or (0,)):
        expected = ", ".join([*map(str, batch), "vocab"])
        raise SettingError(f"{name}: expected an array of shape [{expected}], found {quoted(found or array)}")
