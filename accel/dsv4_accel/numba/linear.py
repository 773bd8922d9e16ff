"""Matrix products with dense, FP8 and FP4 weights on their stored bytes: mirrors dsv4.ops.linear.

No weight is ever dequantised as a whole: a kernel decodes a few numbers in registers, or parts of four rows in the
fastest cache. The products of one x with weights that are stored alike are one kernel: x is prepared once, and threads
share the rows of all weights.
"""

from collections.abc import Sequence

import numpy as np
from numba import prange, types

from dsv4.ops import linear as reference
from dsv4.ops.quantise import FP8_WEIGHT_BLOCK, Weight
from dsv4.ops.types import Array
from dsv4_accel.numba.arrays import are_float32, compact
from dsv4_accel.numba.compile import inlined, kernel, merged, reads, writes
from dsv4_accel.numba.memory import bytes_at
from dsv4_accel.numba.packed import items_at
from dsv4_accel.numba.prepared import go_in_pairs, order_of, prepare_rows
from dsv4_accel.numba.products import MANY_TOKENS, layout_of, multiply_rows
from dsv4_accel.numba.storage import BFLOAT, FLOAT, FP4, FP8, MX, PAIRS
from dsv4_accel.numba.weights import Together, flat, together

ROWS_PER_TASK = 64
"""Rows of a weight that one thread goes through at a time."""


def linear(x: Array, weight: Weight, round_inputs: bool = False) -> Array:
    """As dsv4.ops.linear.linear."""
    product = rounded_product(x, weight, FP8_WEIGHT_BLOCK if round_inputs else 0)
    return reference.linear(x, weight, round_inputs) if product is None else product


def linears(x: Array, weights: Sequence[Weight], round_inputs: bool = False) -> tuple[Array, ...]:
    """As dsv4.ops.linear.linears."""
    products = rounded_products(x, weights, FP8_WEIGHT_BLOCK if round_inputs else 0)
    return tuple(linear(x, weight, round_inputs) for weight in weights) if products is None else products


def rounded_product(x: Array, weight: Weight, block: int) -> Array | None:
    """x @ W.T, or None for arrays that are left to the reference.

    block: of so many channels are the blocks in which x is rounded to FP8 where the weight is stored in FP8 or FP4, 128
    or 32; with 0 it is not.
    """
    memory = _alone(x, weight, 1)
    return None if memory is None else _products(x, memory, 1, block)[0]


def rounded_products(x: Array, weights: Sequence[Weight], block: int) -> tuple[Array, ...] | None:
    """As `rounded_product`, with each of several weights; None also for weights that are not stored alike."""
    memory = together(weights) if _is_for_kernels(x) else None
    return None if memory is None or x.shape[-1] != memory.width else tuple(_products(x, memory, 1, block))


def grouped_linear(x: Array, weight: Weight, groups: int) -> Array:
    """As dsv4.ops.linear.grouped_linear."""
    memory = _alone(x, weight, groups) if groups > 0 and weight.shape[0] % groups == 0 else None
    return reference.grouped_linear(x, weight, groups) if memory is None else _products(x, memory, groups, 0)[0]


def _alone(x: Array, weight: Weight, groups: int) -> Together | None:
    """A weight as kernels take it, or None where x or the weight is not for them: float64, empty, or unfit."""
    memory = flat(weight) if _is_for_kernels(x) else None
    return None if memory is None or x.shape[-1] != groups * memory.alone.width else memory.alone


def _is_for_kernels(x: Array) -> bool:
    return are_float32(x) and x.size > 0 and x.ndim > 0


def _products(x: Array, memory: Together, groups: int, block: int) -> list[Array]:
    """x [..., groups·in] times the rows of each weight, each group of channels with its own run of rows."""
    tokens = compact(x).reshape(-1, memory.width)  # [T·groups, in]
    leading, count = x.shape[:-1], len(tokens) // groups
    out = np.empty(count * memory.all_rows, np.float32)
    block = block if memory.is_quantised else 0
    in_pairs = go_in_pairs(memory.storage, block)
    KERNELS[memory.storage](out.size * memory.columns, memory.matrices, groups, block, in_pairs, tokens, out)
    if len(memory.rows) == 1:
        return [out.reshape(*leading, memory.all_rows)]
    return [
        out[count * start : count * (start + rows)].reshape(*leading, rows)
        for start, rows in zip(memory.starts, memory.rows, strict=True)
    ]


