"""On-policy distillation: a student learns from its teachers what to say next in its own answers (report §5.1.2)."""

import numpy as np

from dsv4.ops.elementwise import log_softmax
from dsv4.ops.types import Array, Mask


def opd(logits: Array, teacher_logits: Array, drawn: Mask) -> Array:
    """1/B Σ_i 1/|o_i| Σ_t KL(π_θ ‖ π_E) over the whole vocabulary, for answers that the student drew.

    logits [B, S, vocab] of the student, a Tensor; teacher_logits [B, S, vocab] of the teacher for the same tokens, a
    plain array; drawn [B, S]: true where a token of the answer was drawn from these logits, at least one in each row.
    Returns one number; with several teachers E_i, the sum over them of w_i times this is the loss.
    Source: report §5.1.2, equation 29. Not in the report: the gradient goes through the divergence alone, not through
    the choice of the tokens; and the mean over an answer's tokens.
    """
    kl = np.where(drawn, full_kl(logits, teacher_logits), 0).sum(axis=1) / drawn.sum(axis=1).astype(logits.dtype)
    mean: Array = kl.sum() / logits.dtype.type(len(drawn))
    return mean


def opd_covering(logits: Array, teacher_logits: Array, drawn: Mask) -> Array:
    """1/B Σ_i 1/|o_i| Σ_t KL(π_E ‖ π_θ): the divergence the other way, with the teacher in front.

    Arguments and result as of `opd`. So the student learns to be able to say all that the teacher would, rather than to
    leave out what it would not. Not in the report, whose equation 29 is `opd`: a comparison.
    """
    kl = np.where(drawn, full_kl(teacher_logits, logits), 0).sum(axis=1) / drawn.sum(axis=1).astype(logits.dtype)
    mean: Array = kl.sum() / logits.dtype.type(len(drawn))
    return mean


def full_kl(logits: Array, teacher_logits: Array) -> Array:
    """KL(π_θ ‖ π_E) = Σ_v π_θ(v) · (log π_θ(v) − log π_E(v)), in nats. [..., vocab] and [..., vocab] -> [...].

    In this direction the student learns to leave out what the teacher would not say. Source: report equation 29.
    """
    log_student = log_softmax(logits)
    kl: Array = (np.exp(log_student) * (log_student - log_softmax(teacher_logits))).sum(axis=-1)
    return kl
