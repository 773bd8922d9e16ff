"""Rows of activations as products read them: laid out once for all products that share them."""

from typing import NamedTuple

import numpy as np

from dsv4.ops.types import Array
from dsv4_accel.cuda.device import Device
from dsv4_accel.cuda.kept import Recent
from dsv4_accel.cuda.matrix import CHUNK
from dsv4_accel.cuda.source import kernels

THREADS = 256


class Rows(NamedTuple):
    """Activations as products take them (activations.cuh)."""

    pieces: Array
    """[1 or 3, rows, 128 · chunks] uint16: bfloat16 that add up to the numbers."""
    units: Array
    """[rows] float32: what products are to be multiplied with."""


MOST_KEPT = 12
"""Of the last inputs. What several products of a layer share is its input and the query latent, each in two ways."""

Key = tuple[int, int, int, bool]
"""Where an input lies, its rows and columns, and whether it is rounded."""

_kept: Recent[Key, Rows] = Recent(MOST_KEPT)
"""The rows of the last inputs that are still alive."""


def empty_rows(device: Device, rows: int, columns: int, rounds: bool) -> Rows:
    """Room for activations, rounded to FP8 or as they are."""
    pieces = device.empty((1 if rounds else 3, rows, -(-columns // CHUNK) * CHUNK), np.uint16)
    return Rows(pieces, device.empty((rows,), np.float32))


def prepare(
    device: Device, kernel: str, rows: int, columns: int, rounds: bool, *given: Array | None, **more: float
) -> Rows:
    """Activations from what a kernel of activations.cu computes them from; rounded to FP8, or as they are."""
    made = empty_rows(device, rows, columns, rounds)
    arguments = *given, *made, columns, rounds, *more.values()
    device.launch(kernels("activations.cu")[kernel], (rows,), THREADS, arguments)
    return made


def prepare_once(device: Device, x: Array, rows: int, columns: int, rounds: bool) -> Rows:
    """x, taken as [rows, columns], for a product; what was made of the same numbers a moment ago is not made again.

    An array of the model never changes (dsv4.ops.Ops), so what was made of it holds for as long as it lives: also for
    the same numbers in another shape.
    """
    whole = device.compact(x)
    known = _kept.get((device.address(whole), rows, columns, rounds))
    if known is not None and known[0]() is not None:
        return known[1]
    made = prepare(device, "prepare_rows", rows, columns, rounds, whole)
    keep(device, whole, columns, rounds, made)
    return made


def keep(device: Device, x: Array, columns: int, rounds: bool, made: Rows) -> None:
    """Remember what was made of x, which has no gaps, for products to come."""
    _kept.keep((device.address(x), made.units.size, columns, rounds), x, made)


def forget_all() -> None:
    """Keep nothing of what was made so far."""
    _kept.clear()
