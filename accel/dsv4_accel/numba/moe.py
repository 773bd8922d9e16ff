"""The experts: each token's part of a mixture, all active experts in one kernel (mirrors dsv4.ops.moe).

Tokens are grouped by expert, so that an expert's weights come from memory once for all of its tokens. A slot is one
visit of one token to one expert; slots stand in the order of their experts until each token's results are added up.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numba import prange, types

from dsv4.ops import moe as reference
from dsv4.ops.moe import Expert, Routing
from dsv4.ops.quantise import FP8_WEIGHT_BLOCK
from dsv4.ops.types import Array, Ints
from dsv4_accel.numba.arrays import are_float32, compact
from dsv4_accel.numba.compile import inlined, kernel, merged, reads, writes
from dsv4_accel.numba.exponential import sigmoid, sigmoid_of_one
from dsv4_accel.numba.linear import ROWS_PER_TASK, layout_scales, linear, linears
from dsv4_accel.numba.memory import bytes_at, load, store
from dsv4_accel.numba.packed import items_at
from dsv4_accel.numba.pairs import LARGEST, pack_row
from dsv4_accel.numba.prepared import OF_FP4, go_in_pairs, prepare_row, prepare_rows
from dsv4_accel.numba.products import aligned_floats, layout_of, multiply_rows
from dsv4_accel.numba.storage import FP4, PAIRS
from dsv4_accel.numba.vectors import LANES, maximum, minimum, splat
from dsv4_accel.numba.weights import FIELDS, Together, found_of

OneExpert = Callable[[Array, Array, Expert], Array]
"""From some tokens [M, d], their shares [M] and an expert to [M, d]."""


def experts(x: Array, routing: Routing, expert_list: Sequence[Expert], limit: float, round_inputs: bool) -> Array:
    """As dsv4.ops.moe.experts."""

    def one(x: Array, share: Array, matrices: Expert) -> Array:
        return expert(x, share, matrices, limit, round_inputs)

    total = mixture(x, routing, expert_list, limit, FP8_WEIGHT_BLOCK if round_inputs else 0, one)
    return reference.experts(x, routing, expert_list, limit, round_inputs) if total is None else total


def mixture(
    x: Array, routing: Routing, expert_list: Sequence[Expert], limit: float, block: int, one: OneExpert
) -> Array | None:
    """The weighted sum of each token's experts, or None for arguments that are left to the reference.

    block: as for `rounded_product`; one: what an expert makes of its tokens where not all are stored alike in FP4.
    """
    weights, indices = routing
    fits = are_float32(x, weights) and x.ndim == indices.ndim == 2 and x.size and indices.size
    if not fits or weights.shape != indices.shape or len(indices) != len(x) or indices.dtype.kind not in "iu":
        return None
    active = sorted(set(indices.ravel().tolist()))
    if active[0] < 0 or active[-1] >= len(expert_list):
        return None
    matrices = [expert_list[number] for number in active]
    memory = _alike(matrices, x.shape[1])
    if memory is None:
        return _one_by_one(x, routing, dict(zip(active, matrices, strict=True)), one)
    return _together(x, weights, indices, active, memory, limit, block)


def expert(x: Array, share: Array, matrices: Expert, limit: float, round_inputs: bool) -> Array:
    """As dsv4.ops.moe.expert."""
    if not is_for_kernels(x, share, limit):
        return reference.expert(x, share, matrices, limit, round_inputs)
    gate, up = linears(x, (matrices.w1, matrices.w3), round_inputs)
    return linear(activated(gate, up, share, limit), matrices.w2, round_inputs)


def is_for_kernels(x: Array, share: Array, limit: float) -> bool:
    """Whether `activated` takes what one expert makes of its tokens x."""
    return are_float32(x) and x.ndim == 2 and x.size > 0 and share.shape == x.shape[:1] and limit >= 0


def activated(gate: Array, up: Array, share: Array, limit: float) -> Array:
    """share · SwiGLU(gate, up). gate, up [T, width] float32, share [T] -> [T, width]"""
    hidden = np.empty_like(gate)
    _activate(20 * gate.size, gate, up, compact(share.astype(np.float32, copy=False)), np.float32(limit), hidden)
    return hidden


class Matrices(NamedTuple):
    """The memory of one expert."""

    places: Array
    """[3, 9] as in `Together`: w1, w3 and w2."""
    shape: tuple[int, int]
    """Channels of its input, and of what it makes of them in between."""
    memory: tuple[Array, ...]
    """What the places point to."""


def _alike(experts: Sequence[Expert], width: int) -> list[Matrices] | None:
    """The experts' memory, if all of them are stored in FP4, in matrices of the same shapes that fit x."""
    found = [found_of((one.w1, one.w3, one.w2), _matrices) for one in experts]
    memory = [one for one in found if one is not None and one.shape[0] == width]
    return memory if len(memory) == len(found) and len({one.shape for one in memory}) == 1 else None


