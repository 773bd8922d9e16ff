"""DSpark: three small layers draft a block of tokens at once, and two heads make it a guess (arXiv 2607.05147).

The stages read what the main model's last layers hold of each token, and keep one key of it in a ring each. A draft
then puts one block through them: the given token, and noise at the places of the tokens that are to be guessed.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from dsv4.model.block import Block, Head
from dsv4.model.cache import CompressorCache
from dsv4.model.observe import Observer, ignore
from dsv4.model.part import Part
from dsv4.model.rows import RecentRows
from dsv4.model.span import Span
from dsv4.ops import Ops
from dsv4.ops.types import Array, Ints

Pick = Callable[[Array], Ints]
"""Chooses a token for each sequence from its logits: [B, vocab] -> [B], where the logits are."""


class DraftBlock(NamedTuple):
    """A block of γ places behind each given token, before the tokens of the places depend on each other."""

    base: Array
    """[B, γ, vocab] logits; those of place i are for the token behind the one at place i."""
    hidden: Array
    """[B, γ, d] the collapsed state of each place, not normalised."""


class Draft(NamedTuple):
    """The tokens that a block guesses."""

    ids: Ints
    """[B, γ]"""
    logits: Array
    """[B, γ, vocab] what each was picked from, the Markov head's part included."""
    confidence: Array
    """[B, γ] how far to trust each token, as a logit: σ of it is the chance that the main model takes the token, if it
    took those before."""


class BlockDrafter(ABC):
    """What a drafter of V4 and one of V4.1 have in common: all but the stages, and how a block leaves the last one."""

    ops: Ops
    config: Any
    rounding: Any
    settings: Any
    """Those of the drafter: its block_size and noise_token_id."""
    stages: Sequence[Any]
    main_proj: Any
    main_norm: Array
    markov_head: "MarkovHead"
    confidence_head: "ConfidenceHead"

    def main_hidden(self, tapped: Sequence[Array]) -> Array:
        """What the stages read of the main model: the mean stream of each target layer, side by side.

        tapped: the streams [B, S, n, d] of each layer of target_layer_ids, in the layers' order -> [B, S, M·d]. In V4
        these are those behind the layer, in V4.1 those on entry, behind its Engram.
        """
        return np.concatenate([streams.mean(axis=2) for streams in tapped], axis=-1)

    def read(self, main_hidden: Array, span: Span, rings: Sequence[Any], observe: Observer) -> None:
        """Put the span's tokens into the ring of each stage: main_hidden [B, S, M·d] of the main model.

        No stage is run: its key is made from the projected main model's state as it is, without the stage's
        hyper-connection and its norm.
        """
        main_x = self.rounding.linear(main_hidden, self.main_proj)
        main_x = self.ops.rms_norm(main_x, self.main_norm, self.config.rms_norm_eps)  # [B, S, d]
        observe("mtp.0.main_x", main_x)
        for stage, ring in zip(self.stages, rings, strict=True):
            ring.window.extend(stage.attn.keys(main_x, span.positions), span)

    def draft(self, block: DraftBlock, given: Ints, pick: Pick) -> Draft:
        """Choose a block's tokens one after another, since each depends on the one before it. given [B], placed."""
        ids, logits, confidence, previous = [], [], [], given
        for place in range(self.settings.block_size):
            embedded = self.markov_head.embed(previous).astype(block.base.dtype)  # [B, R]
            logits.append(block.base[:, place] + self.markov_head.bias(embedded))
            confidence.append(self.confidence_head(block.hidden[:, place], embedded))
            previous = pick(logits[-1])
            ids.append(previous)
        return Draft(np.stack(ids, axis=1), np.stack(logits, axis=1), np.stack(confidence, axis=1))

    @abstractmethod
    def block(self, given: Ints, lengths: Ints, rings: Sequence[Any], observe: Observer = ignore) -> DraftBlock:
        """Put a block through the stages. given [B]: the token behind the `lengths` [B] that the rings have seen."""


