"""What a pass of the tiny model reports, for losses and measures that are made of it."""

import numpy as np

import tiny

LAYERS = ["layers.1.attn.", "layers.3.attn."]
"""Those with an indexer."""

IDS = tiny.tokens(31, 2, 26)
REAL = np.ones(IDS.shape, bool)


def trace(model, ids, mask=None):
    """What a pass reports."""
    seen = {}
    model.states(ids, mask=mask, observe=seen.__setitem__)
    return seen
