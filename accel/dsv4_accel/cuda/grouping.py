"""The visits of tokens to experts, grouped by expert on the device: the host never learns who visits whom."""

import weakref
from collections import OrderedDict
from typing import NamedTuple

import numpy as np

from dsv4.ops.types import Ints
from dsv4_accel.cuda.device import Device
from dsv4_accel.cuda.source import kernels

CHUNK = 512
"""Slots per block: the number in grouping.cu."""

THREADS = 256


class Groups(NamedTuple):
    """Slots by expert. Slot t·k + v is the v-th visit of token t."""

    order: Ints
    """[T·k] int32: the slots of expert 0 as they rise, then those of expert 1, and so on."""
    tiles: Ints
    """[most tiles, 3] int32: an expert, the place in `order` of its first slot here, how many slots; at last with 0."""


def group(device: Device, indices: Ints, experts: int, tile_slots: int) -> Groups:
    """Slots in the order of their experts, in tiles of at most tile_slots slots of one expert.

    indices [T, k] int64 without gaps, not empty: the expert of each slot, 0 … experts−1. Another number is noted
    (status.py), and its slot is in no tile; `order` then ends in anything.
    """
    known = _to_come.get((device.address(indices), indices.size, experts))
    if known is not None and known[0]() is not None:
        return known[1]
    slots, chunks = indices.size, -(-indices.size // CHUNK)
    visited = min(slots, experts)  # at most so many experts have a tile that is not full
    most_tiles = (slots + visited * (tile_slots - 1)) // tile_slots
    groups = Groups(device.empty((slots,), np.int32), device.empty((most_tiles, 3), np.int32))
    counts = None
    if chunks > 1:
        counts = device.empty((chunks, experts), np.int32)
        _launch(device, "count_visits", chunks, indices, counts, slots, experts)
    _launch(device, "group_visits", chunks, indices, counts, *groups, slots, experts, tile_slots, most_tiles)
    return groups


_to_come: dict[tuple[int, int, int], tuple[weakref.ref[Ints], Groups]] = {}
"""By where the numbers of one token's experts lie, how many there are and of how many: its groups, while they live."""


def groups_to_come(device: Device, indices: Ints, experts: int) -> Groups:
    """Room for the groups of one token, one for each visit, which the caller makes together with these numbers."""
    groups = Groups(device.empty((indices.size,), np.int32), device.empty((indices.size, 3), np.int32))
    key = device.address(indices), indices.size, experts
    forget = _to_come.pop  # at the end of a process the module's names are gone before the arrays
    _to_come[key] = weakref.ref(indices, lambda _: forget(key, None)), groups
    return groups


MOST_KEPT = 8
"""Groups of one expert that are kept: those of the last numbers of tokens."""

_of_one: weakref.WeakKeyDictionary[Device, OrderedDict[tuple[int, int], Groups]] = weakref.WeakKeyDictionary()


def group_of_one(device: Device, slots: int, tile_slots: int) -> Groups:
    """As `group` for so many visits that all go to the one expert that there is; made once for each number of them."""
    known = _of_one.setdefault(device, OrderedDict())
    if (slots, tile_slots) not in known:
        known[slots, tile_slots] = group(device, device.zeros((slots, 1), np.int64), 1, tile_slots)
    known.move_to_end((slots, tile_slots))
    while len(known) > MOST_KEPT:
        known.popitem(last=False)
    return known[slots, tile_slots]


def _launch(device: Device, name: str, chunks: int, *arguments: object) -> None:
    device.launch(kernels("grouping.cu")[name], (chunks,), THREADS, (*arguments, device.status))
