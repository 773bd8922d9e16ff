"""How likely a model finds a text: nats per token in windows, each from a fresh start."""

import numpy as np
import numpy.typing as npt

from dsv4.arguments import integer
from dsv4.learn.evaluation.windows import windows
from dsv4.learn.losses.next_token import surprise
from dsv4.model.model import Model
from dsv4.ops.types import Array, Ints


def nats_per_token(model: Model, ids: npt.ArrayLike, window: int = 512, batch: int = 8) -> float:
    """Mean negative log-likelihood, in nats per token, over consecutive windows of a text.

    ids [n] token ids, without begin token; window w: window j predicts the tokens j·w + 1 … j·w + w from the tokens
    j·w … j·w + w − 1, and a tail that fills no window is left out; batch: how many windows go through the model at
    once, which changes nothing but memory. Its exponential is the perplexity. Raises TextError for a text shorter
    than a window. Not in the report: it is what the model card of the bundled model states.
    """
    window, batch = integer("window", window, least=1), integer("batch", batch, least=1)
    text = windows(ids, window + 1, step=window)
    found = [_surprise(model, some) for some in np.split(text, range(batch, len(text), batch))]
    return float(np.concatenate(found).mean())


def _surprise(model: Model, tokens: Ints) -> Array:
    """Of each token but the first, in float64: tokens [B, w + 1] -> [B, w]"""
    logits = model.ops.to_numpy(model(tokens[:, :-1]))
    return surprise(logits.astype(np.float64), tokens[:, 1:])