@merged
def _multiply(storage, matrices, groups, x, out, task):
    """One task of some products: some rows of one group of one weight, with some tokens.

    matrices [M, 9], see `Together`; x [T·groups, chunks·128 + 16]; out [T · all rows], weight by weight
    """
    tokens, all_tasks = x.shape[0] // groups, _row_tasks(matrices, groups)
    slot, task = task // all_tasks * MANY_TOKENS, task % all_tasks
    number = begin = 0
    while task >= groups * _tasks_of_group(matrices[number], groups):
        task -= groups * _tasks_of_group(matrices[number], groups)
        begin += tokens * matrices[number, 0]
        number += 1
    layout = layout_of(matrices[number])
    items, scales = items_at(storage, matrices[number, 7], layout), bytes_at(matrices[number, 8], layout_scales(layout))
    rows, tasks = layout.rows // groups, _tasks_of_group(matrices[number], groups)
    group = task // tasks
    first = group * rows + task % tasks * ROWS_PER_TASK
    last = min(first + ROWS_PER_TASK, (group + 1) * rows)
    stop = min(slot + MANY_TOKENS, tokens)
    places = np.arange(slot * groups + group, stop * groups + group, groups)
    product = out[begin : begin + tokens * layout.rows].reshape((tokens, layout.rows))
    multiply_rows(storage, items, scales, layout, first, last, x, places, product[slot:stop])


@inlined
def layout_scales(layout):
    """How many bytes of scales a weight has."""
    return (layout.rows + layout.rows_per_scale - 1) // layout.rows_per_scale * layout.row_scales


@inlined
def _tasks_of_group(fields, groups):
    return (fields[0] // groups + ROWS_PER_TASK - 1) // ROWS_PER_TASK


@inlined
def _row_tasks(matrices, groups):
    """The tasks of all rows of all weights."""
    tasks = 0
    for number in range(matrices.shape[0]):
        tasks += groups * _tasks_of_group(matrices[number], groups)
    return tasks


@inlined
def _tasks(matrices, groups, rows):
    """The tasks of all weights with T tokens, which are `rows` rows of x."""
    return _row_tasks(matrices, groups) * ((rows // groups + MANY_TOKENS - 1) // MANY_TOKENS)


MATRICES = reads(types.int64, 2)

ARGUMENTS = MATRICES, types.intp, types.intp, types.boolean, reads(types.float32, 2), writes(types.float32, 1)


@kernel(*ARGUMENTS)
def _fp4_products(matrices, groups, block, in_pairs, x, out):
    rows, pairs, in_pairs = prepare_rows(x, matrices[0, 1], order_of(FP4), block, in_pairs)
    for task in prange(_tasks(matrices, groups, x.shape[0])):
        if in_pairs:
            _multiply(PAIRS, matrices, groups, pairs, out, task)
        else:
            _multiply(FP4, matrices, groups, rows, out, task)


@kernel(*ARGUMENTS)
def _fp8_products(matrices, groups, block, in_pairs, x, out):
    rows, _, _ = prepare_rows(x, matrices[0, 1], order_of(FP8), block, in_pairs)
    for task in prange(_tasks(matrices, groups, x.shape[0])):
        _multiply(FP8, matrices, groups, rows, out, task)


@kernel(*ARGUMENTS)
def _mx_products(matrices, groups, block, in_pairs, x, out):
    rows, _, _ = prepare_rows(x, matrices[0, 1], order_of(MX), block, in_pairs)
    for task in prange(_tasks(matrices, groups, x.shape[0])):
        _multiply(MX, matrices, groups, rows, out, task)


@kernel(*ARGUMENTS)
def _bfloat_products(matrices, groups, block, in_pairs, x, out):
    rows, _, _ = prepare_rows(x, matrices[0, 1], order_of(BFLOAT), block, in_pairs)
    for task in prange(_tasks(matrices, groups, x.shape[0])):
        _multiply(BFLOAT, matrices, groups, rows, out, task)


@kernel(*ARGUMENTS)
def _float_products(matrices, groups, block, in_pairs, x, out):
    rows, _, _ = prepare_rows(x, matrices[0, 1], order_of(FLOAT), block, in_pairs)
    for task in prange(_tasks(matrices, groups, x.shape[0])):
        _multiply(FLOAT, matrices, groups, rows, out, task)


KERNELS = {FP4: _fp4_products, FP8: _fp8_products, MX: _mx_products, BFLOAT: _bfloat_products, FLOAT: _float_products}
