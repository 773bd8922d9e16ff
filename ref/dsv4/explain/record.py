"""What one pass of a model over a text leaves to be looked at, as NumPy arrays."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dsv4.config import CSA_RATIO
from dsv4.errors import PromptError
from dsv4.explain.opinions import Drafts, Opinions, drafts, opinions
from dsv4.model.model import Model
from dsv4.model.span import Span
from dsv4.ops.attention import attention_shares
from dsv4.ops.compressor import overlap, slot_shares
from dsv4.ops.mhc import MhcWeights
from dsv4.ops.moe import expert_scores
from dsv4.ops.types import Array, Ints

MOST_TOKENS = 4096
"""A page of more would be too slow to look at."""


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
    """What the indexer of a CSA layer says of the entries."""

    scores: Array
    """[T, N]: of all entries, visible or not."""
    chosen: Ints
    """[T, K]: the entries that are read, by falling score; −1 where fewer are visible."""


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


class LayerRecord(NamedTuple):
    """One layer of the pass."""

    mixing: tuple[MhcWeights, MhcWeights]
    """pre [T, n], post [T, n] and comb [T, n, n], around attention and around the experts."""
    sizes: Array
    """[2, T, n]: the root mean square of each stream after attention and after the experts."""
    answers: Array
    """[2, T]: the root mean square of what attention and the experts answer."""
    heads: Array
    """[T, H]: the root mean square of each head's output."""
    shares: Shares
    slots: Array | None
    """[N, 2m or m′]: how much each token of a block counts in its entry, on average over the channels; None without
    compression, and where no block is complete. A slot of CSA's first entry that stands before the text counts 0."""
    choice: Choice | None
    """Of CSA layers with at least one entry."""
    routing: Routing


class Record(NamedTuple):
    """One pass over T tokens."""

    ids: Ints
    """[T]"""
    first_sizes: Array
    """[T]: the root mean square of each token's embedding, and so of its streams at the beginning."""
    layers: list[LayerRecord]
    opinions: list[Opinions]
    """What the head makes of the streams at the beginning and after each layer, so one more than layers."""
    head_pre: Array
    """[T, n]: how much of each stream the head reads."""
    drafts: Drafts | None
    """None without an MTP layer, and for a text of one token."""


def record(model: Model, ids: Sequence[int] | Ints) -> Record:
    """Run the model over a text and keep what its observer sees, on the host.

    ids [T]: the token ids of one text. Raises PromptError as the model does, and for more than MOST_TOKENS tokens.
    """
    tokens = np.asarray(ids)
    if len(tokens) > MOST_TOKENS:
        raise PromptError(f"text: expected at most {MOST_TOKENS} tokens on a page, found {len(tokens)}")
    seen: dict[str, Any] = {}
    layers: list[LayerRecord] = []
    heard: list[Opinions] = []

    def observe(name: str, result: Any) -> None:
        seen[name] = model.ops.to_numpy(result)
        if name == f"layers.{len(layers)}.out":
            layers.append(_layer(model, len(layers), seen))
            heard.append(opinions(model, result, tokens))
            seen.clear()  # one layer's arrays at a time

    states = model.states(tokens, observe=observe)
    first = model.first_streams(tokens[None])
    return Record(
        tokens,
        _size(model.ops.to_numpy(first)[0, :, 0]),
        layers,
        [opinions(model, first, tokens), *heard],
        model.ops.to_numpy(model.head.pre(states))[0],
        drafts(model, states, tokens),
    )


def _layer(model: Model, number: int, seen: Mapping[str, Any]) -> LayerRecord:
    """The record of one layer from what was observed in it."""
    name = f"layers.{number}."
    attn, ffn = (MhcWeights(*(seen[f"{name}hc_{part}.{field}"][0] for field in MhcWeights._fields)) for part in PARTS)
    o = seen[f"{name}attn.o"][0]
    return LayerRecord(
        mixing=(attn, ffn),
        sizes=np.stack([_size(seen[f"{name}hc_attn.out"][0]), _size(seen[f"{name}out"][0])]),
        answers=np.stack([_size(seen[f"{name}{part}.out"][0]) for part in PARTS]),
        heads=_size(o),
        shares=_shares(model, number, seen),
        slots=_slots(model.layers[number].attn.ratio, seen.get(f"{name}attn.compressor.score")),
        choice=_choice(seen, f"{name}attn.indexer."),
        routing=_routing(model, number, seen),
    )


PARTS = "attn", "ffn"


def _shares(model: Model, number: int, seen: Mapping[str, Any]) -> Shares:
    """The shares of attention, from the queries and keys of a pass that began with an empty cache."""
    attn = model.layers[number].attn
    q, kv = seen[f"{attn.name}q"], seen[f"{attn.name}kv"]  # [1, T, H, c], [1, T, c]
    length, window = q.shape[1], model.config.sliding_window
    span = Span(np.zeros(1, np.int64), np.array([length]), length)
    before = np.zeros((1, window - 1, kv.shape[2]), kv.dtype)
    entries = seen.get(f"{attn.name}compressor.out", np.zeros_like(kv[:, :0]))
    numbers = seen.get(f"{attn.name}indexer.topk", _visible(span, attn.ratio))
    shares = attention_shares(
        q,
        np.concatenate([before, kv], axis=1),
        span.window_columns(window),
        entries,
        numbers,
        model.ops.to_numpy(attn.attn_sink),
    )[0]
    itself_first = shares[:, :, :window][:, :, ::-1][:, :, :length]
    return Shares(itself_first, shares[:, :, window:-1], numbers[0], shares[:, :, -1])


def _visible(span: Span, ratio: int) -> Ints:
    """[1, T, K] the entries that are read where none is chosen: all that each token sees; else −1."""
    if not ratio:
        return np.zeros((1, span.length, 0), np.int64)
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


def _routing(model: Model, number: int, seen: Mapping[str, Any]) -> Routing:
    ffn = model.layers[number].ffn
    scores = expert_scores(seen[f"{ffn.name}gate.logits"], model.config.scoring_func)
    bias = getattr(ffn.gate, "bias", None)
    host_bias = None if bias is None else model.ops.to_numpy(bias)
    return Routing(scores, host_bias, seen[f"{ffn.name}gate.indices"], seen[f"{ffn.name}gate.weights"])


def _size(values: Array) -> Array:
    """The root mean square over the last axis, in float64 so that no square is lost."""
    size: Array = np.sqrt(np.square(values, dtype=np.float64).mean(axis=-1))
    return size
