"""What a pass of a V4 model leaves of each layer, as NumPy arrays."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from dsv4.config import CSA_RATIO
from dsv4.model.language_model import LanguageModel
from dsv4.model.model import Model
from dsv4.model.span import Span
from dsv4.ops.attention import attention_shares
from dsv4.ops.compressor import overlap, slot_shares
from dsv4.ops.mhc import MhcWeights
from dsv4.ops.moe import expert_scores
from dsv4.ops.types import Array, Ints, Mask


class Shares(NamedTuple):
    """Where the attention of one layer goes: for each token and head the shares sum to 1."""

    window: Array
    """[T, H, ≤ w]: the share of the token itself, of the one before it, and so on; 0 before the text begins."""
    entries: Array
    """[T, H, K]: the share of each entry that the token reads; 0 where it reads fewer."""
    numbers: Ints
    """[T, K]: which entries these are; −1 where the token reads fewer."""
    sink: Array
    """[T, H]"""


class Choice(NamedTuple):
    """What the indexer of a layer says of the entries."""

    scores: Array
    """[T, N]: of all entries, visible or not."""
    chosen: Ints
    """[T, K]: the entries that are read, by falling score; −1 where fewer are visible."""
    allowed: Mask | None = None
    """[T, N]: the entries in the pool, where one chose inside it (V4.1)."""


class Routing(NamedTuple):
    """Where the experts' sub-layer of one layer sends the tokens."""

    scores: Array
    """[T, E]"""
    bias: Array | None
    """[E]: what is added to the scores for the choice alone; None in a layer that routes by token id."""
    indices: Ints
    """[T, k]"""
    weights: Array
    """[T, k]"""


class Lookup(NamedTuple):
    """What an Engram does (V4.1)."""

    rows: Ints
    """[T, columns]: the rows that each token reads of the table, by order of the n-gram and then by head."""
    gates: Array
    """[T, n]: with what weight the value is added to each stream."""


class LayerRecord(NamedTuple):
    """One layer of the pass."""

    mixing: tuple[MhcWeights, MhcWeights]
    """pre [T, n], post [T, n] and comb [T, n, n], around attention and around the experts. pre is what the sub-layer
    reads with; in V4.1 the sub-layer before has made it."""
    sizes: Array
    """[2, T, n]: the root mean square of each stream after attention and after the experts."""
    answers: Array
    """[2, T]: the root mean square of what attention and the experts answer."""
    heads: Array
    """[T, H]: the root mean square of each head's output."""
    shares: Shares
    slots: Array | None
    """[N, 2m or m′]: how much each token of a block counts in its entry, on average over the channels; None without
    compression, where another layer makes the entries (V4.1), and where no block is complete. A slot of CSA's first
    entry that stands before the text counts 0."""
    choice: Choice | None
    """Of layers that choose, with at least one entry."""
    routing: Routing
    pool: Ints | None = None
    """[T, P]: the blocks of the pool, where the layer makes one (V4.1); −1 for none."""
    lookup: Lookup | None = None
    """Of layers with an Engram (V4.1)."""


