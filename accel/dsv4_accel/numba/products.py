"""Rows of a weight times tokens, for every format: the loops that all matrix products share.

A weight is a flat array of items (bytes of FP4 or FP8, bfloat16, float32) and a flat array of scale bytes. x holds a
row for each token, filled up with zeros to whole chunks and, for FP4, in the order in which `packed` reads columns;
where FP4 is read in pairs, x is made of pairs too.

Few tokens go through each weight as it comes from memory. More tokens share the work of decoding it: four rows are
unpacked into a buffer that stays in the fastest cache. Both ways add in the same order, so the bits are the same.
"""

from typing import NamedTuple

import numpy as np

from dsv4_accel.numba.compile import inlined, merged
from dsv4_accel.numba.memory import address, load, prefetch, store
from dsv4_accel.numba.packed import (
    CHUNKS_TOGETHER,
    NAN_CODES,
    add_products,
    load_some,
    nan_bits,
    next_chunk,
    numbers,
    parts,
    scale,
)
from dsv4_accel.numba.storage import by_storage
from dsv4_accel.numba.vectors import LANES, any_word, fma, lane_sum, splat, splat_word

ROWS = 4
"""Rows of the weight that are gone through side by side."""

FEW_TOKENS = {"FP4": 5, "FP4 in pairs": 3, "FP8": 2, "FP8 in blocks of 32": 2, "bfloat16": 8, "float32": 5}
"""By storage, up to how many tokens each read the weight by themselves, where that was measured to be faster."""

LINES = {"FP4": 1, "FP4 in pairs": 1, "FP8": 2, "FP8 in blocks of 32": 2, "bfloat16": 4, "float32": 8}
"""By storage, how many cache lines a chunk takes."""

MANY_TOKENS = 64
"""Tokens that share one unpacking: their x, and their sums, stay in the second fastest cache."""

DEPTH = 8
"""Chunks of a row that are unpacked at once: with four rows 18 KiB, in pairs 10, which leaves room for x."""


few_tokens, lines = by_storage(FEW_TOKENS), by_storage(LINES)


@inlined
def width(storage):
    """Floats that a chunk of x takes."""
    return parts(storage) * LANES


@inlined
def unpacked(storage):
    """Floats that an unpacked chunk of a weight takes: its numbers, and its scale in every lane."""
    return (parts(storage) + 1) * LANES


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
def layout_of(fields):
    """The Layout with these seven fields."""
    return Layout(fields[0], fields[1], fields[2], fields[3], fields[4], fields[5], fields[6])


@merged
def multiply_rows(storage, items, scales, layout, first, last, x, tokens, out):
    """out[slot, row] = row of the weight · x[tokens[slot]], for rows first … last − 1.

    x [·, chunks·128], or [·, chunks·64] in pairs; tokens [M] rows of x; out [M, rows]
    """
    flat_x = x.reshape(-1)  # a position is cheaper to hand on than a slice, whose references are counted
    if tokens.size <= few_tokens(storage):
        for slot in range(tokens.size):
            for row in range(first, last, ROWS):
                _four_rows(storage, items, scales, layout, row, last, flat_x, tokens[slot] * x.shape[1], out, slot)
        return
    for slot in range(0, tokens.size, MANY_TOKENS):
        some = slice(slot, slot + MANY_TOKENS)
        _unpacked_rows(storage, items, scales, layout, first, last, flat_x, tokens[some] * x.shape[1], out[some])


