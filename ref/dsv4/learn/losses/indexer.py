"""What the lightning indexer learns from: the attention that it chooses entries for (DeepSeek-V3.2 §2.1.1).

The indexer's choice has no gradient, so that the language loss never moves it: without this loss it stays as random as
it began. Target and inputs are detached: the target is made of plain arrays, and of the gradient of this loss only that
of the indexer's own parameters may be used (`dsv4.learn.who_learns.is_indexer`).
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from dsv4.config import CSA_RATIO
from dsv4.learn.losses.real_tokens import real_tokens
from dsv4.model.attention import Attention
from dsv4.model.model import Model
from dsv4.ops.types import Array, Ints, Mask

Scope = Literal["visible", "chosen"]
"""Which entries the indexer learns about: all that a query sees, in the dense warm-up, or those that it chose."""

QUERIES = 64
"""How many queries the target is computed for at a time: they share most of their window."""


def indexer_kl(scores: Array, target: Array, considered: Mask) -> Array:
    """KL(p ‖ softmax(I)) = Σ_s p_s · (log p_s − log softmax(I)_s) of each query, over its considered entries.

    scores I [B, S, T] float, as `index_scores` gives them; target p [B, S, T] a plain array, as `indexer_target` gives
    it; considered [B, S, T]. Returns [B, S] of the scores' dtype: zero for a query with no entry to consider.
    Source: V3.2's report (2512.02556) §2.1.1, for the dense warm-up and for the sparse stage.
    """
    any_entry = considered.any(axis=-1, keepdims=True)
    largest = np.max(np.where(considered, scores, -np.inf), axis=-1, keepdims=True)
    centred = np.where(considered, scores - np.where(any_entry, largest, 0), 0)
    total = np.sum(np.where(considered, np.exp(centred), 0), axis=-1, keepdims=True)
    log_share = centred - np.log(np.where(any_entry, total, 1))
    log_target = np.log(np.where(target > 0, target, 1))
    divergence: Array = (target * (log_target - log_share)).sum(axis=-1)
    return divergence


def indexer_target(attention: Array) -> Array:
    """p_s = a_s / Σ_s a_s over the entries; zeros for a query that gives them nothing.

    attention a [B, S, T]: what `attention_to_entries` gives for the considered entries. Returns the same shape and
    dtype. Source: V3.2's report §2.1.1: attention summed over the heads, then L1-normalised.
    """
    total = attention.sum(axis=-1, keepdims=True)
    return np.where(total > 0, attention / np.where(total > 0, total, 1), 0).astype(attention.dtype)


def attention_to_entries(
    queries: Array, window: Array, entries: Array, attn_sink: Array, width: int, considered: Mask
) -> Array:
    """a_ts = 1/H · Σ_h e^{c_hs} / Z_h: the share of a query's attention, over all heads, that each entry gets.

    c_hs = q_h · entry_s / √c, and Z_h sums e^c over the considered entries **and** the keys of the window and the sink:
    a head that looks at its window says little about entries. queries [B, S, H, c] and window [B, S, c] of positions
    0 … S − 1; entries [B, T, c]; attn_sink [H]; width: of the window, the query's own key included; considered
    [B, S, T]. Returns [B, S, T] of the queries' dtype, zeros at entries that are not considered.
    Not in the report: it says what the target is without compression; other trainers came to this form of it.
    """
    sink = attn_sink.astype(queries.dtype)[:, None]  # [H, 1]

    def shares_of(start: int) -> Array:
        """Of a run of queries, which reads a run of window keys."""
        some, run = slice(start, start + QUERIES), slice(max(0, start - width + 1), start + QUERIES)
        position = np.arange(queries.shape[1])
        back = position[some, None] - position[run]  # how far back each key is
        to_window = _logits(queries[:, some], window[:, run], (back >= 0) & (back < width))  # [B, s, H, keys]
        to_entries = _logits(queries[:, some], entries, considered[:, some])  # [B, s, H, T]
        largest = np.maximum(np.maximum(_largest(to_window), _largest(to_entries)), sink)
        rest = np.exp(to_window - largest).sum(axis=-1, keepdims=True) + np.exp(sink - largest)
        weight = np.exp(to_entries - largest)
        share: Array = (weight / (weight.sum(axis=-1, keepdims=True) + rest)).mean(axis=2)
        return share

    return np.concatenate([shares_of(start) for start in range(0, queries.shape[1], QUERIES)], axis=1)


def visible_entries(mask: Mask, entries: int) -> Mask:
    """Which of so many CSA entries each query sees. mask [B, S]: true for real tokens. Returns [B, S, entries].

    Source: report §2.3.1: entry s as soon as its last token is there.
    """
    visible = (np.arange(mask.shape[1]) + 1) // CSA_RATIO
    return (np.arange(entries) < visible[:, None]) & mask[..., None]


def chosen_entries(topk: Ints, entries: int) -> Mask:
    """Which of so many entries are among the chosen. topk [B, S, K] entry numbers, −1 for none -> [B, S, entries]."""
    chosen = np.zeros((*topk.shape[:2], entries + 1), bool)
    np.put_along_axis(chosen, np.where(topk < 0, entries, topk), True, axis=-1)  # the place behind the last takes none
    return chosen[..., :entries]


class Capture(NamedTuple):
    """How much of the attention to entries the chosen ones get, on average over the queries that must choose."""

    chosen: float
    """Of the indexer's entries."""
    chance: float
    """Of as many entries drawn blindly from the visible ones."""
    best: float
    """Of the entries that get most, as many."""

    @property
    def standing(self) -> float:
        """Where the indexer stands between chance, 0, and the best possible choice, 1."""
        return (self.chosen - self.chance) / (self.best - self.chance)


