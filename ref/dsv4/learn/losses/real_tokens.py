"""Which of the tokens that a layer reported are real."""

import numpy as np

from dsv4.ops.types import Mask


def real_tokens(mask: Mask, part: str, length: int) -> Mask:
    """Which tokens of what a layer reports are real. Returns [B, length].

    mask [B, S]: true for real tokens, as the model's pass took it, wherever its padding stands; inside, each row's real
    tokens come first. part: the name of the layer or of a part of it; length: how many tokens its rows have. The MTP
    module, "mtp.0.…", sees a real token less than the model: behind the last one there is none to be read.
    """
    counts = mask.sum(axis=1) - part.startswith("mtp.")
    real: Mask = np.arange(length) < counts[:, None]
    return real
