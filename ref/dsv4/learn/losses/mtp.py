"""The loss of the MTP module, which predicts one token further (report §2.4, §4.2)."""

from dsv4.learn.losses.labels import count_predicted, labels
from dsv4.learn.losses.next_token import total_surprise
from dsv4.ops.types import Array, Ints, Mask


def mtp(logits: Array, ids: Ints, mask: Mask | None = None) -> Array:
    """−1/T Σ_t log softmax(logits_t)[id_(t+2)], in nats.

    logits [B, S, vocab] float, of each position for the one after the next; ids and mask as for `next_token`. T is the
    number of tokens that the main model predicts, as in V3: a sequence has one term less than that. Nothing is
    detached: the gradient goes on into the main model, and into embedding and head. Returns one number of the logits'
    dtype. Raises ValueError where no token is predicted. Source: V3 (arXiv 2412.19437) §2.2, equations 21–25.
    """
    count = count_predicted(ids, mask)
    if count == 0:
        raise ValueError("mtp: expected a sequence of two tokens or more, found none")
    wanted = labels(ids, mask, 2)
    return total_surprise(logits, wanted.ids, wanted.exist) / logits.dtype.type(count)
