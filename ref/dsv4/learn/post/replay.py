"""Training on rollouts as they were made: the same experts, the same entries, the same tokens to draw from.

An expert that the sampler's model took and the trained one would not take now makes the two policies differ by more
than the weights do, and what is learned from the ratio is noise (V3.2's report §3.1, "keep routing"; for the indexer's
choice other trainers do the same).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from dsv4.config import Config
from dsv4.learn.anticipatory import routed_by
from dsv4.learn.post.recording import CHOSEN
from dsv4.learn.post.rollout_log import Rollout
from dsv4.model.cache import CompressorCache
from dsv4.model.indexer import Indexer
from dsv4.model.model import Model
from dsv4.model.observe import Observer, ignore
from dsv4.model.span import Span
from dsv4.ops.types import Array, Ints, Mask


class Replay(NamedTuple):
    """Rollouts as a batch to train on: rows of prompt and answer, without the last token, which predicts nothing."""

    ids: Ints
    """[B, S]; 0 at padding."""
    mask: Mask
    """[B, S] true for real tokens, which come first."""
    wanted: Ints
    """[B, S] the token that followed."""
    drawn: Mask
    """[B, S] whether it was drawn, and not a part of the prompt."""
    log_old: Array
    """[B, S] float64: log π_old of it; 0 elsewhere."""
    kept: Mask | None
    """[B, S, vocab]: the tokens to draw from; None where these were all tokens, everywhere."""
    experts: dict[str, Ints]
    """[B·S, k] of each gate."""
    entries: dict[str, Ints]
    """[B, S, index_topk] of each CSA layer."""


def replay_of(rollouts: Sequence[Rollout], config: Config) -> Replay:
    """The batch of some rollouts. Raises ValueError for none."""
    if not rollouts:
        raise ValueError("rollouts: expected at least one, found none")
    lengths = [len(one.prompt) + len(one.answer) - 1 for one in rollouts]
    shape = len(rollouts), max(lengths)
    ids, wanted, log_old = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape)
    drawn = np.zeros(shape, bool)
    for row, (one, length) in enumerate(zip(rollouts, lengths, strict=True)):
        tokens, answer = np.concatenate([one.prompt, one.answer]), slice(len(one.prompt) - 1, length)
        ids[row, :length], wanted[row, :length] = tokens[:-1], tokens[1:]
        drawn[row, answer], log_old[row, answer] = True, one.log_old
    mask = np.arange(shape[1]) < np.array(lengths)[:, None]
    experts = {
        gate: _padded([one.choices.experts[gate] for one in rollouts], shape, 0).reshape(shape[0] * shape[1], -1)
        for gate in rollouts[0].choices.experts
    }
    layers = rollouts[0].choices.entries
    entries = {attn: _padded([one.choices.entries[attn] for one in rollouts], shape, -1) for attn in layers}
    return Replay(ids, mask, wanted, drawn, log_old, _kept(rollouts, drawn, config.vocab_size), experts, entries)


@contextmanager
def replayed(model: Model, replay: Replay) -> Iterator[None]:
    """While it lasts, a pass of the model over the replay's ids and mask chooses what the rollouts' model chose."""
    with routed_by(model, replay.experts), reading(model, replay.entries):
        yield


@contextmanager
def reading(model: Model, entries: Mapping[str, Ints]) -> Iterator[None]:
    """While it lasts, CSA layers read these entries. entries: [B, S, K] by the name of the layer's attention."""
    layers = {block.attn.name: block.attn for block in model.layers}
    before = {name: layers[name].indexer for name in entries}
    try:
        for name, chosen in entries.items():
            layers[name].indexer = GivenIndexer(before[name], chosen)
        yield
    finally:
        for name, own in before.items():
            layers[name].indexer = own


class GivenIndexer(Indexer):
    """An indexer whose choice was made before. Its scores are those of now, so that its own loss can be computed."""

    def __init__(self, indexer: Indexer, chosen: Ints) -> None:
        """indexer: the indexer that this one is; chosen [B, S, K] entry numbers, −1 for none."""
        vars(self).update(vars(indexer))
        self.chosen = chosen

    def __call__(self, projected: Sequence[Array], span: Span, cache: CompressorCache, observe: Observer) -> Ints:
        """As of `Indexer`, but for the choice."""

        def given(name: str, result: Array | Ints) -> None:
            observe(name, self.chosen if name.endswith(CHOSEN) else result)

        super().__call__(projected, span, cache, ignore if observe is ignore else given)
        return self.chosen


def _padded(rows: Sequence[Ints], shape: tuple[int, int], filler: int) -> Ints:
    """[length, k] of each row -> [B, S, k]"""
    return np.stack([np.pad(row, ((0, shape[1] - len(row)), (0, 0)), constant_values=filler) for row in rows])


def _kept(rollouts: Sequence[Rollout], drawn: Mask, vocab: int) -> Mask | None:
    """All tokens where nothing was left out."""
    if all(kept is None for one in rollouts for kept in one.kept):
        return None
    found = np.ones((*drawn.shape, vocab), bool)
    for row, one in enumerate(rollouts):
        for place, kept in zip(np.nonzero(drawn[row])[0], one.kept, strict=True):
            if kept is not None:
                found[row, place] = np.isin(np.arange(vocab), kept)
    return found
