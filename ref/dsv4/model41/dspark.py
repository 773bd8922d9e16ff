"""The DSpark drafter of V4.1: as `dsv4.model.dspark`, with stages that are blocks of V4.1."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dsv4.model.dspark import BlockDrafter, BlockSpan, BlockWindow, ConfidenceHead, DraftBlock, MarkovHead
from dsv4.model.observe import Observer, ignore
from dsv4.model41.block import Block41, first_pre
from dsv4.model41.cache import LayerCache41, SourceCache
from dsv4.model41.part import Part41
from dsv4.model41.source import Published
from dsv4.ops.types import Array, Ints


class DSpark41(BlockDrafter):
    """Reads the streams on entry of the target layers, behind their Engram; else as V4's. Source: code: DSparkBlock."""

    def __init__(self, part: Part41, first_streams: Callable[[Ints], Array], head: Array) -> None:
        """As in V4's."""
        config, self.ops, self.rounding = part.config, part.ops, part.rounding
        assert config.dspark is not None
        self.config, self.settings, self.first_streams, self.head = config, config.dspark, first_streams, head
        names = [f"mtp.{stage}." for stage in range(config.draft_layers)]
        first, last = part.under(names[0]), part.under(names[-1])
        self.main_proj = first["main_proj.weight"]
        self.main_norm = first["main_norm.weight"]
        experts = config.dspark.n_routed_experts, config.dspark.num_experts_per_tok
        self.stages = [
            Block41(part.under(name), config.num_hidden_layers + stage, *experts) for stage, name in enumerate(names)
        ]
        self.norm = last["norm.weight"]
        self.markov_head = MarkovHead(self.ops, last["markov_head.embed.weight"], last["markov_head.head.weight"])
        self.confidence_head = ConfidenceHead(self.ops, last["confidence_head.proj.weight"])

    def block(
        self, given: Ints, lengths: Ints, rings: Sequence[LayerCache41], observe: Observer = ignore
    ) -> DraftBlock:
        """As in `BlockDrafter`: the last share collapses the streams, there is no head for it."""
        ops, places = self.ops, self.settings.block_size
        noise = np.full((len(given), places - 1), self.settings.noise_token_id, np.int64)
        ids = ops.asarray(np.concatenate([given[:, None], noise], axis=1))
        span = BlockSpan(lengths, np.full(len(given), places), places, ops.asarray)
        streams = self.first_streams(ids)  # [B, γ, n, d]
        pre = first_pre(ops, streams)
        for stage, ring in zip(self.stages, rings, strict=True):
            state = BlockState41(BlockWindow(ring.window))
            streams, pre = stage(streams, pre, span, state, Published(), observe)
        hidden = ops.mhc_collapse(streams, pre)
        return DraftBlock(ops.linear(ops.rms_norm(hidden, self.norm, self.config.rms_norm_eps), self.head), hidden)


@dataclass(frozen=True)
class BlockState41:
    """What a stage's attention reads for a block: nothing is compressed."""

    window: BlockWindow
    source: SourceCache | None = None