def capture(attention: Array, chosen: Mask, visible: Mask) -> Capture | None:
    """What the indexer's choice is worth: the measure beside the loss, whose floor is not 0.

    attention [B, S, T] to all visible entries; chosen, visible [B, S, T]. Queries that see no more entries than they
    choose, or choose none, do not count; None where no query does, or no choice is better than another.
    Not in the report.
    """
    count, seen = chosen.sum(axis=-1), visible.sum(axis=-1)
    must_choose = (count > 0) & (seen > count)
    attention, chosen, count, seen = (array[must_choose] for array in (attention, chosen, count, seen))
    whole = attention.sum()
    falling = -np.sort(-attention, axis=-1)
    best = np.where(np.arange(falling.shape[-1]) < count[:, None], falling, 0)
    blind = attention.sum(axis=-1) * count / seen
    if not best.sum() > blind.sum():
        return None
    got = np.where(chosen, attention, 0)
    return Capture(*(float(part.sum() / whole) for part in (got, blind, best)))


def indexer_losses(model: Model, seen: Mapping[str, Any], mask: Mask, scope: Scope) -> dict[str, Array]:
    """The mean of `indexer_kl` over the real queries, for each CSA layer by its name; their sum is to be small.

    seen: what one pass of the model from position 0 reported to its observer, with "….attn.q", "kv", "compressor.out",
    "indexer.scores" and "indexer.topk"; mask [B, S]: true for real tokens, as the pass took it; scope: "visible" for
    the warm-up, in which attention should be dense, or "chosen". Layers without an entry are left out.
    """
    losses: dict[str, Array] = {}
    for attn in indexed_layers(model, seen):
        pieces = _pieces(model, attn, seen, mask)
        considered = pieces.visible & pieces.chosen if scope == "chosen" else pieces.visible
        target = indexer_target(pieces.attention(considered))
        kl = indexer_kl(seen[f"{attn.name}indexer.scores"], target, considered)
        mean: Array = kl.sum() / float(pieces.mask.sum())
        losses[attn.name] = mean
    return losses


def captures(model: Model, seen: Mapping[str, Any], mask: Mask) -> dict[str, Capture]:
    """`capture` for each CSA layer in which a query had to choose, by the layer's name. Arguments as above."""
    found: dict[str, Capture] = {}
    for attn in indexed_layers(model, seen):
        pieces = _pieces(model, attn, seen, mask)
        measured = capture(pieces.attention(pieces.visible), pieces.visible & pieces.chosen, pieces.visible)
        if measured is not None:
            found[attn.name] = measured
    return found


def indexed_layers(model: Model, seen: Collection[str]) -> Iterator[Attention]:
    """The attention of each CSA layer that completed an entry, the MTP module's too where it was run."""
    blocks = [*model.layers, *([model.mtp.block] if model.mtp else [])]
    for block in blocks:
        if block.attn.ratio == CSA_RATIO and f"{block.attn.name}compressor.out" in seen:
            yield block.attn


class _Pieces(NamedTuple):
    """What a layer's pass reported, as plain arrays; the mask is that of the tokens which the layer saw."""

    queries: Array
    window: Array
    entries: Array
    attn_sink: Array
    width: int
    chosen: Mask
    mask: Mask

    @property
    def visible(self) -> Mask:
        return visible_entries(self.mask, self.entries.shape[1])

    def attention(self, considered: Mask) -> Array:
        return attention_to_entries(self.queries, self.window, self.entries, self.attn_sink, self.width, considered)


def _pieces(model: Model, attn: Attention, seen: Mapping[str, Any], mask: Mask) -> _Pieces:
    plain = model.ops.to_numpy
    queries, window, entries = (plain(seen[attn.name + name]) for name in ("q", "kv", "compressor.out"))
    topk: Ints = plain(seen[f"{attn.name}indexer.topk"])
    chosen = chosen_entries(topk, entries.shape[1])
    real = real_tokens(mask, attn.name, queries.shape[1])
    return _Pieces(queries, window, entries, plain(attn.attn_sink), model.config.sliding_window, chosen, real)


def _logits(queries: Array, keys: Array, present: Mask) -> Array:
    """[B, s, H, c], [B, K, c], present [s, K] or [B, s, K] -> [B, s, H, K], −inf where a key is not present."""
    batch, length, heads, width = queries.shape
    rows = queries.reshape(batch, length * heads, width)  # one product instead of one for each query
    products = (rows @ keys.swapaxes(-1, -2)).reshape(batch, length, heads, keys.shape[1])
    return np.where(present[..., None, :], products * queries.dtype.type(width**-0.5), -np.inf)


def _largest(logits: Array) -> Array:
    largest: Array = logits.max(axis=-1, keepdims=True, initial=-np.inf)
    return largest
