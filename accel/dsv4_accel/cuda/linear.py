"""Matrix products and the embedding: mirrors dsv4.ops.linear.

A product is formed by the tensor cores, on the packed bytes: codes become bfloat16 in registers, which is exact, and no
dequantised matrix is ever in memory. An input is rounded to FP8, and then is a bfloat16 as well, or it is three of them
that add up to it exactly. A token's result has the same bits alone and among others.
"""

from collections.abc import Sequence

import ml_dtypes
import numpy as np

from dsv4.ops import linear as reference
from dsv4.ops.quantise import Fp4Weight, Fp8Weight, Weight, is_quantised
from dsv4.ops.types import Array, Ints
from dsv4_accel.cuda.activations import keep, prepare_once
from dsv4_accel.cuda.beside import Beside, beside_of
from dsv4_accel.cuda.device import Device, on_host
from dsv4_accel.cuda.matrix import Matrix, matrix_of, storage_of_placed
from dsv4_accel.cuda.rounded_chunks import rounded_rows
from dsv4_accel.cuda.source import kernels

FEW, MANY = 8, 64
"""Tokens that a block takes, where there are few and where there are many."""

# The numbers of products.cuh.
FEW_ROWS, MANY_ROWS = 16, 64
PRODUCT_THREADS = 128

EMBEDDING_THREADS = 256


def linear(device: Device, x: Array, weight: Weight, round_inputs: bool = False) -> Array:
    """As dsv4.ops.linear.linear."""
    matrix = _fitting(device, x, weight, 1)
    if matrix is None:
        return on_host(device, reference.linear, x, weight, round_inputs)
    return _multiply(device, x, matrix, 1, rounds=round_inputs and is_quantised(weight))


def linears(device: Device, x: Array, weights: Sequence[Weight], round_inputs: bool = False) -> tuple[Array, ...]:
    """As dsv4.ops.linear.linears. Of few tokens, those with placed weights that are stored alike share a launch."""
    results: dict[int, Array] = {}
    if 0 < x.size <= FEW * x.shape[-1] and x.dtype == np.float32:
        by_storage: dict[str, list[int]] = {}
        for number, weight in enumerate(weights):
            if weight.shape[1] == x.shape[-1] and (storage := storage_of_placed(weight)):
                by_storage.setdefault(storage, []).append(number)
        for numbers in by_storage.values():
            beside = beside_of(device, [weights[number] for number in numbers]) if len(numbers) > 1 else None
            if beside is not None:
                results.update(zip(numbers, _multiply_beside(device, x, beside, round_inputs), strict=True))
    return tuple(
        results[number] if number in results else linear(device, x, weight, round_inputs)
        for number, weight in enumerate(weights)
    )


def grouped_linear(device: Device, x: Array, weight: Weight, groups: int) -> Array:
    """As dsv4.ops.linear.grouped_linear."""
    matrix = _fitting(device, x, weight, groups)
    if matrix is None:
        return on_host(device, reference.grouped_linear, x, weight, groups)
    return _multiply(device, x, matrix, groups, rounds=False, then_rounded=True)


def embedding(device: Device, ids: Ints, table: Weight) -> Array:
    """As dsv4.ops.linear.embedding, but an id outside the table is noted."""
    if (
        isinstance(table, Fp4Weight | Fp8Weight)
        or table.dtype not in (np.float32, ml_dtypes.bfloat16)
        or not table.size
    ):
        return on_host(device, reference.embedding, ids, table)
    out = device.empty((*ids.shape, table.shape[1]), np.float32)
    if out.size:
        whole = device.compact(table)
        floats, bits = (whole, None) if table.dtype == np.float32 else (None, whole)
        given = device.compact(device.asarray(ids).astype(np.int64, copy=False))
        arguments = given, floats, bits, out, *table.shape, device.status
        device.launch(kernels("linear.cu")["embedding"], (ids.size,), EMBEDDING_THREADS, arguments)
    return out


def _fitting(device: Device, x: Array, weight: Weight, groups: int) -> Matrix | None:
    """The matrix as kernels take it, or None where it or x does not fit."""
    rows, width = weight.shape
    if x.dtype != np.float32 or groups < 1 or rows % groups or x.shape[-1] != groups * width:
        return None
    return matrix_of(device, weight)


def _multiply(device: Device, x: Array, matrix: Matrix, groups: int, rounds: bool, then_rounded: bool = False) -> Array:
    """x [..., groups · columns] -> [..., rows]; then_rounded: whether a product that rounds it is likely to come."""
    form = matrix.form
    out = device.empty((*x.shape[:-1], form.rows), np.float32)
    if not out.size:
        return out
    tokens = out.size // form.rows
    rows = prepare_once(device, x, tokens * groups, form.columns, rounds)
    is_many = tokens > FEW and form.storage != "float"
    is_many = is_many and groups * -(-form.rows // groups // MANY_ROWS) >= device.multiprocessors // 2
    name, tile, height = ("many", MANY, MANY_ROWS) if is_many else ("few", FEW, FEW_ROWS)
    blocks = -(-tokens // tile), -(-(form.rows // groups) // height), groups
    numbers = tokens, form.rows, groups, form.chunks, len(rows.pieces)
    then: tuple[Array | None, ...] = () if is_many else (None,) * 3
    if then_rounded and tokens <= FEW and form.rows // groups % FEW_ROWS == 0:
        made = rounded_rows(device, 1, tokens, form.rows)
        if made is not None:
            then = *made[0], made[1]
            keep(device, out, form.rows, True, made[0])
    arguments = matrix.bytes, matrix.scales, *rows, out, *then, *numbers
    device.launch(kernels("linear.cu")[f"linear_{name}_{form.storage}"], blocks, PRODUCT_THREADS, arguments)
    return out


def _multiply_beside(device: Device, x: Array, beside: Beside, round_inputs: bool) -> list[Array]:
    """The products of few tokens with matrices that are stored alike."""
    form = beside.form
    tokens = x.size // form.columns
    rows = prepare_once(device, x, tokens, form.columns, round_inputs and form.is_quantised)
    out = device.empty((tokens * beside.ends[-1],), np.float32)
    numbers = tokens, len(beside.heights), form.chunks, len(rows.pieces)
    blocks = -(-tokens // FEW), sum(-(-height // FEW_ROWS) for height in beside.heights)
    arguments = beside.places, *rows, out, *numbers
    device.launch(kernels("linear.cu")[f"linears_few_{form.storage}"], blocks, PRODUCT_THREADS, arguments)
    starts = (tokens * end for end in (0, *beside.ends))
    return [
        out[start : start + tokens * height].reshape(*x.shape[:-1], height)
        for start, height in zip(starts, beside.heights, strict=False)
    ]
