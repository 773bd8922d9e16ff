"""Batches of sequences to train on, each a function of the seed and of the numbers of its rows alone.

A row is one document, or a piece of one that is longer; nothing in it comes from another document, so nothing can
attend across (sample-level masking). Rows are numbered from 0 without an end, and row n is the same whenever it is
asked for: a run that is resumed needs to know nothing but how many rows it has drawn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from dsv4.arguments import integer, number
from dsv4.errors import SettingError, TextError, quoted
from dsv4.ops.types import Ints, Mask


class Batch(NamedTuple):
    """Rows of a training step. A row's inputs are all its tokens but the last one, its labels all but the first."""

    ids: Ints
    """[B, S + 1] int64 token ids; S + 1 is the length of the longest row, padding stands on the right and is 0."""
    mask: Mask
    """[B, S + 1] true where a token is real."""


class Rows:
    """The rows of a stage of training: all documents of some sources, cut to the stage's length, in a drawn order."""

    def __init__(
        self,
        sources: Mapping[str, Sequence[Ints]],
        length: int,
        seed: int = 0,
        stage: int = 0,
        shares: Mapping[str, float] | None = None,
    ) -> None:
        """Lay out the rows.

        sources: documents [n] of token ids by the name of where they come from; length: S, how many tokens of a row
        are predicted at most; seed and stage: numbers of at least 0, from which the order is drawn. shares: of all
        rows, how many come from each source, as numbers that are brought to a sum of 1; a source without one is left
        out. None: each piece of every source comes equally often.

        A document of n tokens gives ⌈(n − 1) / length⌉ rows. Pieces of a long one are all of full length; where it is
        cut is drawn anew each time that the source has been gone through. Rows of a source come in an order that is
        drawn anew likewise, each once before any comes again.

        Raises TextError for a source without documents, or with fewer tokens than a sequence has, SettingError for
        another length, seed or stage, and for shares that do not fit the sources.
        """
        self.length = integer("length", length, least=1)
        self._seed = (integer("seed", seed), integer("stage", stage))
        for name, documents in sources.items():
            total = sum(len(document) for document in documents)
            if total <= self.length:
                raise TextError(f"{name}: expected at least one sequence of {self.length + 1} tokens, found {total}")
        weights = _weights(sources, shares)
        used = {name: weight for name, weight in weights.items() if weight > 0}
        self._sources = [_Source(sources[name], self.length, (*self._seed, n)) for n, name in enumerate(used)]
        pieces = np.array([len(source.pieces) for source in self._sources])
        if shares is None:
            self._per_pass = pieces
        else:
            parts = np.array(list(used.values())) / sum(used.values())
            self._per_pass = np.maximum(np.rint(parts * pieces.sum()), 1).astype(np.int64)
        self._pass = lru_cache(maxsize=2)(self._order)

    @property
    def rows_per_pass(self) -> int:
        """How many rows make a pass, in which the shares are met exactly."""
        return int(self._per_pass.sum())

    def batch(self, first: int, count: int) -> Batch:
        """The rows first … first + count − 1; with the same number B in each step, those of step t begin at t · B."""
        rows = [self._row(number) for number in range(integer("first", first), first + integer("count", count, 1))]
        longest = max(len(row) for row in rows)
        ids = np.stack([np.pad(row, (0, longest - len(row))) for row in rows])
        return Batch(ids, np.arange(longest) < np.array([len(row) for row in rows])[:, None])

    def _row(self, number: int) -> Ints:
        """The tokens of a row, at most length + 1."""
        turn, place = divmod(number, self.rows_per_pass)
        source, row = self._pass(turn)[place]
        tokens: Ints = self._sources[source].row(int(row))
        return tokens

    def _order(self, turn: int) -> Ints:
        """The rows of a pass, [N, 2]: of which source, and its number among that source's rows."""
        rows = [
            np.stack([np.full(count, source), turn * count + np.arange(count)], axis=1)
            for source, count in enumerate(self._per_pass)
        ]
        generator = np.random.default_rng((*self._seed, len(self._sources), turn))
        order: Ints = generator.permutation(np.concatenate(rows))
        return order


class _Source:
    """The rows of one source, numbered without an end."""

    def __init__(self, documents: Sequence[Ints], length: int, seed: tuple[int, ...]) -> None:
        self._documents, self._length, self._seed = documents, length, seed
        predicted = np.array([len(document) - 1 for document in documents])
        counts = -(-predicted // length)
        self.pieces = [_Piece(d, place, int(n)) for d, n in enumerate(counts) for place in range(n)]
        self._round = lru_cache(maxsize=2)(self._draw)

    def row(self, number: int) -> Ints:
        """The tokens of row `number`, at most length + 1."""
        turn, place = divmod(number, len(self.pieces))
        order, shifts = self._round(turn)
        piece = self.pieces[order[place]]
        document = self._documents[piece.document]
        start = piece.start(len(document) - 1, self._length, shifts[piece.document])
        row: Ints = document[start : start + self._length + 1]
        return row

    def _draw(self, turn: int) -> tuple[Ints, Ints]:
        """The order of the pieces when they are gone through for the turn-th time, and each document's shift."""
        generator = np.random.default_rng((*self._seed, turn))
        order = generator.permutation(len(self.pieces))
        half = self._length // 2
        return order, generator.integers(-half, half, len(self._documents), endpoint=True)


@dataclass(frozen=True)
class _Piece:
    """A piece of a document."""

    document: int
    place: int
    count: int
    """Which of how many pieces of the document it is."""

    def start(self, predicted: int, length: int, shift: int) -> int:
        """Its first token; the first and the last piece do not leave the document, whatever the shift."""
        if self.count == 1:
            return 0
        last = predicted - length
        evenly = self.place * last // (self.count - 1)
        return int(np.clip(evenly + shift, 0, last))


def _weights(sources: Mapping[str, Sequence[Ints]], shares: Mapping[str, float] | None) -> dict[str, float]:
    """The share of each source, in the order of the sources, not yet brought to a sum of 1."""
    if not sources:
        raise TextError("sources: expected at least one text, found none")
    if shares is None:
        return dict.fromkeys(sources, 1.0)
    for name in shares:
        if name not in sources:
            raise SettingError(f"shares: expected names among {', '.join(sources)}, found {quoted(name)}")
    weights = {name: number(f"shares: {name}", shares.get(name, 0)) for name in sources}
    if min(weights.values()) < 0 or sum(weights.values()) == 0:
        raise SettingError(f"shares: expected numbers of at least 0 that are not all 0, found {quoted(dict(shares))}")
    return weights
