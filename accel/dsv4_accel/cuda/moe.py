"""Mixture of experts: mirrors dsv4.ops.moe. The host never learns which experts are chosen."""

from collections.abc import Sequence
from typing import Any, overload

import numpy as np

from dsv4.ops import moe as reference
from dsv4.ops.map_arrays import map_arrays
from dsv4.ops.moe import Expert, Routing
from dsv4.ops.types import Array
from dsv4_accel.cuda.activations import THREADS, Rows, prepare, prepare_once
from dsv4_accel.cuda.device import Device, on_host
from dsv4_accel.cuda.expert_table import Table, table_of, table_of_one
from dsv4_accel.cuda.grouping import Groups, group, group_of_one
from dsv4_accel.cuda.linear import FEW, FEW_ROWS, MANY, MANY_ROWS, PRODUCT_THREADS
from dsv4_accel.cuda.matrix import Form
from dsv4_accel.cuda.rounded_chunks import COUNTERS, counters, rounded_rows
from dsv4_accel.cuda.route import route, route_by_id
from dsv4_accel.cuda.source import kernels

__all__ = ["expert", "experts", "route", "route_by_id"]

UP, DOWN = 0, 2
"""The first of a product's matrices in the table."""

NOTHING_THEN: tuple[Array | None, ...] = (None,) * 4
"""What a product of few visits is given that nothing is made of."""


def experts(
    device: Device, x: Array, routing: Routing, expert_list: Sequence[Expert], limit: float, round_inputs: bool
) -> Array:
    """As dsv4.ops.moe.experts, but a number that names no expert is noted, and every expert is looked at once."""
    weights, indices = routing
    fits = x.dtype == np.float32 and x.ndim == indices.ndim == 2 and indices.dtype.kind in "iu"
    if fits and weights.shape == indices.shape and len(indices) == len(x) and len(expert_list):
        if not x.size or not indices.size:
            return device.zeros(x.shape, np.float32)
        table = table_of(device, expert_list)
        if table is not None and table.up.columns == table.down.rows == x.shape[1]:
            visits = device.compact(indices if indices.dtype == np.int64 else indices.astype(np.int64))
            tile = _visits_per_tile(device, table, indices.size, min(indices.size, len(expert_list)))
            groups = group(device, visits, len(expert_list), tile)
            return _together(device, x, weights, groups, tile, table, limit, round_inputs)
    brought = _Brought(device, expert_list)
    result: Array = on_host(device, reference.experts, x, routing, brought, limit, round_inputs)
    return result


def expert(device: Device, x: Array, share: Array, matrices: Expert, limit: float, round_inputs: bool) -> Array:
    """As dsv4.ops.moe.expert: a mixture of one."""
    if share.shape == x.shape[:1] and (fitting := _one(device, x, matrices)):
        table, tile = fitting
        groups = group_of_one(device, len(x), tile)
        return _together(device, x, share[:, None], groups, tile, table, limit, round_inputs)
    result: Array = on_host(device, reference.expert, x, share, matrices, limit, round_inputs)
    return result


def add_expert(
    device: Device, routed: Array, x: Array, matrices: Expert, limit: float, round_inputs: bool
) -> Array | None:
    """As Ops.add_expert; None for what no kernel takes."""
    fitting = _one(device, x, matrices)
    if fitting is None or routed.shape != x.shape or routed.dtype != np.float32:
        return None
    table, tile = fitting
    groups = group_of_one(device, len(x), tile)
    return _together(device, x, None, groups, tile, table, limit, round_inputs, device.compact(routed))


def _one(device: Device, x: Array, matrices: Expert) -> tuple[Table, int] | None:
    """The table of an expert that takes x [T, d], and how many tokens a block takes; None for what no kernel takes."""
    table = table_of_one(device, matrices) if x.dtype == np.float32 and x.ndim == 2 and x.size else None
    if table is None or not table.up.columns == table.down.rows == x.shape[1]:
        return None
    return table, _visits_per_tile(device, table, len(x), 1)


class _Brought(Sequence[Expert]):
    """Experts of the device, each brought to the host when it is asked for."""

    def __init__(self, device: Device, expert_list: Sequence[Expert]) -> None:
        self._device, self._experts = device, expert_list

    def __len__(self) -> int:
        return len(self._experts)

    @overload
    def __getitem__(self, number: int) -> Expert: ...
    @overload
    def __getitem__(self, number: slice) -> list[Expert]: ...
    def __getitem__(self, number: int | slice) -> Any:
        return map_arrays(self._experts[number], self._device.to_numpy)


