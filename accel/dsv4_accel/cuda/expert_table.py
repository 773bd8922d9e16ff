"""Where the matrices of experts lie on the device, as kernels look it up by an expert's number."""

import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from dsv4.ops.moe import Expert
from dsv4.ops.quantise import FP4_BLOCK, FP8_WEIGHT_BLOCK, Fp4Weight, Fp8Weight, Weight
from dsv4.ops.types import Array
from dsv4_accel.cuda.device import Device

CHUNK = 128
"""Columns of a chunk: rows are whole chunks for the kernels (weights.cuh)."""


class Form(NamedTuple):
    """What the matrices of all experts have in common."""

    storage: str
    """fp4, fp8, bfloat or float: the end of the kernels' names."""
    rows: int
    columns: int

    @property
    def chunks(self) -> int:
        """The chunks of a row."""
        return -(-self.columns // CHUNK)

    @property
    def is_quantised(self) -> bool:
        """Whether a product in the released model rounds its input for it."""
        return self.storage in ("fp4", "fp8")


class Table(NamedTuple):
    """The matrices of some experts that are alike."""

    places: Array
    """[E, 3, 2] uint64: the addresses of items and scales of w1, w3 and w2."""
    up: Form
    """Of w1 and w3."""
    down: Form
    """Of w2."""
    alive: list[Array]
    """The arrays at these addresses."""


class _Matrix(NamedTuple):
    """A matrix whose rows are whole chunks."""

    form: Form
    items: Array
    scales: Array | None


def table_of(device: Device, experts: Sequence[Expert]) -> Table | None:
    """The table of a sequence of experts, or None where they are not alike or malformed. It looks at all of them, which
    loads those that are read from a file when first asked for.

    It is kept for as long as the sequence lives, which must not change; that of a list, which may, is made each time.
    """
    return _kept((experts,), lambda: _table(device, experts))


def table_of_one(device: Device, expert: Expert) -> Table | None:
    """The table of one expert, kept for as long as its packed matrices live.

    With dense matrices it is made each time, since what is kept would keep them alive.
    """
    if all(isinstance(matrix, Fp8Weight | Fp4Weight) for matrix in expert):
        return _kept(tuple(expert), lambda: _table(device, [expert]))
    return _table(device, [expert])


_known: dict[tuple[int, ...], tuple[list[weakref.ref[Any]], Table | None]] = {}
"""The tables of owners that are still alive, by their identities."""


def _kept(owners: tuple[Any, ...], make: Callable[[], Table | None]) -> Table | None:
    """What `make` gives, once for the same owners; each time for owners that cannot be watched, as lists cannot."""
    key = tuple(map(id, owners))
    known = _known.get(key)
    if known is not None and all(one() is owner for one, owner in zip(known[0], owners, strict=True)):
        return known[1]
    found, forget = make(), _known.pop  # at the end of a process the module's names are gone before the owners
    try:
        _known[key] = [weakref.ref(owner, lambda _: forget(key, None)) for owner in owners], found
    except TypeError:
        return found
    return found


def _table(device: Device, experts: Sequence[Expert]) -> Table | None:
    places, forms, alive = [], set(), []
    for number in range(len(experts)):
        expert = experts[number]
        matrices = [_matrix(device, weight) for weight in (expert.w1, expert.w3, expert.w2)]
        gate, up, down = matrices
        if gate is None or up is None or down is None or gate.form != up.form:
            return None
        forms.add((up.form, down.form))
        for matrix in (gate, up, down):
            arrays = [matrix.items] if matrix.scales is None else [matrix.items, matrix.scales]
            places.append([*map(device.address, arrays), 0][:2])
            alive += arrays
    if len(forms) != 1:
        return None
    [(up_form, down_form)] = forms
    if up_form.rows != down_form.columns or 0 in (*up_form, *down_form):
        return None
    return Table(device.asarray(np.array(places, np.uint64).reshape(-1, 3, 2)), up_form, down_form, alive)


def _matrix(device: Device, weight: Weight) -> _Matrix | None:
    """A weight [out, in] as kernels read it, or None for one that is left to the reference."""
    match weight:
        case Fp4Weight(packed, scales):
            rows, columns = weight.shape
            fits = packed.dtype == scales.dtype == np.uint8 and columns % FP4_BLOCK == 0
            if not fits or scales.shape != (rows, columns // FP4_BLOCK):
                return None
            items = _whole_chunks(device, packed, CHUNK // 2)
            return _Matrix(Form("fp4", rows, columns), items, _whole_chunks(device, scales, CHUNK // FP4_BLOCK))
        case Fp8Weight(codes, scales):
            rows, columns = weight.shape
            squares = -(-rows // FP8_WEIGHT_BLOCK), -(-columns // FP8_WEIGHT_BLOCK)
            if not codes.dtype == scales.dtype == np.uint8 or scales.shape != squares:
                return None
            return _Matrix(Form("fp8", rows, columns), _whole_chunks(device, codes, CHUNK), device.compact(scales))
    if weight.ndim != 2 or weight.dtype not in (np.float32, ml_dtypes.bfloat16):
        return None
    is_float = weight.dtype == np.float32
    items = _whole_chunks(device, weight if is_float else weight.view(np.uint16), CHUNK)
    return _Matrix(Form("float" if is_float else "bfloat", *weight.shape), items, None)


def _whole_chunks(device: Device, rows: Any, chunk: int) -> Any:
    """The rows, with zeros behind them up to a whole number of chunks; no released model needs any."""
    height, width = rows.shape
    missing = -width % chunk
    if not missing:
        return device.compact(rows)
    padded = device.zeros((height, width + missing), rows.dtype)
    padded[:, :width] = rows
    return padded
