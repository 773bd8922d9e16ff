"""One block of keys for some heads of one query: its logits, its weights, and its share of the output.

Everything lies in flat arrays of a thread's own. Queries [vectors, c, 16] and weights [vectors, KEYS, 16] have a head
in each lane; keys [KEYS, stride] and sums [heads, stride] have a channel in each lane. Each number is summed over the
channels, or over the keys, one after the other, whatever tile it is computed in.
"""

from typing import NamedTuple

import numpy as np

from dsv4_accel.numba.compile import inlined
from dsv4_accel.numba.exponential import exp
from dsv4_accel.numba.memory import copy, load, load_part, load_repeated, prefetch, store, store_part
from dsv4_accel.numba.products import aligned_floats
from dsv4_accel.numba.vectors import LANES, fma, maximum, splat

KEYS = 64
"""Keys that go through the softmax together: with 512 channels 132 KiB, of which a tile reads 16 KiB."""

COLUMNS = 4 * LANES
"""Channels of a tile of the output; rows are filled up to a multiple of it with zeros."""

TILE_KEYS = 8
"""Keys of a tile of logits."""

TILE_HEADS = 4
"""Heads of a tile of the output."""


class Room(NamedTuple):
    """What a thread needs for some heads of a query; the last three hold a number for each head.

    Tiles may reach behind the last channel, key or head: what stands there mixes with nothing and is never used.
    """

    stride: int
    queries: np.ndarray
    keys: np.ndarray
    weights: np.ndarray
    sums: np.ndarray
    largest: np.ndarray
    total: np.ndarray
    factor: np.ndarray


@inlined
def make_room(vectors, c):
    """Room for `vectors` times 16 heads."""
    # A cache line more than the channels take, so that the rows of a block do not meet in the same places of a cache.
    stride = (c + COLUMNS - 1) // COLUMNS * COLUMNS + LANES
    heads = vectors * LANES
    return Room(
        stride,
        aligned_floats(heads * c),
        aligned_floats(KEYS * stride),
        aligned_floats(heads * KEYS),
        aligned_floats(heads * stride),
        aligned_floats(heads),
        aligned_floats(heads),
        aligned_floats(heads),
    )


@inlined
def begin(room, queries, attn_sink):
    """Take some heads of a query, in lanes, and begin with the sink as the largest logit.

    queries [h, c], attn_sink [h]
    """
    heads, c = queries.shape
    padded = (heads + LANES - 1) // LANES * LANES
    room.queries[: padded * c] = np.float32(0)
    for head in range(heads):
        first = head // LANES * LANES * c + head % LANES
        for channel in range(c):
            room.queries[first + channel * LANES] = queries[head, channel]
    room.largest[:padded] = np.float32(0)
    copy(attn_sink, room.largest)
    room.total[:padded] = np.float32(0)
    room.sums[: heads * room.stride] = np.float32(0)


@inlined
def put_keys(keys, stride, place, rows, named):
    """Copy the named rows into the block, from a place on. rows [N, c] in one piece"""
    c = rows.shape[1]
    whole = c - c % LANES
    for i in range(named.size):
        row, start = named[i] * c, (place + i) * stride
        for channel in range(0, whole, LANES):
            store(keys, start + channel, load(rows, row + channel))
        if whole < c:
            store(keys, start + whole, load_part(rows, row + whole, c - whole))