def _together(
    device: Device,
    x: Array,
    weights: Array | None,
    groups: Groups,
    tile: int,
    table: Table,
    limit: float,
    round_inputs: bool,
    added: Array | None = None,
) -> Array:
    """All visits of all tokens, each stage in one launch. A slot is one visit: slot t·k + v is the v-th of token t.

    weights [T, k]: how much each visit counts, or None for 1; groups: the visits in tiles of `tile` at most;
    added: [T, d], what the results of tokens with one visit each are added to.
    """
    tokens, slots = len(x), groups.order.size
    k = slots // tokens
    if weights is not None:
        weights = device.compact(weights.astype(np.float32, copy=False))
    rounds = round_inputs and table.up.is_quantised
    rows = prepare_once(device, x, tokens, table.up.columns, rounds)
    rounds = round_inputs and table.down.is_quantised
    hidden = _hidden(device, table, rows, weights, groups, tile, limit, rounds)
    if tokens <= FEW and tile == FEW and -(-table.down.rows // FEW_ROWS) <= COUNTERS:
        return _added(device, table, hidden, groups, tokens, added)
    parts = _products(device, table, DOWN, hidden, groups, slots, tile)  # [1, T·k, d]
    if k == 1:
        return parts[0] if added is None else added + parts[0]
    out = device.empty(x.shape, np.float32)
    device.launch(
        kernels("moe.cu")["add_visits"], (-(-x.size // THREADS),), THREADS, (parts, out, x.size, x.shape[1], k)
    )
    return out


def _added(device: Device, table: Table, hidden: Rows, groups: Groups, tokens: int, added: Array | None) -> Array:
    """What the visits of few tokens add up to, on top of `added`, by the launch that makes them: [T, d]."""
    form, slots = table.down, groups.order.size
    parts, total = (device.empty((rows, form.rows), np.float32) for rows in (slots, tokens))
    device.launch(
        kernels("experts.cu")[f"add_few_{form.storage}"],
        (len(groups.tiles), -(-form.rows // FEW_ROWS)),
        PRODUCT_THREADS,
        (
            *(table.places, DOWN, *hidden, groups.order, groups.tiles, parts, added, total, counters(device)),
            *(slots, slots // tokens, form.rows, form.chunks, len(hidden.pieces)),
        ),
    )
    return total


def _visits_per_tile(device: Device, table: Table, slots: int, visited: int) -> int:
    """FEW, or MANY where experts have that many and every multiprocessor has some of them. Results are the same.

    visited: how many experts are visited at most.
    """
    if "float" in (table.up.storage, table.down.storage):
        return FEW
    is_enough = visited * -(-table.up.rows // MANY_ROWS) >= device.multiprocessors
    return MANY if slots > FEW * visited and is_enough else FEW


def _hidden(
    device: Device,
    table: Table,
    rows: Rows,
    weights: Array | None,
    groups: Groups,
    tile: int,
    limit: float,
    rounds: bool,
) -> Rows:
    """What the second product of each slot takes. Of few visits, the first makes it, too, if it is rounded."""
    slots, width = groups.order.size, table.down.columns
    then = rounded_rows(device, len(groups.tiles), slots, width) if rounds and tile == FEW else None
    if then is None:
        ups = _products(device, table, UP, rows, groups, slots, tile)  # [2, T·k, width]
        return prepare(device, "prepare_hidden", slots, width, rounds, ups, weights, limit=limit)
    hidden, arrived = then
    _products(device, table, UP, rows, groups, slots, tile, (weights, *hidden, arrived), limit)
    return hidden


def _products(
    device: Device,
    table: Table,
    first: int,
    rows: Rows,
    groups: Groups,
    slots: int,
    tile: int,
    then: tuple[Array | None, ...] = NOTHING_THEN,
    limit: float = 0,
) -> Array:
    """Each slot's row times matrices of its expert. Returns [matrices, slots, rows of the matrix].

    then: of few visits, how much each counts, and where hidden numbers go, if they are wanted.
    """
    form: Form = table.up if first == UP else table.down
    matrices = 2 if first == UP else 1
    out = device.empty((matrices, slots, form.rows), np.float32)
    name, block_rows = ("few", FEW_ROWS) if tile == FEW else ("many", MANY_ROWS)
    numbers = slots, slots // len(rows.units), form.rows, form.chunks, len(rows.pieces)
    given = table.places, first, *rows, groups.order, groups.tiles, out
    device.launch(
        kernels("experts.cu")[f"multiply_{name}_{form.storage}"],
        (len(groups.tiles), -(-form.rows // block_rows), matrices),
        PRODUCT_THREADS,
        (*given, *then, *numbers, limit) if tile == FEW else (*given, *numbers),
    )
    return out
