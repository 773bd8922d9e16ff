"""Which positions of which sequences one call of the model covers."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, wraps
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

import numpy as np

from dsv4.ops.types import Ints, Mask

P = ParamSpec("P")
R = TypeVar("R")


def _for_all_layers(method: Callable[Concatenate["Span", P], R]) -> Callable[Concatenate["Span", P], R]:
    """Compute the result of a method once for the same arguments: every layer asks for the same."""

    def remembered(self: "Span", /, *arguments: P.args, **named: P.kwargs) -> R:
        key = method.__name__, *arguments, *named.items()
        if key not in self._known:
            self._known[key] = method(self, *arguments, **named)
        result: R = self._known[key]
        return result

    return wraps(method)(remembered)


class Ring(NamedTuple):
    """Where a span's rows stand in a ring that holds position p at slot p mod capacity."""

    before: tuple[Ints, Ints]
    """The slots, as an index [B, keep], of the positions before the span."""
    slots: tuple[Ints, Ints]
    """The slots, as an index [N], that the span's rows go to."""
    rows: tuple[Ints, Ints]
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
    _known: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @cached_property
    def ends(self) -> Ints:
        """[B] the position behind each row's last token."""
        return self.starts + self.counts

    @cached_property
    def positions(self) -> Ints:
        """[B, S] the position of each token; padding goes on counting."""
        return self.starts[:, None] + np.arange(self.length)

    @cached_property
    def present(self) -> Mask:
        """[B, S] whether a token is real."""
        return np.arange(self.length) < self.counts[:, None]

    @_for_all_layers
    def visible(self, ratio: int) -> Ints:
        """[B, S] how many compressed entries each query sees: entry i as soon as its last token, i·ρ + ρ − 1, is there.

        Source: report §2.3.1, visible s < floor(t/m) counting t from 1; code: the same.
        """
        return (self.positions + 1) // ratio

    @_for_all_layers
    def window_columns(self, window: int) -> Ints:
        """[B, S, w] where each query finds its window keys in what `RecentRows.extend` gives for keep = w − 1; else −1.

        Source: report §2.3.1: the last w tokens, the query's own included.
        """
        back = np.arange(window) - (window - 1)  # −(w−1) … 0
        positions = self.positions[:, :, None] + back
        columns = np.arange(self.length)[:, None] + np.arange(window)  # [S, w]
        return np.where(positions >= 0, columns, -1)

    @_for_all_layers
    def ring(self, keep: int, capacity: int) -> Ring:
        """Where `RecentRows` finds the `keep` rows before the span, and puts the span's own: see there."""
        before = self.starts[:, None] + np.arange(-keep, 0)  # [B, keep]
        survives = self.present & (np.arange(self.length) >= self.counts[:, None] - capacity)
        row, token = np.nonzero(survives)
        every_row = np.arange(len(self.starts))[:, None]
        return Ring((every_row, before % capacity), (row, (self.starts[row] + token) % capacity), (row, token))