class Layers:
    """Makes the records of a V4 model's layers, one after the other."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def record(self, number: int, seen: Mapping[str, Any]) -> LayerRecord:
        """One layer, from what was observed in it."""
        model, name = self.model, f"layers.{number}."
        attn, ffn = (
            MhcWeights(*(seen[f"{name}hc_{part}.{field}"][0] for field in MhcWeights._fields)) for part in PARTS
        )
        return LayerRecord(
            mixing=(attn, ffn),
            sizes=np.stack([size(seen[f"{name}hc_attn.out"][0]), size(seen[f"{name}out"][0])]),
            answers=np.stack([size(seen[f"{name}{part}.out"][0]) for part in PARTS]),
            heads=size(seen[f"{name}attn.o"][0]),
            shares=_shares(model, number, seen),
            slots=_slots(model.layers[number].attn.ratio, seen.get(f"{name}attn.compressor.score")),
            choice=_choice(seen, f"{name}attn.indexer."),
            routing=routing_of(model, f"{name}ffn.", getattr(model.layers[number].ffn.gate, "bias", None), seen),
        )

    def before_head(self, streams: Array) -> Array:
        """What the head takes of streams [1, T, n, d] behind a layer, or of those at the beginning."""
        return streams

    def head_pre(self, states: Array) -> Array:
        """How much the head reads of each stream, from the states that it takes: [T, n]"""
        pre: Array = self.model.ops.to_numpy(self.model.head.pre(states))[0]
        return pre


PARTS = "attn", "ffn"


def _shares(model: Model, number: int, seen: Mapping[str, Any]) -> Shares:
    attn = model.layers[number].attn
    kv = seen[f"{attn.name}kv"]
    entries = seen.get(f"{attn.name}compressor.out", np.zeros_like(kv[:, :0]))
    numbers = seen.get(f"{attn.name}indexer.topk")
    return shares_of(model, attn, seen, entries, _visible(kv.shape[1], attn.ratio) if numbers is None else numbers)


def shares_of(model: LanguageModel, attn: Any, seen: Mapping[str, Any], entries: Array, numbers: Ints) -> Shares:
    """The shares of attention, from the queries and keys of a pass that began with an empty cache.

    attn: the layer's, of a model of V4 or V4.1; entries [1, N, c]; numbers [1, T, K]: those that each token reads.
    """
    q, kv = seen[f"{attn.name}q"], seen[f"{attn.name}kv"]  # [1, T, H, c], [1, T, c]
    length, window = q.shape[1], model.config.sliding_window
    before = np.zeros((1, window - 1, kv.shape[2]), kv.dtype)
    keys, columns = np.concatenate([before, kv], axis=1), _span(length).window_columns(window)
    shares = attention_shares(q, keys, columns, entries, numbers, model.ops.to_numpy(attn.attn_sink))[0]
    itself_first = shares[:, :, :window][:, :, ::-1][:, :, :length]
    return Shares(itself_first, shares[:, :, window:-1], numbers[0], shares[:, :, -1])


def _span(length: int) -> Span:
    return Span(np.zeros(1, np.int64), np.array([length]), length)


def _visible(length: int, ratio: int) -> Ints:
    """[1, T, K] the entries that are read where none is chosen: all that each token sees; else −1."""
    if not ratio:
        return np.zeros((1, length, 0), np.int64)
    span = _span(length)
    numbers = np.arange(span.entry_count(ratio))
    return np.where(numbers < span.visible(ratio)[..., None], numbers, -1)


def _slots(ratio: int, score: Array | None) -> Array | None:
    """From a compressor's gate scores [1, T, c], for CSA [1, T, 2c], how much each slot of each entry counts: [N, m].

    The blocks are those of a text that begins at position 0.
    """
    count = 0 if score is None else score.shape[1] // ratio
    if score is None or not count:
        return None
    blocks = score[:, : count * ratio].reshape(1, count, ratio, -1)
    if ratio == CSA_RATIO:
        before = np.full_like(blocks[:, :1], -np.inf)
        blocks = overlap(np.concatenate([before, blocks], axis=1))
    mean: Array = slot_shares(blocks)[0].mean(axis=-1)
    return mean


def _choice(seen: Mapping[str, Any], indexer: str) -> Choice | None:
    if f"{indexer}topk" not in seen or not seen[f"{indexer}topk"].size:
        return None
    return Choice(seen[f"{indexer}scores"][0], seen[f"{indexer}topk"][0])


def routing_of(model: LanguageModel, ffn: str, bias: Array | None, seen: Mapping[str, Any]) -> Routing:
    """Where the experts' sub-layer of this name sends the tokens; bias [E]: what is added to scores, if anything."""
    scores = expert_scores(seen[f"{ffn}gate.logits"], model.config.scoring_func)
    host_bias = None if bias is None else model.ops.to_numpy(bias)
    return Routing(scores, host_bias, seen[f"{ffn}gate.indices"], seen[f"{ffn}gate.weights"])


def size(values: Array) -> Array:
    """The root mean square over the last axis, in float64 so that no square is lost."""
    found: Array = np.sqrt(np.square(values, dtype=np.float64).mean(axis=-1))
    return found
