"""Functions that several operations and losses share: of one number, and the logarithm of a softmax."""

import numpy as np

from dsv4.ops.types import Array


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^−x). x: any shape, float. Returns the same shape and dtype; 0 where e^−x is beyond the dtype."""
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x))


def softplus(x: Array) -> Array:
    """log(1 + e^x), without overflow. x: any shape, float. Returns the same shape and dtype."""
    return np.logaddexp(x, x.dtype.type(0))


def log_softmax(logits: Array) -> Array:
    """log softmax over the last axis. logits [..., vocab] float. Returns the same shape and dtype."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    found: Array = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return found
