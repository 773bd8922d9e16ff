"""Supervised fine-tuning: a conversation teaches what the assistant says in it, and nothing else."""

from collections.abc import Iterable

import numpy as np

from dsv4.learn.losses.labels import labels
from dsv4.learn.losses.next_token import total_surprise
from dsv4.ops.types import Array, Ints, Mask
from dsv4.text.chat import Control, Piece
from dsv4.text.chat.templates import ASSISTANT, END, END_THINK, THINK


def sft(logits: Array, ids: Ints, mask: Mask, said: Mask) -> Array:
    """−1/T Σ_t log softmax(logits_t)[id_(t+1)] over the T tokens that the assistant said, in nats.

    logits [B, S, vocab] float; ids [B, S] integer; mask [B, S]: false at padding; said [B, S]: true at the assistant's
    tokens. Each row is a conversation by itself. Returns one number of the logits' dtype. Raises ValueError where the
    assistant said nothing. Source: report §5.1.1 names the stage; the loss on the assistant's tokens alone is usual.
    """
    wanted, learnt = labels(ids, mask, 1), predicts_said(mask, said)
    count = int(learnt.sum())
    if count == 0:
        raise ValueError("sft: expected a token that the assistant said, found none")
    return total_surprise(logits, wanted.ids, learnt) / logits.dtype.type(count)


def predicts_said(mask: Mask, said: Mask) -> Mask:
    """Where a token of the assistant's comes next. mask, said [B, S] as for `sft`. Returns [B, S]."""
    following = labels(said.astype(np.int64), mask, 1)
    learnt: Mask = following.exist & (following.ids == 1)
    return learnt


def assistant_pieces(pieces: Iterable[Piece]) -> list[bool]:
    """Which pieces of a conversation the assistant wrote: from behind its own token to the end token, included.

    The `<think>` or `</think>` right behind the assistant's token is the prompt's last word: it says how much to think.
    pieces: of `dsv4.text.chat.encode_pieces`. Returns a truth value for each. Source: official encoder.
    """
    said, speaks, opens = [], False, False
    for piece in pieces:
        is_opening = opens and piece in (Control(THINK), Control(END_THINK))
        said.append(speaks and not is_opening)
        opens = piece == Control(ASSISTANT)
        speaks = opens or (speaks and piece != Control(END))
    return said