@inlined
def _four_rows(storage, items, scales, layout, row, last, x, start, out, slot):
    """Four rows times one token, each chunk as it comes from memory. start: where its x begins; out [M, rows]"""
    row1, row2, row3 = min(row + 1, last - 1), min(row + 2, last - 1), min(row + 3, last - 1)
    item0, item1 = row * layout.row_items, row1 * layout.row_items
    item2, item3 = row2 * layout.row_items, row3 * layout.row_items
    ahead = ROWS * layout.row_items
    sum0 = sum1 = sum2 = sum3 = splat(np.float32(0))
    nan0 = nan1 = nan2 = nan3 = splat_word(np.uint32(0))
    for first in range(0, layout.chunks, CHUNKS_TOGETHER):
        some0, some1 = _scales(storage, scales, layout, row, first), _scales(storage, scales, layout, row1, first)
        some2, some3 = _scales(storage, scales, layout, row2, first), _scales(storage, scales, layout, row3, first)
        for chunk in range(first, min(first + CHUNKS_TOGETHER, layout.chunks)):
            _ask_for(storage, items, item0 + ahead, layout)
            _ask_for(storage, items, item1 + ahead, layout)
            _ask_for(storage, items, item2 + ahead, layout)
            _ask_for(storage, items, item3 + ahead, layout)
            sum0 = _step(storage, items, item0, some0, x, start + chunk * width(storage), sum0)
            sum1 = _step(storage, items, item1, some1, x, start + chunk * width(storage), sum1)
            sum2 = _step(storage, items, item2, some2, x, start + chunk * width(storage), sum2)
            sum3 = _step(storage, items, item3, some3, x, start + chunk * width(storage), sum3)
            nan0, nan1 = nan0 | nan_bits(storage, items, item0), nan1 | nan_bits(storage, items, item1)
            nan2, nan3 = nan2 | nan_bits(storage, items, item2), nan3 | nan_bits(storage, items, item3)
            some0, some1 = next_chunk(storage, some0), next_chunk(storage, some1)
            some2, some3 = next_chunk(storage, some2), next_chunk(storage, some3)
            item0, item1 = item0 + layout.chunk_items, item1 + layout.chunk_items
            item2, item3 = item2 + layout.chunk_items, item3 + layout.chunk_items
    out[slot, row], out[slot, row1] = _result(sum0, nan0), _result(sum1, nan1)
    out[slot, row2], out[slot, row3] = _result(sum2, nan2), _result(sum3, nan3)


