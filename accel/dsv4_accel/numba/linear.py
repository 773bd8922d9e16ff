"""Matrix products with dense, FP8 and FP4 weights on their stored bytes: mirrors dsv4.ops.linear.

No weight is ever dequantised as a whole: a kernel decodes a few numbers in registers, or parts of four rows in the
fastest cache.
"""

import numpy as np
from numba import prange, types

from dsv4.ops import linear as reference
from dsv4.ops.moe41 import MX_BLOCK
from dsv4.ops.quantise import FP8_WEIGHT_BLOCK, Weight, is_quantised
from dsv4.ops.types import Array
from dsv4_accel.numba.arrays import aligned, are_float32, compact
from dsv4_accel.numba.compile import inlined, kernel, merged, reads, writes
from dsv4_accel.numba.cpu import MULTIPLIES_BFLOATS
from dsv4_accel.numba.memory import copy
from dsv4_accel.numba.packed import CHUNK, FP4_ORDER
from dsv4_accel.numba.pairs import LARGEST, pack_row
from dsv4_accel.numba.products import FEW_TOKENS, MANY_TOKENS, layout_of, multiply_rows
from dsv4_accel.numba.quantise import round_to_fp8
from dsv4_accel.numba.storage import BFLOAT, FLOAT, FP4, FP8, MX, PAIRS, Storage
from dsv4_accel.numba.vectors import LANES
from dsv4_accel.numba.weights import Flat, flat

ROWS_PER_TASK = 64
"""Rows of a weight that one thread goes through at a time."""

AS_IT_IS, OF_FP4, OF_MX = 0, 1, 2
"""Orders of the columns of x."""

ORDERS = {FP4: OF_FP4, MX: OF_MX}
"""Storages of which `numbers` does not give columns in turn."""


def linear(x: Array, weight: Weight, round_inputs: bool = False) -> Array:
    """As dsv4.ops.linear.linear."""
    product = rounded_product(x, weight, FP8_WEIGHT_BLOCK if round_inputs else 0)
    return reference.linear(x, weight, round_inputs) if product is None else product


def rounded_product(x: Array, weight: Weight, block: int) -> Array | None:
    """x @ W.T, or None for arrays that are left to the reference.

    block: of so many channels are the blocks in which x is rounded to FP8 where the weight is stored in FP8 or FP4, 128
    or 32; with 0 it is not.
    """
    memory = _memory(x, weight, 1)
    return None if memory is None else _product(x, memory, 1, block if is_quantised(weight) else 0)


def grouped_linear(x: Array, weight: Weight, groups: int) -> Array:
    """As dsv4.ops.linear.grouped_linear."""
    memory = _memory(x, weight, groups) if groups > 0 and weight.shape[0] % groups == 0 else None
    return reference.grouped_linear(x, weight, groups) if memory is None else _product(x, memory, groups, 0)


def _memory(x: Array, weight: Weight, groups: int) -> Flat | None:
    """The weight as kernels take it, or None where x or the weight is not for them: float64, empty, or unfit."""
    if not are_float32(x) or not x.size or not x.ndim:
        return None
    memory = flat(weight)
    return memory if memory is not None and memory.rows and x.shape[-1] == groups * memory.width else None


def _product(x: Array, memory: Flat, groups: int, block: int) -> Array:
    """x [..., groups·in] times the weight's rows, each group of channels with its own run of rows."""
    tokens = compact(x).reshape(-1, memory.width)  # [T·groups, in]
    storage, tokens = _prepared(tokens, memory, block)
    out = np.empty((*x.shape[:-1], memory.rows), np.float32)
    flat_out = out.reshape(-1, memory.rows)
    work = flat_out.size * memory.columns
    KERNELS[storage](work, memory.items, memory.scales, memory.fields, groups, tokens, flat_out)
    return out


def _prepared(tokens: Array, memory: Flat, block: int) -> tuple[Storage, Array]:
    """How the weight is to be read, and x as it is then to be; tokens [T, in]."""
    storage, chunks = memory.storage, memory.layout.chunks
    if block and storage is FP4:
        pairs = prepare_pairs(tokens, chunks, block)
        if pairs is not None:
            return PAIRS, pairs
    order, few = ORDERS.get(storage, AS_IT_IS), FEW_TOKENS[storage.name]
    if block or order != AS_IT_IS or tokens.shape[1] != chunks * CHUNK or len(tokens) > few:
        tokens = prepare(tokens, chunks, order, block)
    return storage, tokens


