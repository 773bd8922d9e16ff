"""Who reads what: the weights of one layer's joint softmax in a real forward pass (report §2.3)."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dsv4.config import CSA_RATIO, LAYER_KINDS, LayerKind
from dsv4.errors import ConfigError, PromptError
from dsv4.model.model import Model
from dsv4.ops.types import Array, Ints, Mask

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Shares:
    """How one layer shares out its attention over a text of S tokens with T entries. All shares of a head sum to 1."""

    layer: int
    ratio: int
    """How many tokens further on the next entry is: 0, 4 or 128."""
    window: Float64
    """[S, H, S]: of each token, as far as it is in the query's window."""
    entries: Float64
    """[S, H, T]: of each compressed entry."""
    sink: Float64
    """[S, H]: what the sink takes."""
    in_window: Mask
    """[S, S]: whether a query has this token in its window."""
    visible: Mask
    """[S, T]: whether a query comes after the last token of this entry."""
    chosen: Mask
    """[S, T]: whether it reads the entry: in CSA the indexer chooses among those visible, in HCA all are read."""

    @property
    def kind(self) -> LayerKind:
        """SWA, CSA or HCA."""
        return LAYER_KINDS[self.ratio]


def attention_shares(model: Model, ids: npt.ArrayLike, layer: int) -> Shares:
    """The shares of one layer when a model reads one text.

    ids [S] integer token ids. They are computed again from the queries, keys, entries and choices that the pass
    gives to its observer; results are float64, whatever the model computes in. Raises PromptError for ids that do not
    fit the model. The formula is that of `ops.sparse_attention`.
    """
    ids = np.asarray(ids)
    if ids.ndim != 1:
        raise PromptError(f"ids: expected the tokens of one text, [S], found shape {ids.shape}")
    name = f"layers.{layer}.attn."
    to_numpy = model.ops.to_numpy
    results: dict[str, Array] = {}
    model.states(ids[None], observe=lambda key, result: results.update({key: to_numpy(result)[0]}))
    q, kv = results[f"{name}q"].astype(np.float64), results[f"{name}kv"].astype(np.float64)  # [S, H, c], [S, c]
    length, _, c = q.shape
    ratio = model.config.compress_ratios[layer]
    position = np.arange(length)
    back = position[:, None] - position
    in_window = (back >= 0) & (back < model.config.sliding_window)
    entries = results.get(f"{name}compressor.out", np.zeros((0, c))).astype(np.float64)  # [T, c]
    last = ratio * np.arange(1, len(entries) + 1) - 1  # the last token of each entry
    visible = position[:, None] >= last
    chosen = visible
    if ratio == CSA_RATIO and len(entries):
        chosen = _named(results[f"{name}indexer.topk"].astype(np.int64), len(entries))
    present = np.concatenate([in_window, chosen], axis=1)[:, None]  # [S, 1, S + T]
    logits = np.where(present, q @ np.concatenate([kv, entries]).T * c**-0.5, -np.inf)  # [S, H, S + T]
    sink = np.broadcast_to(to_numpy(model.layers[layer].attn.attn_sink), (length, q.shape[1]))
    weights = _softmax(np.concatenate([logits, sink[..., None].astype(np.float64)], axis=-1))
    window_share, entry_share = weights[..., :length], weights[..., length:-1]
    return Shares(layer, ratio, window_share, entry_share, weights[..., -1], in_window, visible, chosen)


def first_layer(model: Model, kind: LayerKind) -> int:
    """The number of the first layer of a kind. Raises ConfigError where the model has none."""
    config = model.config
    found = (layer for layer in range(config.num_hidden_layers) if config.layer_kind(layer) == kind)
    layer = next(found, None)
    if layer is None:
        raise ConfigError(f"{config.source}: compress_ratios: expected a layer of kind {kind}, found none")
    return layer


def _named(index: Ints, count: int) -> Mask:
    """Which entries each query names. index [S, K], −1 for none -> [S, T]"""
    named = np.zeros((len(index), count + 1), bool)  # −1 names the place behind the last entry
    np.put_along_axis(named, index, True, axis=1)
    return named[:, :count]


def _softmax(logits: Float64) -> Float64:
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    result: Float64 = weights / weights.sum(axis=-1, keepdims=True)
    return result
