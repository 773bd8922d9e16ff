"""Which token stands where how many places on, within each sequence of a batch."""

from typing import NamedTuple

import numpy as np

from dsv4.ops.types import Ints, Mask


class Labels(NamedTuple):
    """The tokens that a batch's positions are to predict."""

    ids: Ints
    """[B, S]; 0 where there is none."""
    exist: Mask
    """[B, S] whether there is one."""


def labels(ids: Ints, mask: Mask | None, ahead: int) -> Labels:
    """The token `ahead` places behind each token of the same sequence.

    ids [B, S] integer; mask [B, S] true where a token is real, wherever padding stands, None for no padding; ahead ≥ 1.
    Padding predicts nothing and is predicted by nothing; nor is the next sequence by the one before.
    """
    real = np.ones(ids.shape, bool) if mask is None else mask
    order = np.argsort(~real, axis=1, kind="stable")  # real tokens first
    places = np.minimum(np.arange(ids.shape[1]) + ahead, ids.shape[1] - 1)
    found = np.take_along_axis(ids, order, axis=1)[:, places]
    exist = np.arange(ids.shape[1]) + ahead < real.sum(axis=1, keepdims=True)
    back = np.argsort(order, axis=1)
    found, exist = (np.take_along_axis(array, back, axis=1) for array in (np.where(exist, found, 0), exist))
    return Labels(found, exist)


def count_predicted(ids: Ints, mask: Mask | None = None) -> int:
    """T: how many tokens of a batch have a token before them in their sequence, and so are predicted.

    ids and mask as for `labels`. A loss of a part of a batch counts with the part's share of this number.
    """
    return int(labels(ids, mask, 1).exist.sum())