@inlined
def _ask_for(storage, items, item, layout):
    """Have the chunk that begins at an item fetched from memory, each of its cache lines."""
    for line in range(lines(storage)):
        prefetch(items, item + line * (layout.chunk_items // lines(storage)))


@inlined
def _step(storage, items, item, some, x, column, total):
    """total + scale · Σ of a chunk's products, half by half: this order makes the bits of every result."""
    middle = parts(storage) // 2
    products = _half(storage, items, item, 0, x, column) + _half(storage, items, item, middle, x, column)
    return fma(products, scale(storage, some), total)


@inlined
def _half(storage, items, item, first, x, column):
    """Σ of the products of half of a chunk's parts, one after the other from the first on."""
    products = splat(np.float32(-0.0))  # plus a number, it is that number
    for part in range(first, first + parts(storage) // 2):
        products = add_products(storage, numbers(storage, items, item, part), load(x, column + part * LANES), products)
    return products


@inlined
def _scales(storage, scales, layout, row, chunk):
    """The scales of the next chunks of a row."""
    place = row // layout.rows_per_scale * layout.row_scales + chunk * layout.chunk_scales
    return load_some(storage, scales, place, min(CHUNKS_TOGETHER, layout.chunks - chunk))


@inlined
def _result(total, codes):
    return np.float32(np.nan) if any_word(codes & NAN_CODES) else lane_sum(total)


@inlined
def _unpacked_rows(storage, items, scales, layout, first, last, x, starts, out):
    """Rows times several tokens, four rows at a time. starts [M]: where each token's x begins; out [M, rows]"""
    buffer = aligned_floats(ROWS * DEPTH * unpacked(storage))
    sums = aligned_floats(starts.size * ROWS * LANES)
    for row in range(first, last, ROWS):
        sums[:] = 0
        for chunk in range(0, layout.chunks, DEPTH):
            depth = min(DEPTH, layout.chunks - chunk)
            for beside in range(ROWS):
                line = min(row + beside, last - 1)
                _unpack(storage, items, scales, layout, line, chunk, depth, buffer, beside)
            for slot in range(0, starts.size, 2):
                other = min(slot + 1, starts.size - 1)
                x0, x1 = starts[slot] + chunk * width(storage), starts[other] + chunk * width(storage)
                _tile(storage, buffer, depth, x, x0, x1, sums, slot * ROWS * LANES, other * ROWS * LANES)
        for slot in range(starts.size):
            for beside in range(min(ROWS, last - row)):
                out[slot, row + beside] = lane_sum(load(sums, (slot * ROWS + beside) * LANES))


@inlined
def aligned_floats(count):
    """Room for float32 that begins where a cache line begins, so that no vector lies across two."""
    room = np.empty(count + LANES, np.float32)
    skip = -(address(room) // 4) % LANES
    return room[skip : skip + count]


@inlined
def _unpack(storage, items, scales, layout, row, first, depth, buffer, beside):
    """The numbers and scales of some chunks of one row, as floats; a code of NaN makes the scale of its chunk NaN."""
    item = row * layout.row_items + first * layout.chunk_items
    place = beside * DEPTH * unpacked(storage)
    some = splat(np.float32(0))
    for chunk in range(first, first + depth):
        if chunk % CHUNKS_TOGETHER == 0:
            some = _scales(storage, scales, layout, row, chunk)
        _ask_for(storage, items, item + ROWS * layout.row_items, layout)
        for part in range(0, parts(storage), 4):  # four before any is stored: what they are made of is read once
            n0, n1 = numbers(storage, items, item, part), numbers(storage, items, item, part + 1)
            n2, n3 = numbers(storage, items, item, part + 2), numbers(storage, items, item, part + 3)
            store(buffer, place + part * LANES, n0)
            store(buffer, place + (part + 1) * LANES, n1)
            store(buffer, place + (part + 2) * LANES, n2)
            store(buffer, place + (part + 3) * LANES, n3)
        is_nan = any_word(nan_bits(storage, items, item) & NAN_CODES)
        store(buffer, place + width(storage), splat(np.float32(np.nan)) if is_nan else scale(storage, some))
        item, place, some = item + layout.chunk_items, place + unpacked(storage), next_chunk(storage, some)


@inlined
def _tile(storage, buffer, depth, x, x0, x1, sums, here, there):
    """Four unpacked rows times two tokens: each row's numbers are loaded once for both, each token's for all four.

    x0, x1: where the tokens' numbers stand in x; here, there: where their sums stand.
    """
    a0, a1 = load(sums, here), load(sums, here + LANES)
    a2, a3 = load(sums, here + 2 * LANES), load(sums, here + 3 * LANES)
    b0, b1 = load(sums, there), load(sums, there + LANES)
    b2, b3 = load(sums, there + 2 * LANES), load(sums, there + 3 * LANES)
    for step in range(depth):
        p0 = p1 = p2 = p3 = q0 = q1 = q2 = q3 = splat(np.float32(-0.0))
        row0, row1 = step * unpacked(storage), (DEPTH + step) * unpacked(storage)
        row2, row3 = (2 * DEPTH + step) * unpacked(storage), (3 * DEPTH + step) * unpacked(storage)
        start0, start1 = x0 + step * width(storage), x1 + step * width(storage)
        for half in range(0, width(storage), width(storage) // 2):
            g0 = g1 = g2 = g3 = h0 = h1 = h2 = h3 = splat(np.float32(-0.0))
            for part in range(half, half + width(storage) // 2, LANES):
                u, v = load(x, start0 + part), load(x, start1 + part)
                w0, w1 = load(buffer, row0 + part), load(buffer, row1 + part)
                w2, w3 = load(buffer, row2 + part), load(buffer, row3 + part)
                g0, g1 = add_products(storage, w0, u, g0), add_products(storage, w1, u, g1)
                g2, g3 = add_products(storage, w2, u, g2), add_products(storage, w3, u, g3)
                h0, h1 = add_products(storage, w0, v, h0), add_products(storage, w1, v, h1)
                h2, h3 = add_products(storage, w2, v, h2), add_products(storage, w3, v, h3)
            p0, p1, p2, p3 = p0 + g0, p1 + g1, p2 + g2, p3 + g3
            q0, q1, q2, q3 = q0 + h0, q1 + h1, q2 + h2, q3 + h3
        s0, s1 = load(buffer, row0 + width(storage)), load(buffer, row1 + width(storage))
        s2, s3 = load(buffer, row2 + width(storage)), load(buffer, row3 + width(storage))
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