def prepare_pairs(tokens: Array, chunks: int, block: int) -> Array | None:
    """Rows of x as the kernels for PAIRS read them: [T, in] float32 -> [T, chunks·64], rounded in blocks.

    None where float32 serves better: without an instruction for pairs, or where x is not finite, or nearly so.
    """
    if not MULTIPLIES_BFLOATS:
        return None
    pairs = aligned(tokens.shape[0], chunks * CHUNK // 2 + LANES)
    largest = np.empty(tokens.shape[0], np.uint32)
    _prepare_pairs(8 * pairs.size, tokens, block, pairs, largest)
    return pairs if largest.max() <= LARGEST else None


def prepare(tokens: Array, chunks: int, order: int, block: int) -> Array:
    """Rows of x as a kernel reads them: rounded to FP8 in blocks if wanted, filled up to whole chunks, in an order.

    tokens [T, in] float32; order: AS_IT_IS, or one of ORDERS; block: 0 for no rounding. Returns [T, chunks·128]
    float32.
    """
    prepared = aligned(tokens.shape[0], chunks * CHUNK + LANES)
    _prepare(4 * prepared.size, tokens, order, block, prepared)
    return prepared


@kernel(reads(types.float32, 2), types.intp, types.intp, writes(types.float32, 2))
def _prepare(tokens, order, block, prepared):
    """tokens [T, in] -> prepared [T, chunks·128]"""
    for token in prange(tokens.shape[0]):
        row = np.zeros(prepared.shape[1] - LANES, np.float32)
        copy(tokens[token], row)
        prepare_row(row, tokens.shape[1], order, block, prepared[token, : row.size])


@kernel(reads(types.float32, 2), types.intp, writes(types.float32, 2), writes(types.uint32, 1))
def _prepare_pairs(tokens, block, pairs, largest):
    """tokens [T, in] -> pairs [T, chunks·64], largest [T]: bits"""
    for token in prange(tokens.shape[0]):
        row = np.zeros(2 * (pairs.shape[1] - LANES), np.float32)
        prepared = np.empty(row.size, np.float32)
        copy(tokens[token], row)
        prepare_row(row, tokens.shape[1], OF_FP4, block, prepared)
        largest[token] = pack_row(prepared, pairs[token])


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


@merged
def _multiply(storage, items, scales, fields, groups, x, out, task):
    """One task of a product: some rows of one group, with some tokens. x [T·groups, in], out [T, rows]"""
    layout = layout_of(fields)
    rows = layout.rows // groups
    row_tasks = (rows + ROWS_PER_TASK - 1) // ROWS_PER_TASK
    group, row_task = task // row_tasks % groups, task % row_tasks
    first = group * rows + row_task * ROWS_PER_TASK
    last = min(first + ROWS_PER_TASK, (group + 1) * rows)
    slot = task // (row_tasks * groups) * MANY_TOKENS
    stop = min(slot + MANY_TOKENS, out.shape[0])
    tokens = np.arange(slot * groups + group, stop * groups + group, groups)
    multiply_rows(storage, items, scales, layout, first, last, x, tokens, out[slot:stop])


@inlined
def _tasks(fields, groups, tokens):
    row_tasks = (layout_of(fields).rows // groups + ROWS_PER_TASK - 1) // ROWS_PER_TASK
    return groups * row_tasks * ((tokens + MANY_TOKENS - 1) // MANY_TOKENS)


FIELDS = reads(types.int64, 1)
"""The fields of a Layout: a named tuple takes longer to hand over, and cannot be used inside of a prange."""

BYTES, X, OUT = reads(types.uint8, 1), reads(types.float32, 2), writes(types.float32, 2)


@kernel(BYTES, BYTES, FIELDS, types.intp, X, OUT)
def _fp4_product(items, scales, fields, groups, x, out):
    for task in prange(_tasks(fields, groups, out.shape[0])):
        _multiply(FP4, items, scales, fields, groups, x, out, task)


@kernel(BYTES, BYTES, FIELDS, types.intp, X, OUT)
def _pair_product(items, scales, fields, groups, x, out):
    for task in prange(_tasks(fields, groups, out.shape[0])):
        _multiply(PAIRS, items, scales, fields, groups, x, out, task)


@kernel(BYTES, BYTES, FIELDS, types.intp, X, OUT)
def _fp8_product(items, scales, fields, groups, x, out):
    for task in prange(_tasks(fields, groups, out.shape[0])):
        _multiply(FP8, items, scales, fields, groups, x, out, task)


@kernel(BYTES, BYTES, FIELDS, types.intp, X, OUT)
def _mx_product(items, scales, fields, groups, x, out):
    for task in prange(_tasks(fields, groups, out.shape[0])):
        _multiply(MX, items, scales, fields, groups, x, out, task)


@kernel(reads(types.uint16, 1), BYTES, FIELDS, types.intp, X, OUT)
def _bfloat_product(items, scales, fields, groups, x, out):
    for task in prange(_tasks(fields, groups, out.shape[0])):
        _multiply(BFLOAT, items, scales, fields, groups, x, out, task)


@kernel(reads(types.float32, 1), BYTES, FIELDS, types.intp, X, OUT)
def _float_product(items, scales, fields, groups, x, out):
    for task in prange(_tasks(fields, groups, out.shape[0])):
        _multiply(FLOAT, items, scales, fields, groups, x, out, task)


KERNELS = {
    FP4: _fp4_product,
    PAIRS: _pair_product,
    FP8: _fp8_product,
    MX: _mx_product,
    BFLOAT: _bfloat_product,
    FLOAT: _float_product,
}
