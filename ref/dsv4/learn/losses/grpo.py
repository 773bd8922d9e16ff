"""Group relative policy optimisation as DeepSeek-V3.2 has it (2512.02556 §3.1): what rewards teach.

Several answers to one question are drawn, and each learns from how much better it did than the others:

    J(θ) = E 1/G Σ_i 1/|o_i| Σ_t [ min(r A, clip(r, 1 − ε, 1 + ε) A) · M − β · KL ]

r = π_θ/π_old of a token, π_old being the sampler's own probability; A the advantage of the answer; M leaves answers out
that are wrong and foreign to π_θ by now; KL keeps π_θ near a reference. `policy` and `divergence` are the two parts of
−J, to be made small. Arrays are [B, S]: a row for each answer, in which `drawn` is true where a token of it was drawn.
"""

import numpy as np

from dsv4.ops.types import Array, Mask


def advantages(rewards: Array) -> Array:
    """A_i = R_i − 1/G Σ_j R_j for the G answers to one question. rewards [G] float. Returns [G].

    Not divided by the standard deviation: that would give questions which are nearly always or nearly never answered
    the same weight as all others. Raises ValueError for a group without an answer. Source: V3.2's report §3.1.
    """
    if not len(rewards):
        raise ValueError("rewards: expected those of a group of answers, found none")
    centred: Array = rewards - rewards.mean()
    return centred


def policy(log_policy: Array, log_old: Array, advantage: Array, drawn: Mask, epsilon: float, delta: float) -> Array:
    """−1/B Σ_i M_i/|o_i| Σ_t min(r A_i, clip(r, 1 − ε, 1 + ε) A_i), with r = π_θ/π_old.

    log_policy, log_old [B, S]: log π_θ and log π_old of each token, anything where none was drawn; advantage A [B];
    drawn [B, S], at least one in each row; epsilon ε; delta: as of `kept_answers`. Returns one number.
    Source: V3.2's report §3.1; R1 (2501.12948) has ε = 10.
    """
    ratio = np.exp(np.where(drawn, log_policy - log_old, 0))
    each = advantage[:, None].astype(ratio.dtype)
    least = np.minimum(ratio * each, np.clip(ratio, 1 - epsilon, 1 + epsilon) * each)
    learnt = drawn & kept_answers(log_policy, log_old, advantage, drawn, delta)[:, None]
    return -_mean_of_answers(np.where(learnt, least, 0), drawn)


def divergence(log_policy: Array, log_old: Array, log_reference: Array, drawn: Mask) -> Array:
    """1/B Σ_i 1/|o_i| Σ_t `unbiased_kl`. Arguments as of `policy`; log_reference [B, S]. Returns one number."""
    kl = unbiased_kl(*(np.where(drawn, one, 0) for one in (log_policy, log_old, log_reference)))
    return _mean_of_answers(np.where(drawn, kl, 0), drawn)


def unbiased_kl(log_policy: Array, log_old: Array, log_reference: Array) -> Array:
    """π_θ/π_old · (π_ref/π_θ − log(π_ref/π_θ) − 1) of each token, whose mean over tokens of π_old is KL(π_θ ‖ π_ref).

    All of one shape, which is that of the result. The gradient goes through the ratio in front, too: only so it is on
    average that of KL(π_θ ‖ π_ref). Source: V3.2's report §3.1, "unbiased KL estimate".
    """
    gap = log_reference - log_policy
    estimate: Array = np.exp(log_policy - log_old) * (np.exp(gap) - gap - 1)
    return estimate


def kept_answers(log_policy: Array, log_old: Array, advantage: Array, drawn: Mask, delta: float) -> Mask:
    """M_i [B]: false for an answer with A_i < 0 that π_θ has left: 1/|o_i| Σ_t log(π_old/π_θ) > δ.

    From what is wrong and would not be said any more there is nothing to learn, and its ratios are wild. It is kept
    where A_i ≥ 0. Arguments as of `policy`. Source: V3.2's report §3.1, "off-policy sequence masking".
    """
    count = drawn.sum(axis=1).astype(log_old.dtype)
    distance = np.where(drawn, log_old - log_policy, 0).sum(axis=1) / count
    kept: Mask = ~((advantage < 0) & (distance > delta))
    return kept


def _mean_of_answers(values: Array, drawn: Mask) -> Array:
    """1/B Σ_i 1/|o_i| Σ_t: values [B, S], 0 where no token was drawn."""
    mean: Array = (values.sum(axis=1) / drawn.sum(axis=1).astype(values.dtype)).sum() / values.dtype.type(len(drawn))
    return mean
