"""Scores of one query of the indexer: its heads stand in the lanes of vectors, and the keys go by channel by channel.

A product of a head and a key is summed over the channels in turn, and a score over vectors of heads in turn and then
across lanes, so that its bits depend neither on the other keys of a tile nor on where the tile begins.
"""

import numpy as np

from dsv4_accel.numba.compile import inlined
from dsv4_accel.numba.memory import load, prefetch
from dsv4_accel.numba.products import aligned_floats
from dsv4_accel.numba.vectors import LANES, floats, fma, lane_sum, maximum, splat, words

TILE = 6
"""Keys that are multiplied together: with four vectors of heads, 24 sums at once, which fill the registers."""

ALL_BITS = np.uint32(0xFFFFFFFF)

EXTRA_ROWS = 2
"""Rows of a spread query behind those of its channels."""


@inlined
def spread(query, weights):
    """A query turned round: a row of heads, up to whole vectors, for each channel; then the weights; a mask of heads.

    query [h, D], weights [h]. Returns [(D + 2)·lanes] float32. What is multiplied in lanes without a head is masked.
    """
    heads, width = query.shape
    lanes = (heads + LANES - 1) // LANES * LANES
    rows = aligned_floats((width + EXTRA_ROWS) * lanes)
    rows[:] = 0
    for head in range(heads):
        for channel in range(width):
            rows[channel * lanes + head] = query[head, channel]
        rows[width * lanes + head] = weights[head]
    rows.view(np.uint32)[(width + 1) * lanes : (width + 1) * lanes + heads] = ALL_BITS
    return rows


@inlined
def score_keys(rows, keys, first, behind, scores):
    """The scores of keys first … behind − 1. rows: a spread query; keys [T, D]; scores [≥ behind]"""
    for key in range(first, behind, TILE):  # no slice of an array is passed on from here: each would be counted
        for place in range((key + TILE) * keys.shape[1], (key + 2 * TILE) * keys.shape[1], LANES):
            prefetch(keys, place)
        six = score_six(rows, keys, key, behind - 1)
        for i in range(min(TILE, behind - key)):
            scores[key + i] = six[i]


@inlined
def score_six(rows, keys, key, last):
    """The scores of six keys from `key` on; behind the last one it is taken again."""
    k0, k1, k2 = keys[key], keys[min(key + 1, last)], keys[min(key + 2, last)]
    k3, k4, k5 = keys[min(key + 3, last)], keys[min(key + 4, last)], keys[min(key + 5, last)]
    lanes = rows.size // (k0.size + EXTRA_ROWS)
    t0 = t1 = t2 = t3 = t4 = t5 = splat(np.float32(0))
    whole = lanes - lanes % (4 * LANES)
    for head in range(0, whole, 4 * LANES):
        a = b = c = d = e = f = _four_zeros()
        for channel in range(k0.size):
            heads = _load_four(rows, channel * lanes + head)
            a = _multiply_four(k0[channel], heads, a)
            b = _multiply_four(k1[channel], heads, b)
            c = _multiply_four(k2[channel], heads, c)
            d = _multiply_four(k3[channel], heads, d)
            e = _multiply_four(k4[channel], heads, e)
            f = _multiply_four(k5[channel], heads, f)
        place = k0.size * lanes + head
        t0, t1 = weigh_four(rows, place, lanes, a, t0), weigh_four(rows, place, lanes, b, t1)
        t2, t3 = weigh_four(rows, place, lanes, c, t2), weigh_four(rows, place, lanes, d, t3)
        t4, t5 = weigh_four(rows, place, lanes, e, t4), weigh_four(rows, place, lanes, f, t5)
    for head in range(whole, lanes, LANES):
        p0 = p1 = p2 = p3 = p4 = p5 = splat(np.float32(0))
        for channel in range(k0.size):
            heads = load(rows, channel * lanes + head)
            p0, p1 = fma(splat(k0[channel]), heads, p0), fma(splat(k1[channel]), heads, p1)
            p2, p3 = fma(splat(k2[channel]), heads, p2), fma(splat(k3[channel]), heads, p3)
            p4, p5 = fma(splat(k4[channel]), heads, p4), fma(splat(k5[channel]), heads, p5)
        place = k0.size * lanes + head
        t0, t1 = weigh(rows, place, lanes, p0, t0), weigh(rows, place, lanes, p1, t1)
        t2, t3 = weigh(rows, place, lanes, p2, t2), weigh(rows, place, lanes, p3, t3)
        t4, t5 = weigh(rows, place, lanes, p4, t4), weigh(rows, place, lanes, p5, t5)
    return lane_sum(t0), lane_sum(t1), lane_sum(t2), lane_sum(t3), lane_sum(t4), lane_sum(t5)


@inlined
def _four_zeros():
    zero = splat(np.float32(0))
    return zero, zero, zero, zero


@inlined
def _load_four(rows, place):
    return (
        load(rows, place),
        load(rows, place + LANES),
        load(rows, place + 2 * LANES),
        load(rows, place + 3 * LANES),
    )


@inlined
def _multiply_four(number, heads, products):
    number = splat(number)
    return (
        fma(number, heads[0], products[0]),
        fma(number, heads[1], products[1]),
        fma(number, heads[2], products[2]),
        fma(number, heads[3], products[3]),
    )


@inlined
def weigh_four(rows, place, lanes, products, total):
    """As `weigh`, for four vectors of heads in turn."""
    total = weigh(rows, place, lanes, products[0], total)
    total = weigh(rows, place + LANES, lanes, products[1], total)
    total = weigh(rows, place + 2 * LANES, lanes, products[2], total)
    return weigh(rows, place + 3 * LANES, lanes, products[3], total)


@inlined
def weigh(rows, place, lanes, products, total):
    """total + weight · ReLU(product) for 16 heads; nothing, not even infinity times 0, in lanes without a head."""
    zero = splat(np.float32(0))
    positive = words(maximum(zero, products)) & words(load(rows, place + lanes))  # a NaN stays
    return fma(floats(positive), load(rows, place), total)
