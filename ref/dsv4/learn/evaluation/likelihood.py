"""How likely a model finds a text: nats per token in windows, each from a fresh start."""

import numpy as np
import numpy.typing as npt

from dsv4.arguments import integer
from dsv4.errors import TextError
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
    text = np.asarray(ids)
    count = (len(text) - 1) // window
    if count < 1:
        raise TextError(f"text: expected at least a window of {window + 1} tokens, found {len(text)}")
    inputs, labels = (text[start : start + count * window].reshape(count, window) for start in (0, 1))
    losses = [
        _losses(model.ops.to_numpy(model(inputs[first : first + batch])), labels[first : first + batch])
        for first in range(0, count, batch)
    ]
    return float(np.concatenate(losses).mean())


def _losses(logits: Array, labels: Ints) -> Array:
    """−log softmax(logits)[label] in float64: logits [B, S, vocab], labels [B, S] -> [B, S]"""
    scores = logits.astype(np.float64)
    largest = scores.max(axis=-1)
    total = largest + np.log(np.exp(scores - largest[..., None]).sum(axis=-1))
    losses: Array = total - np.take_along_axis(scores, labels[..., None], axis=-1)[..., 0]
    return losses
