"""What one pass of a model over a text leaves to be looked at, as NumPy arrays."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from dsv4.errors import PromptError
from dsv4.explain.layers import LayerRecord, Layers, size
from dsv4.explain.layers41 import Layers41
from dsv4.explain.opinions import Drafts, Opinions, drafts, opinions
from dsv4.model.language_model import LanguageModel
from dsv4.model.model import Model
from dsv4.model41.model import Model41
from dsv4.ops.types import Array, Ints

MOST_TOKENS = 4096
"""A page of more would be too slow to look at."""


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
    """None where nothing drafts, and for a text of one token."""


def record(model: LanguageModel, ids: Sequence[int] | Ints) -> Record:
    """Run the model over a text and keep what its observer sees, on the host.

    ids [T]: the token ids of one text. Raises PromptError as the model does, and for more than MOST_TOKENS tokens.
    """
    tokens = np.asarray(ids)
    if len(tokens) > MOST_TOKENS:
        raise PromptError(f"text: expected at most {MOST_TOKENS} tokens on a page, found {len(tokens)}")
    seen: dict[str, Any] = {}
    layers: list[LayerRecord] = []
    heard: list[Opinions] = []
    maker = _maker(model)

    def observe(name: str, result: Any) -> None:
        seen[name] = model.ops.to_numpy(result)
        if name == f"layers.{len(layers)}.out":
            layers.append(maker.record(len(layers), seen))
            heard.append(opinions(model, maker.before_head(result), tokens))
            seen.clear()  # one layer's arrays at a time

    cache = model.new_cache(max_rollback=len(tokens)) if model.dspark else None  # for what is drafted on the way
    states = model.states(tokens, cache, observe=observe)
    first = model.first_streams(tokens[None])
    return Record(
        tokens,
        size(model.ops.to_numpy(first)[0, :, 0]),
        layers,
        [opinions(model, _maker(model).before_head(first), tokens), *heard],
        maker.head_pre(states),
        drafts(model, states, tokens, cache),
    )


def _maker(model: LanguageModel) -> Layers | Layers41:
    if isinstance(model, Model41):
        return Layers41(model)
    assert isinstance(model, Model)
    return Layers(model)
