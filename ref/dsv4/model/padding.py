"""Batches of sequences of different lengths: padding is moved to the end of each row and back (left or right)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dsv4.errors import PromptError, quoted
from dsv4.ops.types import Array, Ints, Mask


@dataclass(frozen=True)
class Padding:
    """The token ids of a batch with each row's real tokens first, and the way back to where they stood."""

    ids: Ints
    """[B, S] token ids, real ones first; padding is 0."""
    mask: Mask
    """[B, S] true where a token is real, as the caller laid it out."""

    @classmethod
    def of(cls, ids: npt.ArrayLike, mask: npt.ArrayLike | None) -> "Padding":
        """ids [B, S] or [S]; mask of the same shape or None for no padding. Raises PromptError if they do not fit."""
        tokens = _as_array("token ids", ids)
        if tokens.ndim != 2 or tokens.size == 0:
            raise PromptError(f"token ids: expected [batch, length], at least one token, found shape {tokens.shape}")
        if not np.issubdtype(tokens.dtype, np.integer):
            raise PromptError(f"token ids: expected integers, found {tokens.dtype}")
        if mask is None:
            return cls(tokens, np.ones(tokens.shape, bool))
        real = _as_mask(mask)
        if real.shape != tokens.shape:
            raise PromptError(f"mask: expected the shape of the ids, {tokens.shape}, found {real.shape}")
        rows = np.arange(len(tokens))[:, None]
        return cls(np.where(real, tokens, 0)[rows, _real_first(real)], real)

    @property
    def counts(self) -> Ints:
        """[B] how many tokens of each row are real."""
        counts: Ints = self.mask.sum(axis=1)
        return counts

    def arrange(self, array: Array) -> Array:
        """[B, S, ...] as the caller laid it out -> real tokens first."""
        if self.mask.all():
            return array
        return array[np.arange(len(self.mask))[:, None], _real_first(self.mask)]

    def restore(self, array: Array) -> Array:
        """[B, S, ...] with real tokens first -> as the caller laid it out, zeros at padding."""
        if self.mask.all():
            return array
        with_zeros = np.concatenate([array, np.zeros_like(array[:, :1])], axis=1)  # one more place, for the padding
        back = np.where(self.mask, np.argsort(_real_first(self.mask), axis=1), array.shape[1])
        restored: Array = with_zeros[np.arange(len(self.mask))[:, None], back]
        return restored


def check_ids(ids: Ints, vocab_size: int, first_sequence: int = 0) -> None:
    """Raise PromptError for the first of ids [B, S] outside the vocabulary; sequences count from first_sequence."""
    wrong = (ids < 0) | (ids >= vocab_size)
    if wrong.any():
        row, token = np.argwhere(wrong)[0]
        place = f"token {token} of sequence {first_sequence + row}"
        raise PromptError(f"token ids: expected 0 … {vocab_size - 1}, found {ids[row, token]} at {place}")


def _as_array(name: str, values: npt.ArrayLike) -> npt.NDArray[Any]:
    """Token ids or a mask with two axes. Raises PromptError for lists that are not equally long."""
    try:
        return np.atleast_2d(np.asarray(values))
    except (TypeError, ValueError) as error:
        raise PromptError(f"{name}: expected [batch, length], rows of one length, found {error}") from error


def _as_mask(mask: npt.ArrayLike) -> Mask:
    """The mask as truth values. Raises PromptError for others than true and false, or 1 and 0."""
    array = _as_array("mask", mask)
    if array.dtype.kind not in "biuf" or not np.isin(array, (0, 1)).all():
        raise PromptError(f"mask: expected true or 1 at tokens and false or 0 at padding, found {quoted(mask)}")
    return array.astype(bool)


def _real_first(mask: Mask) -> Ints:
    """[B, S] the order that brings each row's real tokens to the front and keeps their sequence."""
    return np.argsort(~mask, axis=1, kind="stable")
