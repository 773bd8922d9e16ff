"""Which positions of which sequences one call of the model covers, and what each of them may see.

Positions are known on the host. What the layers need of them are index arrays; these are made on the host and placed
where the backend computes once per call, not once per layer.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, wraps
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

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


Index = tuple[Ints, Ints]
"""Rows of an array [B, N, ...]: the sequence of each and its place there, in arrays of any one shape."""


class Ring(NamedTuple):
    """Where a span's rows stand in a ring that holds position p at slot p mod capacity."""

    before: Index
    """The slots, as an index [B, keep], of the positions before the span."""
    slots: Index
    """The slots, as an index [N], that the span's rows go to."""
    rows: Index
    """Those rows themselves, as an index [N] of [B, S]: the real ones that the ring has room for."""


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
        positions: Ints = self.place(self.host_positions)
        return positions

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
        visible: Ints = self.place((self.host_positions + 1) // ratio)
        return visible

    @for_all_layers
    def window_columns(self, window: int) -> Ints:
        """[B, S, w] where each query finds its window keys in what `RecentRows.extend` gives for keep = w − 1; else −1.

        Placed. Source: report §2.3.1: the last w tokens, the query's own included.
        """
        back = np.arange(window) - (window - 1)  # −(w−1) … 0
        positions = self.host_positions[:, :, None] + back
        columns = np.arange(self.length)[:, None] + np.arange(window)  # [S, w]
        found: Ints = self.place(np.where(positions >= 0, columns, -1))
        return found

    def place_index(self, sequences: Ints, places: Ints) -> Index:
        """An index, placed."""
        return self.place(sequences), self.place(places)

    @for_all_layers
    def ring(self, keep: int, capacity: int) -> Ring:
        """Where `RecentRows` finds the `keep` rows before the span, and puts the span's own: see there. Placed."""
        before = self.starts[:, None] + np.arange(-keep, 0)  # [B, keep]
        survives = self.present & (np.arange(self.length) >= self.counts[:, None] - capacity)
        row, token = np.nonzero(survives)
        every_row = np.arange(len(self.starts))[:, None]
        slots = (self.starts[row] + token) % capacity
        index = self.place_index
        return Ring(index(every_row, before % capacity), index(row, slots), index(row, token))
