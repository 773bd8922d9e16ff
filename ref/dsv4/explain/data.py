"""What of a pass a page holds: the text, the model's sizes, and every array in few bits."""

from typing import Any

import numpy as np

from dsv4.config import Config
from dsv4.config41 import Config41
from dsv4.explain.layers import Choice, LayerRecord, Lookup, Routing, Shares
from dsv4.explain.opinions import Drafts, Opinions
from dsv4.explain.packing import Packer
from dsv4.explain.plan import Place, cache_parts, key_bytes, plan
from dsv4.explain.record import Record
from dsv4.explain.room import Room
from dsv4.explain.words import described_words, pieces
from dsv4.model.attention import layer_frequencies
from dsv4.model.language_model import LanguageModel
from dsv4.ops.types import Array, Ints, Mask
from dsv4.parameters import count_parameters
from dsv4.parameters41 import count_by_part41
from dsv4.text.tokenizer import Tokenizer

NOBODY = 2**16 - 1
"""The number of a key that is none."""


def page_data(model: LanguageModel, tokenizer: Tokenizer, record: Record) -> tuple[dict[str, Any], str]:
    """The data of a page: what is written as JSON, and the arrays that it describes, as `Packer.text` gives them.

    The JSON has "model" (sizes), "room", "tokens" (id and text of each), "words" (text and kind of every id that is
    named), "layers", "opinions", "drafts", "head_pre", "first_sizes" and "cache". docs/explain.md says what is rounded,
    and how far.
    """
    config, length = model.config, len(record.ids)
    room, packer, places = Room.of(config, length), Packer(), plan(config)
    named = {int(one) for one in record.ids} | {int(one) for each in record.opinions for one in each.ids.ravel()}
    drafted = None
    if record.drafts is not None:
        named |= {int(one) for one in record.drafts.opinions.ids.ravel()}
        named |= set() if record.drafts.blocks is None else {int(one) for one in record.drafts.blocks.ravel()}
        drafted = _drafts(packer, record.drafts)
    data = {
        "model": _sizes(model),
        "room": vars(room),
        "tokens": [[int(one), piece] for one, piece in zip(record.ids, pieces(tokenizer, record.ids), strict=True)],
        "words": described_words(tokenizer, named),
        "layers": [_layer(packer, room, config, *each) for each in zip(places, record.layers, strict=True)],
        "opinions": [_opinions(packer, each) for each in record.opinions],
        "drafts": drafted,
        "head_pre": packer.linear(record.head_pre, 16),
        "first_sizes": packer.linear(record.first_sizes, 16),
        "cache": _cache(packer, config, places, length),
    }
    return data, packer.text()


def _sizes(model: LanguageModel) -> dict[str, Any]:
    """The settings that the page's shapes and sentences name."""
    config, yarn = model.config, model.config.rope_scaling
    names = (
        *("vocab_size", "hidden_size", "num_attention_heads", "head_dim", "qk_rope_head_dim", "q_lora_rank"),
        *("o_lora_rank", "o_groups", "sliding_window", "index_n_heads", "index_head_dim", "index_topk"),
        *("n_routed_experts", "num_experts_per_tok", "moe_intermediate_size", "routed_scaling_factor"),
        *("scoring_func", "hc_mult", "hc_sinkhorn_iters", "rope_theta", "compress_rope_theta"),
        *("max_position_embeddings",),
    )
    return {name: getattr(config, name) for name in names} | {
        "yarn_factor": yarn.factor if yarn else None,
        "rounds": model.rounds,
        "drafter": "MTP" if model.mtp else "DSpark" if model.dspark else None,
        "backend": model.ops.name,
        **(_sizes41(config) if isinstance(config, Config41) else _sizes4(config)),
    }


def _sizes4(config: Config) -> dict[str, Any]:
    return {"version": "V4", "parameters": count_parameters(config).total, "engram": None, "candidates": None}


