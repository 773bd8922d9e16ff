"""The experts: each token's part of a mixture, all active experts in one kernel (mirrors dsv4.ops.moe).

Tokens are grouped by expert, so that an expert's weights come from memory once for all of its tokens. A slot is one
visit of one token to one expert; slots stand in the order of their experts until each token's results are added up.
"""

from collections.abc import Callable, Sequence

import numpy as np
from llvmlite import ir
from numba import carray, prange, types
from numba.extending import intrinsic

from dsv4.ops import moe as reference
from dsv4.ops.moe import Expert, Routing
from dsv4.ops.quantise import FP8_WEIGHT_BLOCK
from dsv4.ops.types import Array, Ints
from dsv4_accel.numba.arrays import aligned, are_float32, compact
from dsv4_accel.numba.compile import inlined, kernel, merged, reads, writes
from dsv4_accel.numba.exponential import sigmoid, sigmoid_of_one
from dsv4_accel.numba.linear import FIELDS, OF_FP4, ROWS_PER_TASK, linear, prepare, prepare_pairs, prepare_row
from dsv4_accel.numba.memory import load, store
from dsv4_accel.numba.packed import CHUNK
from dsv4_accel.numba.pairs import LARGEST, pack_row
from dsv4_accel.numba.products import layout_of, multiply_rows
from dsv4_accel.numba.storage import FP4, PAIRS
from dsv4_accel.numba.vectors import LANES, maximum, minimum, splat
from dsv4_accel.numba.weights import Flat, flat

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
    gate, up = linear(x, matrices.w1, round_inputs), linear(x, matrices.w3, round_inputs)
    return linear(activated(gate, up, share, limit), matrices.w2, round_inputs)


def is_for_kernels(x: Array, share: Array, limit: float) -> bool:
    """Whether `activated` takes what one expert makes of its tokens x."""
    return are_float32(x) and x.ndim == 2 and x.size > 0 and share.shape == x.shape[:1] and limit >= 0


def activated(gate: Array, up: Array, share: Array, limit: float) -> Array:
    """share · SwiGLU(gate, up). gate, up [T, width] float32, share [T] -> [T, width]"""
    hidden = np.empty_like(gate)
    _activate(20 * gate.size, gate, up, compact(share.astype(np.float32, copy=False)), np.float32(limit), hidden)
    return hidden


Matrices = tuple[Flat, Flat, Flat]
"""Of one expert: w1, w3 and w2."""


def _alike(experts: Sequence[Expert], width: int) -> list[Matrices] | None:
    """The experts' memory, if all of them are stored in FP4, in matrices of the same shapes that fit each other."""
    found = []
    for expert in experts:
        gate, up, down = flat(expert.w1), flat(expert.w3), flat(expert.w2)
        if gate is None or up is None or down is None or not gate.storage is up.storage is down.storage is FP4:
            return None
        found.append((gate, up, down))
    up_layout, down_layout = found[0][1].layout, found[0][2].layout
    same = all((one[0].layout, one[1].layout, one[2].layout) == (up_layout, up_layout, down_layout) for one in found)
    fit = up_layout.chunks * CHUNK == width == down_layout.rows and down_layout.chunks * CHUNK == up_layout.rows
    return found if same and fit else None


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
    tokens, width = x.shape
    _, up, down = memory[0]
    places = np.array([(*w1.addresses, *w3.addresses, *w2.addresses) for w1, w3, w2 in memory])
    slots = int(indices.size)
    order, starts = np.empty(slots, np.int64), np.empty(len(active) + 1, np.int64)
    _group(slots, compact(indices.astype(np.int64, copy=False)), np.array(active), order, starts)
    gate, raised = aligned(2, slots, up.layout.rows)
    parts, out = np.empty((slots, width), np.float32), np.empty((tokens, width), np.float32)
    pairs = prepare_pairs(compact(x), up.layout.chunks, block) if block else None
    prepared = prepare(compact(x), up.layout.chunks, OF_FP4, block) if pairs is None else pairs
    _experts(
        3 * slots * width * up.layout.rows,
        *(places, up.fields, down.fields, prepared, compact(weights), order, starts, np.float32(limit)),
        *(block, pairs is not None, gate, raised, parts, out),
    )
    return out


@kernel(reads(types.int64, 2), reads(types.int64, 1), writes(types.int64, 1), writes(types.int64, 1))
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


@intrinsic
def _as_pointer(context, address):
    def code(context, builder, signature, values):
        return builder.inttoptr(values[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), code


@inlined
def _bytes_at(address, count):
    return carray(_as_pointer(address), count, np.uint8)


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
def _some_rows(place, fields, x, in_pairs, tokens, task, out):
    """Some rows of one expert's matrix, times its tokens. place: addresses of items and scales"""
    layout = layout_of(fields)
    items = _bytes_at(place[0], layout.rows * layout.row_items)
    scales = _bytes_at(place[1], layout.rows * layout.row_scales)
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
    return (layout_of(fields).rows + ROWS_PER_TASK - 1) // ROWS_PER_TASK


@kernel(
    reads(types.int64, 2),
    FIELDS,
    FIELDS,
    writes(*ROWS),
    reads(*ROWS),
    reads(types.int64, 1),
    reads(types.int64, 1),
    types.float32,
    types.intp,
    types.boolean,
    writes(*ROWS),
    writes(*ROWS),
    writes(*ROWS),
    writes(*ROWS),
)
def _experts(
    places, up_fields, down_fields, x, weights, order, starts, limit, block, in_pairs, gate, raised, parts, out
):
    """places [A, 6]; x [T, d] prepared; weights [T, k]; order [T·k]; starts [A + 1]; gate, raised [T·k, width];
    parts [T·k, d]; out [T, d]. x is only read; a type that its products share halves what is to be compiled.

    Two products from the same x, then the activation, then one product from it, then each token's sum. If x is in
    pairs, what comes from the activation is packed into pairs as well, unless some of it is too large for them.
    """
    active, slots = starts.size - 1, order.size
    per_token = slots // x.shape[0]
    tasks = _row_tasks(up_fields)
    for task in prange(2 * active * tasks):
        which, number = task // (active * tasks), task // tasks % active
        some = slice(starts[number], starts[number + 1])
        place, tokens = places[number, 2 * which : 2 * which + 2], _tokens_of(order[some], per_token)
        _some_rows(place, up_fields, x, in_pairs, tokens, task % tasks, (raised if which else gate)[some])
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
    tasks = _row_tasks(down_fields)
    position, here = np.empty(slots, np.int64), np.empty(slots, np.int64)
    for slot in range(slots):
        position[order[slot]] = here[slot] = slot
    for task in prange(active * tasks):
        number = task // tasks
        some = slice(starts[number], starts[number + 1])
        _some_rows(places[number, 4:6], down_fields, hidden, packed, here[some], task % tasks, parts[some])
    for token in prange(x.shape[0]):
        _add_rows(parts, position[token * per_token : (token + 1) * per_token], out[token])
