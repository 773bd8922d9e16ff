"""The cache of the beginning of a sequence, in as little memory as it needs."""

import numpy as np

from dsv4.arguments import integer
from dsv4.errors import PromptError
from dsv4.model.cache import Cache, Track
from dsv4.model.rows import Entries, RecentRows


def cut(cache: Cache, sequence: int, length: int, max_rollback: int = 0) -> Cache:
    """An independent cache of one sequence that holds its first `length` tokens and knows of none behind them.

    An MTP layer, which reads a token together with the next one, has read one token less then. max_rollback: as for
    `Model.new_cache`, whatever that of the given cache is; but no rollback goes back before what was cut. Raises
    PromptError for a sequence that there is not, for more tokens than it has, for none, and for a length that a
    rollback of the given cache could not reach.
    """
    sequence = integer("sequence", sequence, most=len(cache.lengths) - 1, error=PromptError)
    length = integer("length", length, 1, int(cache.lengths[sequence]), PromptError)
    max_rollback = integer("max_rollback", max_rollback, error=PromptError)
    furthest, most = int(cache.main.furthest[sequence]), cache.main.max_rollback
    if furthest - length > most:
        expected = f"at most max_rollback = {most} tokens before the furthest position {furthest}"
        raise PromptError(f"length: expected {expected}, found {length}")
    return Cache(*(_track(track, sequence, length, max_rollback) for track in (cache.main, cache.mtp)))


def _track(track: Track, sequence: int, length: int, max_rollback: int) -> Track:
    known = min(int(track.lengths[sequence]), length - track.ahead)
    spare = max_rollback + track.ahead
    layers = [
        layer.changed(
            lambda ring: _ring(ring, sequence, known, spare),
            lambda entries, ratio: _entries(entries, sequence, known // ratio),
        )
        for layer in track.layers
    ]
    begun = Track(layers, np.array([known]), spare, track.ahead)
    begun.furthest = begun.lengths + spare  # as if it had been further: the rows that a rollback needs are not copied
    return begun


def _ring(given: RecentRows, sequence: int, length: int, spare: int) -> RecentRows:
    """The rows that come before position `length`, at the slots of another capacity."""
    ring = RecentRows(given.ops, 1, given.keep, spare, given.coding)
    positions = np.arange(max(length - given.keep - 1, 0), length)
    place = given.ops.asarray
    slots = place(np.zeros_like(positions)), place(positions % ring.rows.shape[1])
    rows = given.rows[sequence, place(positions % given.rows.shape[1])]
    ring.rows = given.ops.write(ring.rows, slots, rows)
    return ring


def _entries(given: Entries, sequence: int, count: int) -> Entries:
    """So many entries, with as much room as an array that has doubled for them."""
    entries = Entries(given.ops, 1, given.coding)
    room = entries.rows.shape[1]
    while room < count:
        room *= 2
    entries.rows = given.rows[sequence : sequence + 1, :room].copy()
    return entries
