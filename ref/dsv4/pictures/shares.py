"""Who reads what: the weights of one layer's joint softmax in a real forward pass (report §2.3)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dsv4.config import CSA_RATIO, LAYER_KINDS, LayerKind
from dsv4.errors import ConfigError, PromptError
from dsv4.learn.losses.indexer import chosen_entries
from dsv4.model.model import Model
from dsv4.ops import attention
from dsv4.ops.types import Mask

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
    fit the model.
    """
    ids = np.asarray(ids)
    if ids.ndim != 1:
        raise PromptError(f"ids: expected the tokens of one text, [S], found shape {ids.shape}")
    name = f"layers.{layer}.attn."
    to_numpy = model.ops.to_numpy
    results: dict[str, Any] = {}
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
        chosen = chosen_entries(results[f"{name}indexer.topk"][None], len(entries))[0]
    window_index, entry_index = (
        np.where(mask, np.arange(mask.shape[1]), -1)[None] for mask in (in_window, chosen)
    )  # [1, S, S], [1, S, T]
    attn_sink = to_numpy(model.layers[layer].attn.attn_sink)
    weights = attention.attention_shares(q[None], kv[None], window_index, entries[None], entry_index, attn_sink)[0]
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
