"""No kernel reads or writes beyond its arrays: all calls under NUMBA_BOUNDSCHECK, and proof that the check can fail.

`NUMBA_BOUNDSCHECK=1 pytest -k numba` runs the whole suite so.
"""

import numpy as np
import pytest

from accel.calls import CALLS, arguments, operation, overridden, run
from accel.processes import report_of, run_python

pytest.importorskip("numba")
import numba

from dsv4_accel.numba import NumbaOps, memory, vectors

CHECK = "import json\nfrom accel.test_numba_bounds import {0}\nprint(json.dumps({0}()))"


def in_bounds(function, *given) -> bool:
    try:
        function(*given)
    except IndexError:
        return False
    return True


def accepted_places() -> dict:
    """The places in an array of 80 items from which each load and store of 16 lanes is let through."""
    load, load_bfloats, load_words = memory.load, memory.load_bfloats, memory.load_words
    load_part, store, store_part = memory.load_part, memory.store, memory.store_part
    splat, lane_sum, lane_max_word = vectors.splat, vectors.lane_sum, vectors.lane_max_word

    attempts = {
        "load": (np.float32, lambda a, i: lane_sum(load(a, i))),
        "load_bfloats": (np.uint16, lambda a, i: lane_sum(load_bfloats(a, i))),
        "load_words": (np.uint8, lambda a, i: lane_max_word(load_words(a, i))),
        "load_part of 3": (np.float32, lambda a, i: lane_sum(load_part(a, i, 3))),
        "store": (np.float32, lambda a, i: store(a, i, splat(np.float32(1)))),
        "store_part of 3": (np.float32, lambda a, i: store_part(a, i, splat(np.float32(1)), 3)),
    }
    found = {}
    for name, (dtype, attempt) in attempts.items():
        compiled = numba.njit(attempt, boundscheck=None)
        array = np.zeros(80, dtype)
        found[name] = [place for place in range(100) if in_bounds(compiled, array, place)]
    return found


def test_a_load_or_store_that_leaves_its_array_is_an_error():
    last = {"load": 64, "load_bfloats": 64, "load_words": 16, "load_part of 3": 77, "store": 64}
    expected = {name: list(range(place + 1)) for name, place in (last | {"store_part of 3": 77}).items()}
    code = CHECK.format("accepted_places")
    assert report_of(run_python(code, NUMBA_BOUNDSCHECK="1")) == expected


def calls_out_of_bounds() -> list:
    """The calls that leave an array."""
    names = [name for name in CALLS if operation(name) in overridden()]
    return [
        f"{name}, {batch} rows"
        for name in names
        for batch in (1, 2, 7, 70)
        if not in_bounds(run, NumbaOps, name, arguments(name, batch, 3))
    ]


def test_no_call_leaves_its_arrays():
    assert report_of(run_python(CHECK.format("calls_out_of_bounds"), NUMBA_BOUNDSCHECK="1")) == []
