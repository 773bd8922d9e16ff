"""How probable a policy finds the tokens of a rollout: what GRPO compares of two policies."""

import numpy as np

from dsv4.learn.losses.next_token import surprise
from dsv4.ops.types import Array, Ints, Mask


def log_policy(logits: Array, wanted: Ints, temperature: float = 1.0, kept: Mask | None = None) -> Array:
    """log π(token): the log-probabilities of tokens as a sampler draws them, at a temperature and from a nucleus.

    logits [B, S, vocab] float; wanted [B, S] integer; temperature: above 0; kept [B, S, vocab]: the tokens that top-p
    left to be drawn from, the wanted one among them wherever the result counts, None for all. Returns [B, S] of the
    logits' dtype: log of the wanted token's share of the kept ones.
    Source: V3.2's report (2512.02556) §3.1, "keep sampling mask": a policy that is trained over more tokens than it
    was sampled from is another one, and π_θ/π_old would compare what cannot be compared.
    """
    scaled = logits / logits.dtype.type(temperature)
    if kept is not None:
        scaled = np.where(kept, scaled, -np.inf).astype(logits.dtype)
    found: Array = -surprise(scaled, wanted)
    return found
