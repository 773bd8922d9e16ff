"""What a pass of a V4.1 model leaves of each layer: as of V4, but much of it comes from the layers before."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from dsv4.explain.layers import PARTS, Choice, LayerRecord, Lookup, routing_of, shares_of, size
from dsv4.model41.block import first_pre
from dsv4.model41.model import Model41
from dsv4.ops.compressor import slot_shares
from dsv4.ops.engram import engram_gates
from dsv4.ops.mhc import MhcWeights
from dsv4.ops.types import Array, Ints, Mask


class Layers41:
    """Makes the records of a V4.1 model's layers, one after the other."""

    def __init__(self, model: Model41) -> None:
        self.model = model
        self.pre: Array | None = None
        """[T, n]: what the next sub-layer reads with."""
        self.entries: Array | None = None
        """[1, N, c] of the latest source."""
        self.chosen: Ints | None = None
        """[1, T, K] of the latest layer that chooses."""
        self.pool: Ints | None = None
        """[T, P]: the blocks of the latest pool."""

    def record(self, number: int, seen: Mapping[str, Any]) -> LayerRecord:
        """As of `Layers`."""
        name, model = f"layers.{number}.", self.model
        attn = model.layers[number].attn
        read = self._read_with(seen[f"{name}out"]), seen[f"{name}attn_pre_mix"][0]
        self.pre = seen[f"{name}pre_mix"][0]
        mixing = [
            MhcWeights(pre, seen[f"{name}hc_{part}.post"][0], seen[f"{name}hc_{part}.comb"][0])
            for pre, part in zip(read, PARTS, strict=True)
        ]
        choice = self._choice(number, seen, f"{name}attn.indexer.")
        entries, numbers = self._read(attn, seen)
        return LayerRecord(
            mixing=(mixing[0], mixing[1]),
            sizes=np.stack([size(seen[f"{name}hc_attn.out"][0]), size(seen[f"{name}out"][0])]),
            answers=np.stack([size(seen[f"{name}{part}.out"][0]) for part in PARTS]),
            heads=size(seen[f"{name}attn.o"][0]),
            shares=shares_of(model, attn, seen, entries, numbers),
            slots=_slots(seen, f"{name}attn.compressor."),
            choice=choice,
            routing=routing_of(model, f"{name}ffn.", model.layers[number].ffn.gate_bias, seen),
            pool=self.pool if model.config.is_candidate_source(number) else None,
            lookup=self._lookup(number, seen),
        )

    def before_head(self, streams: Array) -> Array:
        """As of `Layers`: the streams are read with the share that the last sub-layer has made."""
        ops = self.model.ops
        pre = first_pre(ops, streams) if self.pre is None else ops.asarray(self.pre[None])
        return ops.mhc_collapse(streams, pre)

    def head_pre(self, states: Array) -> Array:
        """As of `Layers`."""
        assert self.pre is not None
        return self.pre

    def _read_with(self, streams: Array) -> Array:
        """[T, n]: what the first sub-layer of a layer reads with."""
        if self.pre is not None:
            return self.pre
        first: Array = self.model.ops.to_numpy(first_pre(self.model.ops, streams))[0]
        return first

    def _choice(self, number: int, seen: Mapping[str, Any], indexer: str) -> Choice | None:
        """Note what is chosen here, and what pool is made."""
        if f"{indexer}topk" not in seen:
            return None
        config, pool = self.model.config, self.pool
        self.chosen = seen[f"{indexer}topk"]
        self.pool = seen[f"{indexer}candidates"][0] if f"{indexer}candidates" in seen else pool
        scores = seen[f"{indexer}scores"][0]
        if not scores.size:
            return None
        allowed = None
        if config.has_candidates(number) and pool is not None:
            allowed = _in_pool(pool, scores.shape[1], config.candidate_block_size)
        return Choice(scores, seen[f"{indexer}topk"][0], allowed)

    def _read(self, attn: Any, seen: Mapping[str, Any]) -> tuple[Array, Ints]:
        """The entries of the latest source [1, N, c], and which of them each token reads [1, T, K]."""
        none = seen[f"{attn.name}kv"][:, :0]
        if not attn.ratio:
            return none, np.zeros((*seen[f"{attn.name}kv"].shape[:2], 0), np.int64)
        if attn.source:
            self.entries = seen.get(f"{attn.name}compressor.out", none)
        assert self.entries is not None and self.chosen is not None
        return self.entries, self.chosen

    def _lookup(self, number: int, seen: Mapping[str, Any]) -> Lookup | None:
        engram, host = self.model.layers[number].engram, self.model.ops.to_numpy
        if engram is None:
            return None
        streams, kv = seen[f"{engram.name}in"], seen[f"{engram.name}kv"]
        gates = engram_gates(streams, kv, host(engram.q_weight), host(engram.k_weight), engram.eps)
        return Lookup(seen[f"{engram.name}hash_ids"][0], gates[0])


def _slots(seen: Mapping[str, Any], compressor: str) -> Array | None:
    """How much each token of a block counts in its entry, the mean over the channels: [N, ρ]; None without entries."""
    if f"{compressor}out" not in seen:
        return None
    if f"{compressor}score" not in seen:
        return np.ones((seen[f"{compressor}out"].shape[1], 1))  # a token by itself
    mean: Array = slot_shares(seen[f"{compressor}score"])[0].mean(axis=-1)
    return mean


def _in_pool(pool: Ints, entries: int, size_of_block: int) -> Mask:
    """[T, N] whether an entry is in one of a token's blocks [T, P]."""
    blocks = np.arange(entries) // size_of_block
    inside: Mask = (pool[:, :, None] == blocks).any(axis=1)
    return inside
