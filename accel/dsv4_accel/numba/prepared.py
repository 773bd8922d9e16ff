"""x as the kernels of products read it: rounded, filled up to whole chunks, in an order of columns, or in pairs."""

import numpy as np
from numba import prange
from numba.extending import overload

from dsv4.ops.moe41 import MX_BLOCK
from dsv4_accel.numba.compile import WORK_FOR_THREADS, inlined, merged
from dsv4_accel.numba.cpu import MULTIPLIES_BFLOATS
from dsv4_accel.numba.memory import copy
from dsv4_accel.numba.packed import CHUNK, FP4_ORDER
from dsv4_accel.numba.pairs import LARGEST, pack_row
from dsv4_accel.numba.products import aligned_floats
from dsv4_accel.numba.quantise import round_to_fp8
from dsv4_accel.numba.storage import FP4, MX, Storage
from dsv4_accel.numba.vectors import LANES

AS_IT_IS, OF_FP4, OF_MX = 0, 1, 2
"""Orders of the columns of x."""

ORDERS = {FP4.name: OF_FP4, MX.name: OF_MX}
"""By the names of storages, of which `numbers` does not give columns in turn."""


def order_of(storage: Storage) -> int:
    """The order of the columns of x for a storage, a constant when a kernel is compiled."""
    raise NotImplementedError("only within kernels")


@overload(order_of)
def _order_of(storage):
    order = ORDERS.get(storage.storage, AS_IT_IS)
    return lambda storage: order


def go_in_pairs(storage: Storage, block: int) -> bool:
    """Whether rows of x may be packed as pairs: those for FP4 that are rounded, where an instruction takes them."""
    return storage is FP4 and block > 0 and MULTIPLIES_BFLOATS


@merged
def prepare_rows(x, chunks, order, block, in_pairs):
    """Rows of x, as they are and, where wanted, in pairs.

    x [T, in]; block: of so many channels are the blocks in which x is rounded to FP8, 0 for none; in_pairs: whether
    pairs are wanted. Returns rows [T, chunks·128 + 16]; pairs [T, chunks·64 + 16], or none; and whether the pairs
    serve, which they do not where x is not finite, or nearly so.
    """
    tokens = x.shape[0]
    rows, pairs = _room(tokens, chunks * CHUNK), _room(tokens if in_pairs else 0, chunks * CHUNK // 2)
    largest = np.empty(tokens, np.uint32)
    if 4 * rows.size < WORK_FOR_THREADS:
        for token in range(tokens):
            largest[token] = _prepare(x[token], order, block, rows[token], pairs, token)
    else:
        for token in prange(tokens):
            largest[token] = _prepare(x[token], order, block, rows[token], pairs, token)
    serve = in_pairs
    for token in range(tokens):
        serve = serve and largest[token] <= LARGEST
    return rows, pairs, serve


@inlined
def _room(rows, width):
    """[rows, width + 16]: rows that lie no power of two apart, since those would share places in the caches."""
    stride = width + LANES
    return aligned_floats(rows * stride).reshape((rows, stride))


@inlined
def _prepare(x, order, block, prepared, pairs, token):
    """One row: x [in] -> prepared [chunks·128 + 16] and, if there are pairs, pairs[token]; the bits of the largest."""
    row = np.zeros(prepared.size - LANES, np.float32)
    copy(x, row)
    prepare_row(row, x.size, order, block, prepared[: row.size])
    return pack_row(prepared[: row.size], pairs[token]) if pairs.shape[0] else np.uint32(0)


@inlined
def prepare_row(row, width, order, block, prepared):
    """One row that has zeros behind its `width` channels; it is rounded in place. [chunks·128] -> [chunks·128]"""
    if block:
        round_to_fp8(row[:width], block)
    if order == AS_IT_IS:
        copy(row, prepared)
        return
    for start in range(0, row.size, CHUNK):  # lane by lane what `numbers` gives of a part of a chunk
        for part in range(CHUNK // LANES):
            for lane in range(LANES):
                of_fp4 = lane * (CHUNK // LANES) + FP4_ORDER[part]
                column = of_fp4 if order == OF_FP4 else lane // 4 * MX_BLOCK + 4 * part + lane % 4
                prepared[start + part * LANES + lane] = row[start + column]
