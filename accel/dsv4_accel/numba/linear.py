"""Matrix products with dense, FP8 and FP4 weights on their stored bytes: mirrors dsv4.ops.linear.

No weight is ever dequantised as a whole: a kernel decodes a few numbers in registers, or parts of four rows in the
fastest cache.
"""

import numpy as np
from numba import prange, types

from dsv4.ops import linear as reference
from dsv4.ops.quantise import FP8_WEIGHT_BLOCK, Weight, is_quantised
from dsv4.ops.types import Array
from dsv4_accel.numba.arrays import aligned, are_float32, compact
from dsv4_accel.numba.compile import inlined, kernel, merged, reads, writes
from dsv4_accel.numba.cpu import MULTIPLIES_BFLOATS
from dsv4_accel.numba.memory import copy
from dsv4_accel.numba.packed import BFLOAT, CHUNK, FLOAT, FP4, FP4_ORDER, FP8, PAIRS, Storage
from dsv4_accel.numba.pairs import LARGEST, pack_row
from dsv4_accel.numba.products import FEW_TOKENS, MANY_TOKENS, layout_of, multiply_rows
from dsv4_accel.numba.quantise import round_to_fp8
from dsv4_accel.numba.vectors import LANES
from dsv4_accel.numba.weights import Flat, flat

ROWS_PER_TASK = 64
"""Rows of a weight that one thread goes through at a time."""


def linear(x: Array, weight: Weight, round_inputs: bool = False) -> Array:
    """As dsv4.ops.linear.linear."""
    memory = _memory(x, weight, 1)
    if memory is None:
        return reference.linear(x, weight, round_inputs)
    return _product(x, memory, 1, rounds=round_inputs and is_quantised(weight))


def grouped_linear(x: Array, weight: Weight, groups: int) -> Array:
    """As dsv4.ops.linear.grouped_linear."""
    memory = _memory(x, weight, groups) if groups > 0 and weight.shape[0] % groups == 0 else None
    return reference.grouped_linear(x, weight, groups) if memory is None else _product(x, memory, groups, rounds=False)


def _memory(x: Array, weight: Weight, groups: int) -> Flat | None:
    """The weight as kernels take it, or None where x or the weight is not for them: float64, empty, or unfit."""
    if not are_float32(x) or not x.size or not x.ndim:
        return None
    memory = flat(weight)
    return memory if memory is not None and memory.rows and x.shape[-1] == groups * memory.width else None


def _product(x: Array, memory: Flat, groups: int, rounds: bool) -> Array:
    """x [..., groups·in] times the weight's rows, each group of channels with its own run of rows."""
    tokens = compact(x).reshape(-1, memory.width)  # [T·groups, in]
    storage, tokens = _prepared(tokens, memory, rounds)
    out = np.empty((*x.shape[:-1], memory.rows), np.float32)
    flat_out = out.reshape(-1, memory.rows)
    work = flat_out.size * memory.columns
    KERNELS[storage](work, memory.items, memory.scales, memory.fields, groups, tokens, flat_out)
    return out


def _prepared(tokens: Array, memory: Flat, rounds: bool) -> tuple[Storage, Array]:
    """How the weight is to be read, and x as it is then to be; tokens [T, in]."""
    storage, chunks = memory.storage, memory.layout.chunks
    if rounds and storage is FP4:
        pairs = prepare_pairs(tokens, chunks)
        if pairs is not None:
            return PAIRS, pairs
    few = FEW_TOKENS[storage.name]
    if rounds or storage is FP4 or tokens.shape[1] != chunks * CHUNK or len(tokens) > few:
        tokens = prepare(tokens, chunks, storage is FP4, rounds)
    return storage, tokens


def prepare_pairs(tokens: Array, chunks: int) -> Array | None:
    """Rows of x as the kernels for PAIRS read them: [T, in] float32 -> [T, chunks·64], rounded.

    None where float32 serves better: without an instruction for pairs, or where x is not finite, or nearly so.
    """
    if not MULTIPLIES_BFLOATS:
        return None
    pairs = aligned(tokens.shape[0], chunks * CHUNK // 2 + LANES)
    largest = np.empty(tokens.shape[0], np.uint32)
    _prepare_pairs(8 * pairs.size, tokens, pairs, largest)
    return pairs if largest.max() <= LARGEST else None


def prepare(tokens: Array, chunks: int, fp4_order: bool, rounds: bool) -> Array:
    """Rows of x as a kernel reads them: rounded to FP8 if wanted, filled up to whole chunks, in FP4's order of columns.

    tokens [T, in] float32. Returns [T, chunks·128] float32.
    """
    prepared = aligned(tokens.shape[0], chunks * CHUNK + LANES)
    _prepare(4 * prepared.size, tokens, fp4_order, rounds, prepared)
    return prepared


@kernel(reads(types.float32, 2), types.boolean, types.boolean, writes(types.float32, 2))
def _prepare(tokens, fp4_order, rounds, prepared):
    """tokens [T, in] -> prepared [T, chunks·128]"""
    for token in prange(tokens.shape[0]):
        row = np.zeros(prepared.shape[1] - LANES, np.float32)
        copy(tokens[token], row)
        prepare_row(row, tokens.shape[1], fp4_order, rounds, prepared[token, : row.size])


@kernel(reads(types.float32, 2), writes(types.float32, 2), writes(types.uint32, 1))
def _prepare_pairs(tokens, pairs, largest):
    """tokens [T, in] -> pairs [T, chunks·64], largest [T]: bits"""
    for token in prange(tokens.shape[0]):
        row = np.zeros(2 * (pairs.shape[1] - LANES), np.float32)
        prepared = np.empty(row.size, np.float32)
        copy(tokens[token], row)
        prepare_row(row, tokens.shape[1], True, True, prepared)
        largest[token] = pack_row(prepared, pairs[token])


@inlined
def prepare_row(row, width, fp4_order, rounds, prepared):
    """One row that has zeros behind its `width` channels; it is rounded in place. [chunks·128] -> [chunks·128]"""
    if rounds:
        round_to_fp8(row[:width], FP8_WEIGHT_BLOCK)
    if not fp4_order:
        copy(row, prepared)
        return
    for start in range(0, row.size, CHUNK):  # column 8·lane + FP4_ORDER[part] of a chunk goes to 16·part + lane
        for part in range(CHUNK // LANES):
            for lane in range(LANES):
                prepared[start + part * LANES + lane] = row[start + lane * (CHUNK // LANES) + FP4_ORDER[part]]


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


@kernel(reads(types.uint16, 1), BYTES, FIELDS, types.intp, X, OUT)
def _bfloat_product(items, scales, fields, groups, x, out):
    for task in prange(_tasks(fields, groups, out.shape[0])):
        _multiply(BFLOAT, items, scales, fields, groups, x, out, task)


@kernel(reads(types.float32, 1), BYTES, FIELDS, types.intp, X, OUT)
def _float_product(items, scales, fields, groups, x, out):
    for task in prange(_tasks(fields, groups, out.shape[0])):
        _multiply(FLOAT, items, scales, fields, groups, x, out, task)


KERNELS = {FP4: _fp4_product, PAIRS: _pair_product, FP8: _fp8_product, BFLOAT: _bfloat_product, FLOAT: _float_product}
