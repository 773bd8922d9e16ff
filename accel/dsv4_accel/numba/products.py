"""Rows of a weight times tokens, for every format: the loops that all matrix products share.

A weight is a flat array of items (bytes of FP4 or FP8, bfloat16, float32) and a flat array of scale bytes. x holds a
row for each token, filled up with zeros to whole chunks and, for FP4, in the order in which `packed` reads columns.
`numbers` and `scale` say what the items of a chunk stand for; `shape` is what `Layout` describes.

Few tokens go through each weight as it comes from memory. More tokens share the work of decoding it: four rows are
unpacked into a buffer that stays in the fastest cache. Both ways add in the same order, so the bits are the same.
"""

from typing import NamedTuple

import numpy as np

from dsv4_accel.numba.compile import inlined
from dsv4_accel.numba.packed import CHUNK
from dsv4_accel.numba.vectors import LANES, address, fma, lane_sum, load, prefetch, splat, store

ROWS = 4
"""Rows of the weight that are gone through side by side."""

FEW_TOKENS = 3
"""Up to how many tokens each reads the weight by itself."""

MANY_TOKENS = 64
"""Tokens that share one unpacking: their x, and their sums, stay in the second fastest cache."""

DEPTH = 8
"""Chunks of a row that are unpacked at once: with four rows 18 KiB, which leaves room for x."""

PARTS = CHUNK // LANES
UNPACKED = (PARTS + 1) * LANES
"""Floats that an unpacked chunk takes: its numbers, and its scale in every lane."""


class Layout(NamedTuple):
    """Where the items and scales of a weight stand in their flat arrays."""

    rows: int
    chunks: int
    row_items: int
    chunk_items: int
    row_scales: int
    chunk_scales: int
    rows_per_scale: int


@inlined
def layout_of(numbers):
    """The Layout whose fields are these seven numbers."""
    return Layout(numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5], numbers[6])


@inlined
def multiply_rows(numbers, scale, items, scales, layout, first, last, x, tokens, out):
    """out[slot, row] = row of the weight · x[tokens[slot]], for rows first … last − 1.

    x [·, chunks·128], tokens [M] rows of x, out [M, rows]
    """
    if tokens.size <= FEW_TOKENS:
        for slot in range(tokens.size):
            for row in range(first, last, ROWS):
                _four_rows(numbers, scale, items, scales, layout, row, last, x[tokens[slot]], out[slot])
        return
    for slot in range(0, tokens.size, MANY_TOKENS):
        some = slice(slot, slot + MANY_TOKENS)
        _unpacked_rows(numbers, scale, items, scales, layout, first, last, x, tokens[some], out[some])


@inlined
def _four_rows(numbers, scale, items, scales, layout, row, last, x, out):
    row1, row2, row3 = min(row + 1, last - 1), min(row + 2, last - 1), min(row + 3, last - 1)
    item0, item1 = row * layout.row_items, row1 * layout.row_items
    item2, item3 = row2 * layout.row_items, row3 * layout.row_items
    scale0, scale1 = _first_scale(layout, row), _first_scale(layout, row1)
    scale2, scale3 = _first_scale(layout, row2), _first_scale(layout, row3)
    ahead = ROWS * layout.row_items
    sum0 = sum1 = sum2 = sum3 = splat(np.float32(0))
    for chunk in range(layout.chunks):
        item, place, column = chunk * layout.chunk_items, chunk * layout.chunk_scales, chunk * CHUNK
        prefetch(items, item0 + item + ahead)
        prefetch(items, item1 + item + ahead)
        prefetch(items, item2 + item + ahead)
        prefetch(items, item3 + item + ahead)
        sum0 = _step(numbers, scale, items, item0 + item, scales, scale0 + place, x, column, sum0)
        sum1 = _step(numbers, scale, items, item1 + item, scales, scale1 + place, x, column, sum1)
        sum2 = _step(numbers, scale, items, item2 + item, scales, scale2 + place, x, column, sum2)
        sum3 = _step(numbers, scale, items, item3 + item, scales, scale3 + place, x, column, sum3)
    out[row], out[row1] = lane_sum(sum0), lane_sum(sum1)
    out[row2], out[row3] = lane_sum(sum2), lane_sum(sum3)


@inlined
def _step(numbers, scale, items, item, scales, place, x, column, total):
    """total + scale · Σ of a chunk's products, one after the other: this order makes the bits of every result."""
    products = splat(np.float32(0))
    for part in range(PARTS):
        products = fma(numbers(items, item, part), load(x, column + part * LANES), products)
    return fma(products, scale(scales, place), total)


