"""Rows that a launch rounds for the product behind it (rounded_chunks.cuh), and the counters that this takes."""

import weakref
from typing import Any

import numpy as np

from dsv4_accel.cuda.activations import Rows, empty_rows
from dsv4_accel.cuda.device import Device
from dsv4_accel.cuda.matrix import CHUNK

COUNTERS = 4096
"""How many there are: more than most launches for few tokens need."""

_counters: weakref.WeakKeyDictionary[Device, Any] = weakref.WeakKeyDictionary()
"""Of each device counters of 0. Launches run one after the other, and each leaves zeros (last_block.cuh)."""


def rounded_rows(device: Device, groups: int, rows: int, columns: int) -> tuple[Rows, Any] | None:
    """Room for rows rounded to FP8, and counters for the chunks of so many groups of blocks; None if too few."""
    if groups * -(-columns // CHUNK) > COUNTERS:
        return None
    return empty_rows(device, rows, columns, True), counters(device)


def counters(device: Device) -> Any:
    """[COUNTERS] uint32, all of them 0."""
    if device not in _counters:
        _counters[device] = device.zeros((COUNTERS,), np.uint32)
    return _counters[device]
