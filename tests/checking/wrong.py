"""Functions with the mistakes that ports make, in plain NumPy."""

import numpy as np

from dsv4.ops import Ops, Routing
from dsv4.ops.moe import expert_scores


def attention(queries, window, window_index, entries, entry_index, attn_sink, sink=True, missing=True, scale=0.5):
    """Sparse attention written out; without its sink, or reading −1 as Python does, or with another scale."""
    batch = np.arange(len(queries))[:, None, None]
    index = np.concatenate([window_index, np.where(entry_index >= 0, entry_index + window.shape[1], -1)], axis=2)
    rows = np.concatenate([window, entries, np.zeros_like(window[:, :1])], axis=1)
    kv = rows[batch, index] if missing else rows[:, :-1][batch, index]
    logits = np.einsum("bshc,bskc->bshk", queries, kv) * np.float32(queries.shape[-1] ** -scale)
    if missing:
        logits = np.where(index[:, :, None] >= 0, logits, -np.inf)
    largest = np.maximum(logits.max(axis=-1, initial=-np.inf), attn_sink)[..., None]
    weight = np.exp(logits - largest)
    total = weight.sum(axis=-1, keepdims=True)
    if sink:
        total = total + np.exp(attn_sink[:, None] - largest)
    return np.einsum("bshk,bskc->bshc", weight, kv) / np.maximum(total, np.float32(1e-30))


def right_attention(*arguments):
    return attention(*arguments)


def without_the_sink(*arguments):
    return attention(*arguments, sink=False)


def minus_one_reads_the_last_row(*arguments):
    return attention(*arguments, missing=False)


def scaled_by_the_width(*arguments):
    return attention(*arguments, scale=1.0)


def bias_in_the_weights(logits, bias, k, score_function, scale):
    biased = expert_scores(logits, score_function) + bias
    order = np.argsort(-biased, axis=-1, kind="stable")[:, :k]
    weights = np.take_along_axis(biased, order, axis=-1)
    if score_function != "softmax":
        weights = weights / weights.sum(axis=-1, keepdims=True)
    return Routing((weights * np.float32(scale)).astype(np.float32), order)


def half_precision_sums(x, weight, round_inputs=False):
    return Ops.linear(x.astype(np.float16), weight, round_inputs).astype(np.float32)


def relu_after_the_weight(queries, keys, weights):
    products = np.einsum("bshd,btd->bsht", queries, keys)
    return np.maximum(weights[..., None] * products, 0).sum(axis=2)


def largest_number_first_among_equals(scores, visible, k):
    """The ties the other way round."""
    entries = scores.shape[-1]
    turned = np.where(np.arange(entries) < visible[..., None], scores, -np.inf)[..., ::-1]
    order = entries - 1 - np.argsort(-turned, axis=-1, kind="stable")[..., :k]
    return np.where(order < visible[..., None], order, -1)


def comb_as_it_stands(streams, output, post, comb):
    return post[..., None] * output[..., None, :] + comb @ streams


def one_round_too_few(streams, fn, base, scale, iterations, eps, norm_eps):
    return Ops.mhc_weights(streams, fn, base, scale, max(iterations - 1, 1), eps, norm_eps)


def halves_for_pairs(x, positions, frequencies):
    """Channel i with i + r/2, as other models rotate."""
    r = 2 * len(frequencies)
    order = np.arange(r).reshape(2, -1).T.reshape(-1)
    turned = x.copy()
    turned[..., -r:] = x[..., -r:][..., order]
    turned = Ops.rope(turned, positions, frequencies)
    result = turned.copy()
    result[..., -r:] = turned[..., -r:][..., np.argsort(order)]
    return result


def ties_away_from_zero(x, block=32):
    """FP4 by adding a little before rounding."""
    return Ops.fake_quant_fp4(x * np.float32(1 + 2**-20), block)


def batch_statistics(x, eps):
    """The mean square of the whole batch."""
    return x / np.sqrt(np.mean(x * x, keepdims=True) + np.float32(eps))


def clamp_forgotten(x, share, matrices, limit, round_inputs):
    return Ops.expert(x, share, matrices, 1e9, round_inputs)


def two_of_three(*arguments):
    """pre and post without comb."""
    return tuple(Ops.mhc_weights(*arguments))[:2]
