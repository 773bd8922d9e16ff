"""How well the indexers of a model choose, on a text: between chance, 0, and the best possible choice, 1."""

from typing import Any

import numpy as np
import numpy.typing as npt

from dsv4.learn.losses.indexer import Capture, captures
from dsv4.model.model import Model


def indexer_standing(model: Model, ids: npt.ArrayLike) -> dict[str, Capture]:
    """What each CSA layer's indexer catches of the attention, by the name of the layer's attention: see `Capture`.

    ids [S] or [B, S] token ids from position 0. Counted are the queries that see more entries than k = index_topk, so
    that there is something to choose: a layer is not there in 4k tokens or fewer. Its attention is that of the layer as
    it runs, on streams that come from the indexers' own choices.
    """
    tokens = np.atleast_2d(np.asarray(ids))
    seen: dict[str, Any] = {}
    model(tokens, observe=lambda name, result: seen.update({name: model.ops.to_numpy(result)}))
    return captures(model, seen, np.ones(tokens.shape, bool))
