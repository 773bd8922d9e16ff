"""Routing by score or by token id: the first half of dsv4.ops.moe."""

import numpy as np

from dsv4.ops import moe as reference
from dsv4.ops.moe import Routing
from dsv4.ops.types import Array, Ints
from dsv4_accel.cuda.device import Device, on_host
from dsv4_accel.cuda.grouping import Groups, groups_to_come
from dsv4_accel.cuda.source import kernels

# The numbers of route.cu.
SCORE_FUNCTIONS = {"sqrtsoftplus": 0, "sigmoid": 1, "softmax": 2}
WARPS = 4
SHARED_EXPERTS = 512


def route(device: Device, logits: Array, bias: Array, k: int, score_function: str, scale: float) -> Routing:
    """As dsv4.ops.moe.route."""
    fits = logits.ndim == 2 and logits.dtype == np.float32 and bias.shape == logits.shape[1:]
    if not fits or not 1 <= k <= logits.shape[1] or score_function not in SCORE_FUNCTIONS:
        routing: Routing = on_host(device, reference.route, logits, bias, k, score_function, scale)
        return routing
    tokens, count = logits.shape
    routing = Routing(device.empty((tokens, k), np.float32), device.empty((tokens, k), np.int64))
    if tokens:
        memory = device.empty((tokens, count), np.uint32) if count > SHARED_EXPERTS else None
        arguments = (
            *(device.compact(logits), device.compact(bias.astype(np.float32, copy=False)), memory),
            *(routing.indices, routing.weights, *_groups(device, routing.indices, count)),
            *(tokens, count, k, SCORE_FUNCTIONS[score_function], scale),
        )
        _launch(device, "route", tokens, *arguments)
    return routing


def route_by_id(device: Device, logits: Array, indices: Ints, score_function: str, scale: float) -> Routing:
    """As dsv4.ops.moe.route_by_id, but numbers that name no expert are noted and not taken from the end."""
    fits = logits.ndim == indices.ndim == 2 and logits.dtype == np.float32 and len(indices) == len(logits)
    if not fits or score_function not in SCORE_FUNCTIONS:
        routing: Routing = on_host(device, reference.route_by_id, logits, indices, score_function, scale)
        return routing
    numbers = device.compact(indices if indices.dtype == np.int64 else indices.astype(np.int64))
    routing = Routing(device.empty(indices.shape, np.float32), numbers)
    if numbers.size:
        (tokens, count), k = logits.shape, indices.shape[1]
        arguments = (
            *routing[::-1],
            *_groups(device, numbers, count),
            tokens,
            count,
            k,
            SCORE_FUNCTIONS[score_function],
            scale,
        )
        _launch(device, "route_by_id", tokens, device.compact(logits), *arguments)
    return routing


def _groups(device: Device, indices: Ints, experts: int) -> Groups | tuple[None, None]:
    """Room for the groups of one token's visits, which no other launch has to make; nothing for more tokens."""
    return groups_to_come(device, indices, experts) if len(indices) == 1 else (None, None)


def _launch(device: Device, name: str, tokens: int, *arguments: object) -> None:
    device.launch(kernels("route.cu")[name], (-(-tokens // WARPS),), 32 * WARPS, (*arguments, device.status))
