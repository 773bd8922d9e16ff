"""The best entries of each query: the kernels behind top_k of dsv4.ops.indexer."""

import numpy as np

from dsv4.ops.types import Array, Ints
from dsv4_accel.cuda.device import Device
from dsv4_accel.cuda.source import kernels

FILE = "selection.cu"
OWN, MAX_THREADS = 16, 512
"""Candidates of a thread and threads of a block, as the kernels have them."""

WARP = 32

MAX_K = OWN * MAX_THREADS // 2
"""Each step leaves at most half of the candidates; a sort of so many needs 32 KiB of shared memory."""


def best_entries(device: Device, scores: Array, visible: Ints, k: int) -> Ints:
    """scores [B, S, T] float32, visible [B, S] int64, both without gaps; 1 <= k <= MAX_K -> [B, S, min(k, T)] int64"""
    batch, length, count = scores.shape
    rows, k = batch * length, min(k, count)
    entries = device.empty((batch, length, k), np.int64)
    if not entries.size:
        return entries
    left: Array | Ints = scores
    step = "scores"
    while left.size > rows * OWN * MAX_THREADS:  # more than one block takes of a row
        left, step = _best_of_runs(device, step, rows, k, left, visible), "candidates"
    count, room = left.size // rows, 1 << (k - 1).bit_length()
    arguments = left, visible, entries, count, k, room
    threads, shared = _threads(-(-count // OWN)), room * np.dtype(np.uint64).itemsize
    device.launch(kernels(FILE)[f"sorted_of_{step}"], (rows,), threads, arguments, shared)
    return entries


def _best_of_runs(device: Device, step: str, rows: int, k: int, left: Array | Ints, visible: Ints) -> Ints:
    """The k best of each run of what is left of each row, scores or candidates: [rows, runs, k] uint64."""
    count = left.size // rows
    threads = _threads(-(-count // OWN))
    runs = -(-count // (OWN * threads))
    best = device.empty((rows, runs, k), np.uint64)
    arguments = (left, visible) if step == "scores" else (left,)
    device.launch(kernels(FILE)[f"best_of_{step}"], (rows, runs), threads, (*arguments, best, count, k))
    return best


def _threads(wanted: int) -> int:
    """So many threads in whole warps, if a block may have them."""
    return min(max(-(-wanted // WARP), 1) * WARP, MAX_THREADS)