def _sizes41(config: Config41) -> dict[str, Any]:
    """What only V4.1 has, and only V4 has not."""
    engram, source = config.engram, config.candidate_source_layer_id
    lookup = engram and {"longest": engram.max_ngram_size, "heads": engram.n_heads, "width": engram.head_dim}
    pool = {"source": source, "blocks": config.candidate_topk_blocks, "size": config.candidate_block_size}
    return {
        "version": "V4.1",
        "parameters": sum(count.total for count in count_by_part41(config).values()),
        "engram": lookup,
        "candidates": None if source is None else pool,
    }


def _layer(packer: Packer, room: Room, config: Config | Config41, place: Place, layer: LayerRecord) -> dict[str, Any]:
    bits = room.bits
    return {
        **place._asdict(),
        "by_id": layer.routing.bias is None,
        "frequencies": [float(f"{one:.6g}") for one in layer_frequencies(config, place.ratio)],
        "mixing": [packer.linear(np.concatenate([m.pre, m.post, _flat(m.comb)], axis=1), bits) for m in layer.mixing],
        "sizes": packer.linear(layer.sizes, 16),
        "answers": packer.linear(layer.answers, 16),
        "heads": packer.linear(grouped(layer.heads, room.sums), bits),
        "shares": _shares(packer, room, layer.shares),
        "slots": None if layer.slots is None else packer.root(layer.slots, bits),
        "choice": None if layer.choice is None else _choice(packer, room, layer.choice, place.ratio),
        "routing": _routing(packer, room, layer.routing),
        "pool": None if layer.pool is None else packer.whole(np.where(layer.pool < 0, NOBODY, layer.pool)),
        "lookup": None if layer.lookup is None else _lookup(packer, layer.lookup),
    }


