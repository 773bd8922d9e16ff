"""What a rollout must remember: what its model chose on the way, and how its sampler came to each token."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dsv4.arguments import number
from dsv4.errors import DSV4Error, SettingError, quoted
from dsv4.learn.losses.balance import balanced_gates
from dsv4.model.cache import Cache
from dsv4.model.model import Model
from dsv4.model.observe import Observer, ignore
from dsv4.model.padding import Padding
from dsv4.ops.types import Array, Ints
from dsv4.text.sampling import Sampler

CHOSEN = "indexer.topk"
"""What the names end with under which a CSA layer reports the entries that it chose."""


class Draw(NamedTuple):
    """How a token came about."""

    id: int
    log_old: float
    """log π_old: of the share that the sampler gave it, in float64."""
    kept: list[int] | None
    """The tokens that top-p left to be drawn from; None for all."""


class Choices(NamedTuple):
    """What the model chose for a run of n tokens of one sequence."""

    experts: dict[str, Ints]
    """[n, k] of each layer that chooses by score, by the name of its gate, such as "layers.3.ffn.gate."."""
    entries: dict[str, Ints]
    """[n, ≤ index_topk] of each CSA layer, by the name of its attention; −1 for none."""


class RecordingModel(Model):
    """A model of any backend that keeps what it chooses for each token that it reads, until somebody takes it."""

    def __init__(self, model: Model, batch: int) -> None:
        """model: the model that this one is; batch: the sequences of every call."""
        vars(self).update(vars(model))
        self._read: list[list[Choices]] = [[] for _ in range(batch)]

    def states(
        self,
        ids: npt.ArrayLike,
        cache: Cache | None = None,
        mask: npt.ArrayLike | None = None,
        observe: Observer = ignore,
    ) -> Array:
        """As of `Model`; what is observed goes to the record as well."""
        seen: dict[str, Any] = {}

        def keep(name: str, result: Array | Ints) -> None:
            if name.endswith((CHOSEN, "gate.indices")):
                indices: Any = result
                seen[name] = self.ops.to_numpy(indices)
            observe(name, result)

        states = super().states(ids, cache, mask, keep)
        counts = Padding.of(ids, mask).counts
        gates = {gate: seen[f"{gate}indices"].reshape(len(counts), -1, self.config.num_experts_per_tok)
                 for gate in balanced_gates(self.config, seen)}  # fmt: skip
        entries = {name.removesuffix(CHOSEN): chosen for name, chosen in seen.items() if name.endswith(CHOSEN)}
        for sequence, count in enumerate(counts):
            if count:  # inside, the real tokens of a row come first
                rows = ({name: array[sequence, :count] for name, array in part.items()} for part in (gates, entries))
                self._read[sequence].append(Choices(*rows))
        return states

    def take(self, sequence: int) -> Choices:
        """What was chosen for the tokens of a sequence that were read since this was last asked for."""
        found, self._read[sequence] = self._read[sequence], []
        return joined(found, self.config.index_topk)


class RecordingSampler(Sampler):
    """Draws as `Sampler` does, the same tokens from the same seed, and says how; or says again what was drawn before.

    A rollout that was interrupted goes on behind its last token: what was drawn before is given back, and the random
    number that it took is taken again, so that the next one is the same as if nothing had happened.
    """

    def __init__(
        self, temperature: float, top_p: float, seed: int | None, batch: int, already: Sequence[Sequence[int]]
    ) -> None:
        """already: the tokens of each sequence that were drawn before. Raises SettingError for temperature 0."""
        if number("temperature", temperature) <= 0:
            raise SettingError(f"temperature: expected a number above 0 for a rollout, found {quoted(temperature)}")
        super().__init__(temperature, top_p, seed, batch)
        self._already = [list(tokens) for tokens in already]
        self._place = 0
        self.last: list[Draw | None] = [None] * batch
        """How the last token of each sequence came about; None where its logits were no numbers."""

    def choose(self, logits: Array) -> Ints:
        """As of `Sampler`."""
        self.last = [self._drawn(logits[sequence], sequence) for sequence in range(len(self.last))]
        self._place += 1
        return np.array([-1 if draw is None else draw.id for draw in self.last])

    def _drawn(self, logits: Array, sequence: int) -> Draw | None:
        try:
            shares = self.distribution(logits, sequence)
        except DSV4Error:
            return None
        drawn = self.draw(shares, sequence)
        if self._place < len(self._already[sequence]):
            drawn = self._already[sequence][self._place]
        with np.errstate(divide="ignore"):
            log_old = float(np.log(shares[drawn]))
        kept = None if self.top_ps[sequence] == 1 else [int(one) for one in np.nonzero(shares)[0]]
        return Draw(drawn, log_old, kept)


def joined(parts: Sequence[Choices], index_topk: int) -> Choices:
    """Runs of tokens one behind the other; the entries of each token filled up with −1 to index_topk of them."""
    gates, layers = parts[0].experts, parts[0].entries
    experts = {name: np.concatenate([part.experts[name] for part in parts]) for name in gates}
    entries = {name: np.concatenate([_filled(part.entries[name], index_topk) for part in parts]) for name in layers}
    return Choices(experts, entries)


def _filled(chosen: Ints, width: int) -> Ints:
    """As np.pad, which takes ten times as long for what is so small."""
    filled = np.full((len(chosen), width), -1, chosen.dtype)
    filled[:, : chosen.shape[1]] = chosen
    return filled