class DSpark(BlockDrafter):
    """The drafter of the releases of July and August 2026, in place of their MTP layer.

    Source: DSpark, arXiv 2607.05147; code: DSparkBlock.
    """

    def __init__(self, part: Part, first_streams: Callable[[Ints], Array], head: Array) -> None:
        """part: the whole model; first_streams: from ids to the streams that a first layer takes, which a stage shares
        with the model, as it does the table of the head."""
        config, self.ops, self.rounding = part.config, part.ops, part.rounding
        assert config.dspark is not None
        self.config, self.settings, self.first_streams = config, config.dspark, first_streams
        names = [f"mtp.{stage}." for stage in range(config.draft_layers)]
        first, last = part.under(names[0]), part.under(names[-1])
        self.main_proj = first["main_proj.weight"]
        self.main_norm = first["main_norm.weight"]
        self.stages = [Block(part.under(name), ratio=0, by_id=False) for name in names]
        self.head = Head(last, head)
        self.markov_head = MarkovHead(
            self.ops, last["markov_head.markov_w1.weight"], last["markov_head.markov_w2.weight"]
        )
        self.confidence_head = ConfidenceHead(self.ops, last["confidence_head.proj.weight"])

    def block(self, given: Ints, lengths: Ints, rings: Sequence[Any], observe: Observer = ignore) -> DraftBlock:
        """Put a block through the stages. given [B]: the token behind the `lengths` [B] that the rings have seen."""
        ops, places = self.ops, self.settings.block_size
        noise = np.full((len(given), places - 1), self.settings.noise_token_id, np.int64)
        ids = ops.asarray(np.concatenate([given[:, None], noise], axis=1))
        span = BlockSpan(lengths, np.full(len(given), places), places, ops.asarray)
        streams = self.first_streams(ids)  # [B, γ, n, d]
        for stage, ring in zip(self.stages, rings, strict=True):
            streams = stage(streams, ids, span, BlockState(BlockWindow(ring.window)), observe)
        hidden = self.head.collapse(streams)
        normalised = ops.rms_norm(hidden, self.head.norm, self.config.rms_norm_eps)
        return DraftBlock(ops.linear(normalised, self.head.head), hidden)


class MarkovHead:
    """What a token says about the next one by itself: a bigram table of low rank."""

    def __init__(self, ops: Ops, w1: Array, w2: Array) -> None:
        """w1, w2 [vocab, R]"""
        self.ops, self.w1, self.w2 = ops, w1, w2

    def embed(self, ids: Ints) -> Array:
        """ids [B] -> [B, R]"""
        return self.ops.embedding(ids, self.w1)

    def bias(self, embedded: Array) -> Array:
        """[B, R] -> [B, vocab], which is added to the logits of the next token."""
        return self.ops.linear(embedded, self.w2)


class ConfidenceHead:
    """How likely the main model is to take the token of a place."""

    def __init__(self, ops: Ops, proj: Array) -> None:
        """proj [1, d + R]"""
        self.ops, self.proj = ops, proj

    def __call__(self, hidden: Array, embedded: Array) -> Array:
        """hidden [B, d] of the place, embedded [B, R] of the token before it -> [B], a logit"""
        return self.ops.linear(np.concatenate([hidden, embedded], axis=-1), self.proj)[:, 0]


class BlockSpan(Span):
    """The places of a block: one behind the other in position, but all of them read the same keys."""

    def window_columns(self, window: int) -> Ints:
        """[B, γ, w + γ] where a place finds the ring's rows and the whole block in what `BlockWindow` gives; else −1.

        The ring's w rows stop at the last token that the main model has read; they do not move with the place.
        """
        ring = self.starts[:, None] + np.arange(-window, 0)  # positions
        every_place = np.ones((len(ring), self.length), bool)
        exist = np.concatenate([ring >= 0, every_place], axis=1)  # [B, w + γ]
        columns = np.where(exist, np.arange(exist.shape[1]), -1)
        shared: Ints = self.place(np.repeat(columns[:, None], self.length, axis=1))
        return shared


@dataclass(frozen=True)
class BlockWindow:
    """The ring of a stage and a block's own keys behind it, in the role of a window. The ring stays as it is."""

    ring: RecentRows

    def extend(self, rows: Array, span: Span) -> Array:
        """The ring's rows and the block's [B, γ, c]: [B, w + γ, c]."""
        return np.concatenate([self.ring.newest(span), rows], axis=1)


@dataclass(frozen=True)
class BlockState:
    """What a stage's attention reads for a block: nothing is compressed."""

    window: BlockWindow
    compressor: CompressorCache | None = None
    indexer: CompressorCache | None = None