@inlined
def add_block(room, heads, present, scale, window, entries, of_window, following):
    """Let the first `present` keys of the block take part, and ask for those that follow.

    window, entries [N, c]; following: rows of the next block, of which `of_window` are the window's
    """
    c = window.shape[1]
    vectors = (heads + LANES - 1) // LANES
    for vector in range(0, vectors - vectors % 2, 2):
        for key in range(0, present, TILE_KEYS):
            _multiply_two(room.queries, vector * c * LANES, c, room.keys, key, room.stride, room.weights, vector * KEYS)
    if vectors % 2:
        for key in range(0, present, TILE_KEYS):
            last = vectors - 1
            _multiply_one(room.queries, last * c * LANES, c, room.keys, key, room.stride, room.weights, last * KEYS)
    for vector in range(vectors):
        _weigh(room, vector, present, scale)
    for column in range(0, room.stride - LANES, COLUMNS):
        for head in range(0, heads, TILE_HEADS):
            some = following[head * KEYS // heads : (head + TILE_HEADS) * KEYS // heads]
            _ask_for(window, entries, of_window - head * KEYS // heads, some, column)
            _add_values(room.weights, head, room.keys, room.stride, column, present, room.factor, room.sums)


@inlined
def finish(room, attn_sink, attended):
    """Divide by the sum of all weights, of which the sink's is one. attn_sink [h], attended [h, c]"""
    c = attended.shape[1]
    whole = c - c % LANES
    for head in range(attended.shape[0]):
        weight_of_sink = exp(splat(attn_sink[head]) - load_repeated(room.largest, head))
        inverse = splat(np.float32(1)) / (load_repeated(room.total, head) + weight_of_sink)
        place, row = head * room.stride, attended[head]
        for channel in range(0, whole, LANES):
            store(row, channel, load(room.sums, place + channel) * inverse)
        if whole < c:
            store_part(row, whole, load(room.sums, place + whole) * inverse, c - whole)


@inlined
def _multiply_two(queries, place, c, keys, key, stride, logits, row):
    """The products of eight keys with twice 16 heads. place: of the first 16 heads; row: where their logits begin"""
    k0 = key * stride
    k1, k2, k3, k4 = k0 + stride, k0 + 2 * stride, k0 + 3 * stride, k0 + 4 * stride
    k5, k6, k7 = k0 + 5 * stride, k0 + 6 * stride, k0 + 7 * stride
    other = place + c * LANES
    a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = splat(np.float32(0))
    b0 = b1 = b2 = b3 = b4 = b5 = b6 = b7 = splat(np.float32(0))
    for channel in range(c):
        a, b = load(queries, place + channel * LANES), load(queries, other + channel * LANES)
        n = load_repeated(keys, k0 + channel)
        a0, b0 = fma(n, a, a0), fma(n, b, b0)
        n = load_repeated(keys, k1 + channel)
        a1, b1 = fma(n, a, a1), fma(n, b, b1)
        n = load_repeated(keys, k2 + channel)
        a2, b2 = fma(n, a, a2), fma(n, b, b2)
        n = load_repeated(keys, k3 + channel)
        a3, b3 = fma(n, a, a3), fma(n, b, b3)
        n = load_repeated(keys, k4 + channel)
        a4, b4 = fma(n, a, a4), fma(n, b, b4)
        n = load_repeated(keys, k5 + channel)
        a5, b5 = fma(n, a, a5), fma(n, b, b5)
        n = load_repeated(keys, k6 + channel)
        a6, b6 = fma(n, a, a6), fma(n, b, b6)
        n = load_repeated(keys, k7 + channel)
        a7, b7 = fma(n, a, a7), fma(n, b, b7)
    _put_logits(logits, row + key, a0, a1, a2, a3, a4, a5, a6, a7)
    _put_logits(logits, row + KEYS + key, b0, b1, b2, b3, b4, b5, b6, b7)


@inlined
def _multiply_one(queries, place, c, keys, key, stride, logits, row):
    """The products of eight keys with 16 heads."""
    k0 = key * stride
    k1, k2, k3, k4 = k0 + stride, k0 + 2 * stride, k0 + 3 * stride, k0 + 4 * stride
    k5, k6, k7 = k0 + 5 * stride, k0 + 6 * stride, k0 + 7 * stride
    a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = splat(np.float32(0))
    for channel in range(c):
        a = load(queries, place + channel * LANES)
        a0 = fma(load_repeated(keys, k0 + channel), a, a0)
        a1 = fma(load_repeated(keys, k1 + channel), a, a1)
        a2 = fma(load_repeated(keys, k2 + channel), a, a2)
        a3 = fma(load_repeated(keys, k3 + channel), a, a3)
        a4 = fma(load_repeated(keys, k4 + channel), a, a4)
        a5 = fma(load_repeated(keys, k5 + channel), a, a5)
        a6 = fma(load_repeated(keys, k6 + channel), a, a6)
        a7 = fma(load_repeated(keys, k7 + channel), a, a7)
    _put_logits(logits, row + key, a0, a1, a2, a3, a4, a5, a6, a7)


@inlined
def _put_logits(logits, row, n0, n1, n2, n3, n4, n5, n6, n7):
    place = row * LANES
    store(logits, place, n0)
    store(logits, place + LANES, n1)
    store(logits, place + 2 * LANES, n2)
    store(logits, place + 3 * LANES, n3)
    store(logits, place + 4 * LANES, n4)
    store(logits, place + 5 * LANES, n5)
    store(logits, place + 6 * LANES, n6)
    store(logits, place + 7 * LANES, n7)


@inlined
def _weigh(room, vector, present, scale):
    """From products to weights e^(logit − largest logit so far); how what was summed before must shrink for it."""
    lane, first = vector * LANES, vector * KEYS * LANES
    scales, before = splat(scale), load(room.largest, lane)
    largest = before
    for place in range(first, first + present * LANES, LANES):
        largest = maximum(largest, load(room.weights, place) * scales)
    total = splat(np.float32(0))
    for place in range(first, first + present * LANES, LANES):
        weight = exp(load(room.weights, place) * scales - largest)
        store(room.weights, place, weight)
        total = total + weight
    factor = exp(before - largest)
    store(room.factor, lane, factor)
    store(room.largest, lane, largest)
    store(room.total, lane, fma(load(room.total, lane), factor, total))


@inlined
def _add_values(weights, head, keys, stride, column, present, factor, sums):
    """Σ weight · value for four heads and 64 channels, added to the shrunken sums."""
    s0 = head * stride + column
    s1, s2, s3 = s0 + stride, s0 + 2 * stride, s0 + 3 * stride
    a0, a1, a2, a3 = _shrunken(sums, s0, load_repeated(factor, head))
    b0, b1, b2, b3 = _shrunken(sums, s1, load_repeated(factor, head + 1))
    c0, c1, c2, c3 = _shrunken(sums, s2, load_repeated(factor, head + 2))
    d0, d1, d2, d3 = _shrunken(sums, s3, load_repeated(factor, head + 3))
    first = head // LANES * KEYS * LANES + head % LANES
    for key in range(present):
        value, weight = key * stride + column, first + key * LANES
        v0, v1 = load(keys, value), load(keys, value + LANES)
        v2, v3 = load(keys, value + 2 * LANES), load(keys, value + 3 * LANES)
        w = load_repeated(weights, weight)
        a0, a1, a2, a3 = fma(w, v0, a0), fma(w, v1, a1), fma(w, v2, a2), fma(w, v3, a3)
        w = load_repeated(weights, weight + 1)
        b0, b1, b2, b3 = fma(w, v0, b0), fma(w, v1, b1), fma(w, v2, b2), fma(w, v3, b3)
        w = load_repeated(weights, weight + 2)
        c0, c1, c2, c3 = fma(w, v0, c0), fma(w, v1, c1), fma(w, v2, c2), fma(w, v3, c3)
        w = load_repeated(weights, weight + 3)
        d0, d1, d2, d3 = fma(w, v0, d0), fma(w, v1, d1), fma(w, v2, d2), fma(w, v3, d3)
    _keep(sums, s0, a0, a1, a2, a3)
    _keep(sums, s1, b0, b1, b2, b3)
    _keep(sums, s2, c0, c1, c2, c3)
    _keep(sums, s3, d0, d1, d2, d3)


@inlined
def _ask_for(window, entries, of_window, named, column):
    """Have 64 channels of some rows fetched from memory while a tile is computed. of_window: rows of the window"""
    for i in range(named.size):
        place = named[i] * window.shape[1] + column
        for channel in range(place, place + COLUMNS, LANES):
            if i < of_window:
                prefetch(window, channel)
            else:
                prefetch(entries, channel)


@inlined
def _shrunken(sums, place, factor):
    return (
        load(sums, place) * factor,
        load(sums, place + LANES) * factor,
        load(sums, place + 2 * LANES) * factor,
        load(sums, place + 3 * LANES) * factor,
    )


@inlined
def _keep(sums, place, n0, n1, n2, n3):
    store(sums, place, n0)
    store(sums, place + LANES, n1)
    store(sums, place + 2 * LANES, n2)
    store(sums, place + 3 * LANES, n3)