def _matrices(found: list[Together]) -> Matrices | None:
    """One expert's memory, if it is stored in FP4, in matrices of whole chunks that fit each other."""
    gate, up, down = found
    whole = all(one.storage is FP4 and one.width == one.columns for one in found)
    fit = gate.width == up.width == down.all_rows and gate.all_rows == up.all_rows == down.width
    if not whole or not fit:
        return None
    memory = tuple(part for one in found for part in one.memory)
    return Matrices(np.concatenate([one.matrices for one in found]), (gate.width, gate.all_rows), memory)


def _one_by_one(x: Array, routing: Routing, matrices: dict[int, Expert], one: OneExpert) -> Array:
    """Experts of any kind, each with all of its tokens."""
    outputs = np.zeros((*routing.indices.shape, x.shape[1]), np.float32)  # [T, k, d]
    for number, its in matrices.items():
        token, slot = np.nonzero(routing.indices == number)
        outputs[token, slot] = one(x[token], routing.weights[token, slot], its)
    total = outputs[:, 0].copy()
    for visit in range(1, outputs.shape[1]):
        total += outputs[:, visit]
    return total


def _together(
    x: Array, weights: Array, indices: Ints, active: list[int], memory: list[Matrices], limit: float, block: int
) -> Array:
    """Experts in FP4, all of them in one kernel."""
    places = np.concatenate([one.places for one in memory]).reshape(-1, 3, FIELDS)
    out = np.empty(x.shape, np.float32)
    _experts(
        3 * indices.size * x.shape[1] * memory[0].shape[1],
        *(places, np.array(active), compact(x), compact(weights), compact(indices.astype(np.int64, copy=False))),
        *(np.float32(limit), block, go_in_pairs(FP4, block), out),
    )
    return out


