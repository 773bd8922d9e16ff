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
    best, runs = _best_of_runs(device, "best_of_scores", rows, count, k, scores, visible)
    while runs > 1:
        best, runs = _best_of_runs(device, "best_of_candidates", rows, runs * k, k, best)
    room = 1 << (k - 1).bit_length()
    arguments = best, visible, entries, k, room
    device.launch(kernels(FILE)["sort_best"], (rows,), _threads(room // 2), arguments, shared=room * best.itemsize)
    return entries


def _best_of_runs(
    device: Device, kernel: str, rows: int, count: int, k: int, *candidates: Array | Ints
) -> tuple[Array, int]:
    """The k best of each run of each row's candidates, [rows, runs, k] uint64; and how many runs there are."""
    threads = _threads(-(-count // OWN))
    runs = -(-count // (OWN * threads))
    best = device.empty((rows, runs, k), np.uint64)
    device.launch(kernels(FILE)[kernel], (rows, runs), threads, (*candidates, best, count, k))
    return best, runs


def _threads(wanted: int) -> int:
    """So many threads in whole warps, if a block may have them."""
    return min(max(-(-wanted // WARP), 1) * WARP, MAX_THREADS)
