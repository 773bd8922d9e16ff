"""Where the matrices of experts lie on the device, as kernels look it up by an expert's number."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dsv4.ops.moe import Expert
from dsv4.ops.types import Array, Bytes
from dsv4_accel.cuda.device import Device
from dsv4_accel.cuda.kept import Known, kept
from dsv4_accel.cuda.matrix import Form, but_the_weights, is_placed, matrix_of


class Table(NamedTuple):
    """The matrices of some experts that are alike."""

    places: Array
    """[E, 3, 2] uint64: the addresses of items and scales of w1, w3 and w2."""
    up: Form
    """Of w1 and w3."""
    down: Form
    """Of w2."""
    alive: list[Bytes]
    """The arrays at these addresses, but for dense weights of which the table is kept while they live."""
    lasts: bool
    """Whether all of the matrices were placed, and so do not change."""


_known: Known[Table] = {}


def table_of(device: Device, experts: Sequence[Expert]) -> Table | None:
    """The table of a sequence of experts, or None where they are not alike or malformed. It looks at all of them, which
    loads those that are read from a file when first asked for.

    If all of their matrices were placed, it is kept for as long as the sequence lives, which must not change; that of a
    list, which may, is made each time.
    """
    return kept(_known, (experts,), lambda: _table(device, experts))


def table_of_one(device: Device, expert: Expert) -> Table | None:
    """The table of one expert, kept for as long as its matrices live if they were placed."""
    return kept(_known, tuple(expert), lambda: _table_of_one(device, expert))


def _table_of_one(device: Device, expert: Expert) -> Table | None:
    table = _table(device, [expert])
    return table and table._replace(alive=but_the_weights(device, table.alive, tuple(expert)))


def _table(device: Device, experts: Sequence[Expert]) -> Table | None:
    places, forms, alive, lasts = [], set(), [], True
    for number in range(len(experts)):
        expert = experts[number]
        matrices = [matrix_of(device, weight) for weight in (expert.w1, expert.w3, expert.w2)]
        gate, up, down = matrices
        if gate is None or up is None or down is None or gate.form != up.form:
            return None
        forms.add((up.form, down.form))
        lasts = lasts and all(map(is_placed, expert))
        for matrix in (gate, up, down):
            places.append(matrix.addresses(device))
            alive += matrix.arrays
    if len(forms) != 1:
        return None
    [(up_form, down_form)] = forms
    if up_form.rows != down_form.columns or 0 in (*up_form, *down_form):
        return None
    return Table(device.asarray(np.array(places, np.uint64).reshape(-1, 3, 2)), up_form, down_form, alive, lasts)