@inlined
def _group(indices, active, order, starts):
    """The slots in the order of their experts, [T·k], and where each active expert's begin and end, [A + 1]."""
    filled = 0
    for number in range(active.size):
        starts[number] = filled
        for slot in range(indices.size):
            if indices[slot // indices.shape[1], slot % indices.shape[1]] == active[number]:
                order[filled] = slot
                filled += 1
    starts[active.size] = filled


@inlined
def _activate_row(gate, up, weight, limit, hidden):
    """hidden = weight · silu(min(gate, limit)) · clip(up, −limit, limit), for any number of channels"""
    high, low, share = splat(limit), splat(-limit), splat(weight)
    for start in range(0, gate.size - gate.size % LANES, LANES):
        g, u = load(gate, start), load(up, start)
        g = minimum(high, g)
        u = maximum(low, minimum(high, u))
        store(hidden, start, share * (g * sigmoid(g) * u))
    for channel in range(gate.size - gate.size % LANES, gate.size):
        g, u = gate[channel], up[channel]
        g = limit if g > limit else g
        u = limit if u > limit else (-limit if u < -limit else u)
        hidden[channel] = weight * (g * sigmoid_of_one(g) * u)


ROWS = types.float32, 2


@kernel(reads(*ROWS), reads(*ROWS), reads(types.float32, 1), types.float32, writes(*ROWS))
def _activate(gate, up, weight, limit, hidden):
    """gate, up, hidden [T, width], weight [T]"""
    for token in prange(gate.shape[0]):
        _activate_row(gate[token], up[token], weight[token], limit, hidden[token])


@merged
def _some_rows(fields, x, in_pairs, tokens, task, out):
    """Some rows of one expert's matrix, times its tokens. fields [9], see `Together`"""
    layout = layout_of(fields)
    items, scales = items_at(FP4, fields[7], layout), bytes_at(fields[8], layout_scales(layout))
    first = task * ROWS_PER_TASK
    last = min(first + ROWS_PER_TASK, layout.rows)
    if in_pairs:
        multiply_rows(PAIRS, items, scales, layout, first, last, x, tokens, out)
    else:
        multiply_rows(FP4, items, scales, layout, first, last, x, tokens, out)


@inlined
def _tokens_of(slots, per_token):
    """The token that each slot belongs to."""
    tokens = np.empty(slots.size, np.int64)
    for i in range(slots.size):
        tokens[i] = slots[i] // per_token
    return tokens


@inlined
def _add_rows(parts, rows, out):
    """out = the sum of some rows of parts, in their order"""
    for channel in range(out.size):
        out[channel] = parts[rows[0], channel]
    for i in range(1, rows.size):
        for channel in range(out.size):
            out[channel] += parts[rows[i], channel]


@inlined
def _row_tasks(fields):
    return (fields[0] + ROWS_PER_TASK - 1) // ROWS_PER_TASK


@inlined
def _two_rooms(slots, width):
    """[slots, width] twice."""
    room = aligned_floats(2 * slots * width).reshape((2, slots, width))
    return room[0], room[1]


@kernel(
    reads(types.int64, 3),
    reads(types.int64, 1),
    reads(*ROWS),
    reads(*ROWS),
    reads(types.int64, 2),
    types.float32,
    types.intp,
    types.boolean,
    writes(*ROWS),
)
def _experts(places, active, x, weights, indices, limit, block, in_pairs, out):
    """places [A, 3, 9]: w1, w3, w2; active [A]: their numbers; x [T, d]; weights, indices [T, k]; out [T, d]

    Two products from the same x, then the activation, then one product from it, then each token's sum. If x is in
    pairs, what comes from the activation is packed into pairs as well, unless some of it is too large for them.
    """
    count, slots, per_token = active.size, indices.size, indices.shape[1]
    order, starts = np.empty(slots, np.int64), np.empty(count + 1, np.int64)
    _group(indices, active, order, starts)
    rows, pairs, in_pairs = prepare_rows(x, places[0, 0, 1], OF_FP4, block, in_pairs)
    prepared = pairs if in_pairs else rows
    gate, raised = _two_rooms(slots, places[0, 0, 0])
    tasks = _row_tasks(places[0, 0])
    for task in prange(2 * count * tasks):
        which, number = task // (count * tasks), task // tasks % count
        some = slice(starts[number], starts[number + 1])
        tokens = _tokens_of(order[some], per_token)
        _some_rows(places[number, which], prepared, in_pairs, tokens, task % tasks, (raised if which else gate)[some])
    largest = np.empty(slots, np.uint32)
    for slot in prange(slots):
        _activate_row(
            gate[slot], raised[slot], weights[order[slot] // per_token, order[slot] % per_token], limit, gate[slot]
        )
        prepare_row(gate[slot], gate.shape[1], OF_FP4, block, raised[slot])
        if in_pairs:
            largest[slot] = pack_row(raised[slot], gate[slot])
    packed = in_pairs
    for slot in range(slots):
        packed = packed and largest[slot] <= LARGEST
    hidden = gate if packed else raised
    tasks = _row_tasks(places[0, 2])
    position, here = np.empty(slots, np.int64), np.empty(slots, np.int64)
    for slot in range(slots):
        position[order[slot]] = here[slot] = slot
    parts = np.empty((slots, out.shape[1]), np.float32)
    for task in prange(count * tasks):
        number = task // tasks
        some = slice(starts[number], starts[number + 1])
        _some_rows(places[number, 2], hidden, packed, here[some], task % tasks, parts[some])
    for token in prange(out.shape[0]):
        _add_rows(parts, position[token * per_token : (token + 1) * per_token], out[token])