@inlined
def _first_scale(layout, row):
    return row // layout.rows_per_scale * layout.row_scales


@inlined
def _unpacked_rows(numbers, scale, items, scales, layout, first, last, x, tokens, out):
    buffer = aligned_floats(ROWS * DEPTH * UNPACKED)
    sums = aligned_floats(tokens.size * ROWS * LANES)
    for row in range(first, last, ROWS):
        sums[:] = 0
        for chunk in range(0, layout.chunks, DEPTH):
            depth = min(DEPTH, layout.chunks - chunk)
            for beside in range(ROWS):
                line = min(row + beside, last - 1)
                _unpack(numbers, scale, items, scales, layout, line, chunk, depth, buffer, beside)
            for slot in range(0, tokens.size, 2):
                other = min(slot + 1, tokens.size - 1)
                _tile(buffer, depth, x[tokens[slot]], x[tokens[other]], chunk * CHUNK, sums, slot, other)
        for slot in range(tokens.size):
            for beside in range(min(ROWS, last - row)):
                out[slot, row + beside] = lane_sum(load(sums, (slot * ROWS + beside) * LANES))


@inlined
def aligned_floats(count):
    """Room for float32 that begins where a cache line begins, so that no vector lies across two."""
    room = np.empty(count + LANES, np.float32)
    skip = -(address(room) // 4) % LANES
    return room[skip : skip + count]


@inlined
def _unpack(numbers, scale, items, scales, layout, row, chunk, depth, buffer, beside):
    """The numbers and scales of some chunks of one row, as floats."""
    first_scale = _first_scale(layout, row)
    for step in range(depth):
        item = row * layout.row_items + (chunk + step) * layout.chunk_items
        place = (beside * DEPTH + step) * UNPACKED
        for part in range(PARTS):
            store(buffer, place + part * LANES, numbers(items, item, part))
        store(buffer, place + CHUNK, scale(scales, first_scale + (chunk + step) * layout.chunk_scales))


@inlined
def _tile(buffer, depth, x0, x1, column, sums, slot0, slot1):
    """Four unpacked rows times two tokens: each row's numbers are loaded once for both, each token's for all four."""
    here, there = slot0 * ROWS * LANES, slot1 * ROWS * LANES
    a0, a1 = load(sums, here), load(sums, here + LANES)
    a2, a3 = load(sums, here + 2 * LANES), load(sums, here + 3 * LANES)
    b0, b1 = load(sums, there), load(sums, there + LANES)
    b2, b3 = load(sums, there + 2 * LANES), load(sums, there + 3 * LANES)
    for step in range(depth):
        p0 = p1 = p2 = p3 = q0 = q1 = q2 = q3 = splat(np.float32(0))
        row0, row1 = step * UNPACKED, (DEPTH + step) * UNPACKED
        row2, row3 = (2 * DEPTH + step) * UNPACKED, (3 * DEPTH + step) * UNPACKED
        for part in range(0, CHUNK, LANES):
            u, v = load(x0, column + step * CHUNK + part), load(x1, column + step * CHUNK + part)
            w0, w1 = load(buffer, row0 + part), load(buffer, row1 + part)
            w2, w3 = load(buffer, row2 + part), load(buffer, row3 + part)
            p0, p1, p2, p3 = fma(w0, u, p0), fma(w1, u, p1), fma(w2, u, p2), fma(w3, u, p3)
            q0, q1, q2, q3 = fma(w0, v, q0), fma(w1, v, q1), fma(w2, v, q2), fma(w3, v, q3)
        s0, s1 = load(buffer, row0 + CHUNK), load(buffer, row1 + CHUNK)
        s2, s3 = load(buffer, row2 + CHUNK), load(buffer, row3 + CHUNK)
        a0, a1, a2, a3 = fma(p0, s0, a0), fma(p1, s1, a1), fma(p2, s2, a2), fma(p3, s3, a3)
        b0, b1, b2, b3 = fma(q0, s0, b0), fma(q1, s1, b1), fma(q2, s2, b2), fma(q3, s3, b3)
    _keep(a0, a1, a2, a3, sums, here)
    _keep(b0, b1, b2, b3, sums, there)


@inlined
def _keep(sum0, sum1, sum2, sum3, sums, place):
    store(sums, place, sum0)
    store(sums, place + LANES, sum1)
    store(sums, place + 2 * LANES, sum2)
    store(sums, place + 3 * LANES, sum3)
