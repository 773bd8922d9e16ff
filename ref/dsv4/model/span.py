"""Which positions of which sequences one call of the model covers, and what each of them may see.

Positions are known on the host. The layers need arrays that follow from them. These are made where the backend
computes, once per call and not once per layer, from two numbers of each sequence that go there with its tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from dsv4.ops.places import Blocks, Completed, Positions, Ring
from dsv4.ops.types import Ints, Mask

P = ParamSpec("P")
R = TypeVar("R")


def for_all_layers(function: Callable[Concatenate["Span", P], R]) -> Callable[Concatenate["Span", P], R]:
    """Compute what a function gives for a span once for the same arguments: every layer asks for the same."""

    def remembered(span: "Span", /, *arguments: P.args, **named: P.kwargs) -> R:
        key = function, *arguments, *named.items()
        if key not in span._known:
            span._known[key] = function(span, *arguments, **named)
        result: R = span._known[key]
        return result

    return wraps(function)(remembered)


class Counting:
    """The numbers 0 … n − 1 where the backend computes, placed once for all calls of a model."""

    def __init__(self, place: Callable[[npt.NDArray[Any]], Any]) -> None:
        self._place, self._numbers = place, place(np.arange(1))

    def __call__(self, count: int) -> Ints:
        """[count]"""
        if count > len(self._numbers):
            self._numbers = self._place(np.arange(1 << (count - 1).bit_length()))
        first: Ints = self._numbers[:count]
        return first


@dataclass(frozen=True)
class Span:
    """A run of consecutive positions for each sequence of a batch, padded on the right to one length S.

    Row b covers positions starts[b] … starts[b] + counts[b] − 1; what stands behind them in the row is padding, whose
    results nobody reads. Everything that depends on positions derives from these three facts.
    """

    starts: Ints
    """[B] the position of each row's first token: how many the cache has seen before."""
    counts: Ints
    """[B] how many tokens of each row are real."""
    length: int
    """S, the padded length."""
    place: Callable[[npt.NDArray[Any]], Any] = field(default=np.asarray, compare=False)
    """Puts an array where the backend computes: its `asarray`."""
    counting: Callable[[int], Ints] | None = field(default=None, compare=False)
    """The model's `Counting`, which spares a transfer; without it numbers are placed anew."""
    ids: Ints | None = field(default=None, compare=False)
    """[B, S] the tokens' ids, where it is tokens that the call covers. On the host."""
    _known: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @cached_property
    def ends(self) -> Ints:
        """[B] the position behind each row's last token."""
        return self.starts + self.counts

    @cached_property
    def host_positions(self) -> Ints:
        """[B, S] the position of each token; padding goes on counting. On the host."""
        return self.starts[:, None] + np.arange(self.length)

    @cached_property
    def positions(self) -> Ints:
        """[B, S] the position of each token, placed."""
        positions: Ints = self.placed_starts[:, None] + self.numbers(self.length)
        return positions

    @cached_property
    def back(self) -> Ints:
        """[B, S] the positions with a minus sign, by which values are turned back, placed."""
        back: Ints = -self.positions
        return back

    @property
    def placed_starts(self) -> Ints:
        """[B] the starts, placed."""
        return self._placed[0]

    @property
    def placed_counts(self) -> Ints:
        """[B] the counts, placed."""
        return self._placed[1]

    @property
    def tokens(self) -> Ints:
        """[B, S] the ids, placed."""
        return self._placed[2]

    @cached_property
    def _placed(self) -> list[Ints]:
        """Starts, counts and ids, placed by one transfer: a step of decoding needs no other."""
        parts = (self.starts, self.counts, np.zeros((0, self.length), np.int64) if self.ids is None else self.ids)
        starts = np.cumsum([0, *(part.size + part.size % 2 for part in parts)])  # each at a multiple of 16 bytes
        joined = np.zeros(starts[-1], np.int64)
        for start, part in zip(starts, parts, strict=False):
            joined[start : start + part.size] = part.reshape(-1)
        placed = self.place(joined)
        return [
            placed[start : start + part.size].reshape(part.shape) for start, part in zip(starts, parts, strict=False)
        ]

    @cached_property
    def _of_rows(self) -> Positions:
        """What rows of caches are found by. It does not hold the span, which would then outlive its call."""
        placed = self.placed_starts, self.placed_counts, self.positions
        return Positions(self.starts, self.counts, self.length, *placed, self.place)

    @for_all_layers
    def numbers(self, count: int) -> Ints:
        """[count] 0 … count − 1, placed."""
        numbers: Ints = self.counting(count) if self.counting else self.place(np.arange(count))
        return numbers

    @cached_property
    def present(self) -> Mask:
        """[B, S] whether a token is real. On the host."""
        return np.arange(self.length) < self.counts[:, None]

    @for_all_layers
    def entry_count(self, ratio: int) -> int:
        """How many compressed entries the longest sequence has at the end of the span."""
        return int((self.ends // ratio).max())

    @for_all_layers
    def visible(self, ratio: int) -> Ints:
        """[B, S] how many compressed entries each query sees: entry i from position i·ρ + ρ − 1, its last token, on.

        Placed. Source: report §2.3.1, visible s < floor(t/m) counting t from 1; code: the same.
        """
        visible: Ints = (self.positions + 1) // ratio
        return visible

    @for_all_layers
    def window_columns(self, window: int) -> Ints:
        """[B, S, w] where each query finds its window keys in what `RecentRows.extend` gives for keep = w − 1; else −1.

        Placed. Source: report §2.3.1: the last w tokens, the query's own included.
        """
        back = self.numbers(window) - (window - 1)  # −(w−1) … 0
        columns = self.numbers(self.length)[:, None] + self.numbers(window)  # [S, w]
        found: Ints = np.where(self.positions[:, :, None] + back >= 0, columns, -1)
        return found

    @for_all_layers
    def ring(self, keep: int, capacity: int) -> Ring:
        """Where a ring of this capacity has the `keep` rows before the span, and the span's own."""
        return Ring(self._of_rows, keep, capacity)

    @for_all_layers
    def completed(self, ratio: int) -> Completed:
        """The compressed entries that the span completes."""
        return Completed(self._of_rows, ratio)

    @for_all_layers
    def blocks(self, ratio: int, keep: int) -> Blocks:
        """The tokens of those entries, in rows with `keep` ones before the span's own."""
        return Blocks(self.completed(ratio), keep)