def grouped(values: Array, groups: int) -> Array:
    """The mean over each of so many groups of neighbouring heads. [T, H, ...] -> [T, groups, ...]"""
    length, heads, *rest = values.shape
    mean: Array = values.reshape(length, groups, heads // groups, *rest).mean(axis=2)
    return mean


def _shares(packer: Packer, room: Room, shares: Shares) -> dict[str, Any]:
    """The largest shares of each query, and how much goes to the window, to entries and to the sink.

    Row 0 is the mean over all heads, the others are groups of heads. A key is a number: b is the token b places back,
    w + e entry e, where w is the length of the window axis, "window".
    """
    window = shares.window.shape[2]
    every = np.concatenate([shares.window, shares.entries], axis=2)  # [T, H, w + K]
    numbers = np.where(shares.numbers < 0, NOBODY, window + shares.numbers)
    back = np.broadcast_to(np.arange(window), (len(every), window))
    keys = np.concatenate([back, numbers], axis=1)  # [T, w + K]
    rows = _with_mean(every, room.groups)
    largest = np.argsort(-rows, axis=2, kind="stable")[:, :, : room.keys]
    largest.sort(axis=2)  # by key, which deflates better
    kept = np.take_along_axis(rows, largest, axis=2)
    named = np.take_along_axis(np.broadcast_to(keys[:, None], rows.shape), largest, axis=2)
    left_out = rows.sum(axis=2) - kept.sum(axis=2)
    sums = np.stack([shares.window.sum(axis=2), shares.entries.sum(axis=2), shares.sink], axis=2)  # [T, H, 3]
    return {
        "window": window,
        "keys": packer.whole(np.where(kept > 0, named, NOBODY)),
        "shares": packer.root(kept, room.bits),
        "sums": packer.linear(_with_mean(sums, room.sums), room.bits),
        "left_out": [float(left_out.max(initial=0)), float(left_out.mean())],
        "by_distance": packer.root(grouped(shares.window, room.groups).mean(axis=0), 16),
    }


def _with_mean(values: Array, groups: int) -> Array:
    """The mean over all heads, then those of groups. [T, H, ...] -> [T, 1 + groups, ...]"""
    return np.concatenate([grouped(values, 1), grouped(values, groups)], axis=1)


def _choice(packer: Packer, room: Room, choice: Choice, ratio: int) -> dict[str, Any]:
    """For each query its best visible entries, the chosen first, and their scores; how many are chosen, and visible.

    "allowed": which of these are in the pool, and how many of the visible ones; None where all may be chosen.
    """
    length, count = choice.scores.shape
    visible = np.minimum((np.arange(length) + 1) // ratio, count)
    is_chosen = np.zeros((length, count + 1), bool)
    np.put_along_axis(is_chosen, choice.chosen, True, axis=1)  # −1 falls into the last column
    seen = np.arange(count) < visible[:, None]
    rank = np.where(is_chosen[:, :count], np.inf, choice.scores.astype(np.float64))
    best = np.lexsort((-choice.scores, np.where(seen, -rank, np.inf)), axis=1)[:, : room.scores]
    kept = np.take_along_axis(seen, best, axis=1)
    return {
        "entries": packer.whole(np.where(kept, best, NOBODY)),
        "scores": packer.linear(np.where(kept, np.take_along_axis(choice.scores, best, axis=1), 0), room.bits),
        "chosen": packer.whole((choice.chosen >= 0).sum(axis=1)),
        "visible": packer.whole(visible),
        "allowed": None if choice.allowed is None else _allowed(packer, choice.allowed, np.where(kept, best, 0), seen),
    }


def _allowed(packer: Packer, allowed: Mask, best: Ints, seen: Mask) -> dict[str, Any]:
    inside = np.take_along_axis(allowed, best, axis=1)
    return {
        "entries": packer.whole(inside.astype(np.int64)),
        "count": packer.whole((allowed & seen).sum(axis=1)),
    }


def _lookup(packer: Packer, lookup: Lookup) -> dict[str, Any]:
    return {"rows": packer.whole(lookup.rows), "gates": packer.root(lookup.gates, 16)}


def _routing(packer: Packer, room: Room, routing: Routing) -> dict[str, Any]:
    """For each token its experts in the model's order, then those with the next best biased scores."""
    biased = routing.scores if routing.bias is None else routing.scores + routing.bias
    others = biased.astype(np.float64)
    np.put_along_axis(others, routing.indices, -np.inf, axis=1)
    rest = room.experts - routing.indices.shape[1]
    best = np.argsort(-others, axis=1, kind="stable")[:, :rest]
    experts = np.concatenate([routing.indices, best], axis=1)
    return {
        "experts": packer.whole(experts),
        "scores": packer.linear(np.take_along_axis(routing.scores, experts, axis=1), room.bits),
        "weights": packer.linear(routing.weights, room.bits),
        "bias": None if routing.bias is None else packer.linear(routing.bias, 16),
    }


def _opinions(packer: Packer, found: Opinions) -> dict[str, Any]:
    return {
        "ids": packer.whole(found.ids),
        "shares": packer.root(found.shares, 16),
        "truth": packer.root(found.truth, 16),
        "rank": packer.whole(found.rank),
    }


def _drafts(packer: Packer, found: Drafts) -> dict[str, Any]:
    return {
        "opinions": _opinions(packer, found.opinions),
        "accepted": packer.whole(found.accepted.astype(np.int64)),
        "chance": packer.root(found.chance, 16),
        "blocks": None if found.blocks is None else packer.whole(found.blocks),
        "confidence": None if found.confidence is None else packer.root(found.confidence, 16),
    }


def _cache(packer: Packer, config: Config | Config41, places: list[Place], length: int) -> dict[str, Any]:
    """The bytes of each layer after 1 … T tokens, as the released model stores them, and of one key.

    "kinds" has them once for all layers that are alike, "of_layer" says which of them is a layer's.
    """
    kinds, of_layer = dict[tuple[int, ...], Ints](), list[int]()
    for layer in range(len(places)):
        rows = np.array([list(cache_parts(config, layer, t + 1).values()) for t in range(length)])
        kinds.setdefault(tuple(rows.ravel().tolist()), rows)
        of_layer.append(list(kinds).index(tuple(rows.ravel().tolist())))
    return {
        "parts": list(cache_parts(config, 0, 0)),
        "kinds": [packer.whole(rows) for rows in kinds.values()],  # [T, parts]
        "of_layer": of_layer,
        "row": key_bytes(config),
    }


def _flat(comb: Array) -> Array:
    """[T, n, n] -> [T, n·n]"""
    return comb.reshape(len(comb), -1)
