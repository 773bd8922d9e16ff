"""A result's bits do not depend on who else is computed, nor by how many threads, nor on what the processor offers."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from accel.calls import CALLS, arguments, bits, operation, overridden, rows, run
from accel.processes import report_of, run_python
from dsv4 import load
from dsv4.text.tokenizer import Tokenizer

pytest.importorskip("numba")
import numba

from dsv4_accel.numba import NumbaOps, compile, cpu

OURS = [name for name in CALLS if operation(name) in overridden()]
every_call = pytest.mark.parametrize("name", OURS)
ROWS, LENGTH = 70, 3

ALONE = [[0], [69]]
TOGETHER = [[0, 1], [67, 68, 69], [5, 4, 3, 2, 1], range(64), range(6, 70), range(69, -1, -1), range(0, 70, 3)]


def same(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(bits(one), bits(other), strict=True)


@pytest.fixture
def threads():
    """Sets how many threads kernels may use, and puts it back."""
    before = numba.get_num_threads()
    yield numba.set_num_threads
    numba.set_num_threads(before)


def test_every_operation_of_the_backend_is_here():
    assert {operation(name) for name in OURS} == set(overridden())
    assert {operation(name) for name in OURS if name.endswith("large")} == set(overridden())


@every_call
def test_a_row_does_not_depend_on_its_neighbours(name):
    """Alone, in batches of 2, 3, 5, 24, 64 and 70, and in another order."""
    given = arguments(name, ROWS, LENGTH)
    whole = run(NumbaOps, name, given)
    for chosen in map(list, ALONE + TOGETHER):
        same(run(NumbaOps, name, rows(name, given, chosen)), [part[chosen] for part in whole])


@every_call
@pytest.mark.parametrize("starts", [range(7), [0, 1, 3]])
def test_a_query_does_not_depend_on_its_chunk(name, starts):
    """A prompt of seven tokens in one go, token by token, and in chunks of 1, 2 and 4."""
    batch, length = 3, 7
    given = arguments(name, batch, length)
    per_query = [isinstance(one, np.ndarray) and one.shape[:2] == (batch, length) for one in given]
    if not per_query[0]:
        pytest.skip("takes no batch of sequences")
    whole, bounds = run(NumbaOps, name, given), [*starts, length]
    for start, stop in itertools.pairwise(bounds):
        some = [one[:, start:stop] if cut else one for one, cut in zip(given, per_query, strict=True)]
        same(run(NumbaOps, name, some), [part[:, start:stop] for part in whole])


@pytest.mark.parametrize("batch", [1, 2, ROWS])
@pytest.mark.parametrize("name", [name for name in OURS if operation(name) == "linears"])
def test_a_product_does_not_depend_on_those_beside_it(name, batch):
    x, weights, *rounds = arguments(name, batch, LENGTH)
    found = NumbaOps.linears(x, weights, *rounds)
    same(found, [NumbaOps.linear(x, weight, *rounds) for weight in weights])
    same(found[::-1], NumbaOps.linears(x, weights[::-1], *rounds))


@every_call
@pytest.mark.parametrize("batch", [1, ROWS])
def test_the_number_of_threads_does_not_matter(name, batch, threads, monkeypatch):
    given = arguments(name, batch, LENGTH)
    threads(1)
    alone = run(NumbaOps, name, given)
    monkeypatch.setattr(compile, "WORK_FOR_THREADS", 0)
    if numba.config.NUMBA_NUM_THREADS == 1:
        pytest.skip("this machine has one core")
    threads(numba.config.NUMBA_NUM_THREADS)
    same(run(NumbaOps, name, given), alone)
    same(run(NumbaOps, name, given), alone)


BATCHES = 1, 5, ROWS

WRITE = """
import json
import numpy as np
from accel.test_numba_bits import results_of_all_calls, special
from dsv4_accel.numba import cpu
np.savez(FILE, **results_of_all_calls())
print(json.dumps({"portable": cpu.PORTABLE, "special": special()}))
"""


def results_of_all_calls() -> dict:
    """Every part of every result, by what was called."""
    return {
        f"{name}, {batch} rows, result {place}": part
        for name in OURS
        for batch in BATCHES
        for place, part in enumerate(run(NumbaOps, name, arguments(name, batch, LENGTH)))
    }


def special() -> list[bool]:
    """What is special about this processor and made use of."""
    return [cpu.PERMUTES, cpu.CONVERTS_HALF, cpu.LOOKS_UP_BYTES, cpu.MULTIPLIES_BFLOATS]


def test_the_portable_path_gives_the_same_bits(tmp_path):
    """Held to the other path in a process of its own, whichever this suite runs with."""
    code = WRITE.replace("FILE", repr(str(tmp_path / "results.npz")))
    report = report_of(run_python(code, DSV4_NUMBA_PORTABLE="0" if cpu.PORTABLE else "1"))
    assert report["portable"] != cpu.PORTABLE
    assert [False] * len(special()) in (report["special"], special())
    ours, others = results_of_all_calls(), np.load(tmp_path / "results.npz")
    assert list(ours) == list(others)
    assert [name for name in ours if not np.array_equal(bits(ours[name]), bits(others[name]))] == []


@pytest.fixture(scope="module", params=["off", "on"])
def model(request):
    """The bundled model, without rounding and with it."""
    return load(backend="numba", fake_quant=request.param)


def prompts(model) -> np.ndarray:
    """Six pieces of a text, which go on for more than two HCA blocks. [6, 280]"""
    text = (Path(__file__).parents[1] / "data" / "eval" / "eval.txt").read_text(encoding="utf-8")
    return np.array(Tokenizer.from_file(model.checkpoint.directory).encode(text)[: 6 * 280]).reshape(6, 280)


def test_a_sequence_does_not_depend_on_its_batch(model):
    ids = prompts(model)
    together = model(ids)
    for chosen in ([0], [5], [3, 1], [4, 3, 2]):
        same([model(ids[chosen])], [together[chosen]])


def test_a_sequence_does_not_depend_on_its_chunks(model):
    ids = prompts(model)[:2]
    whole, cache = model(ids), model.new_cache(2)
    parts = [
        model(part, cache) for part in np.split(ids, [100, 101, 102, 103, 104, 127, 128, 129, 255, 256, 257], axis=1)
    ]
    same([np.concatenate(parts, axis=1)], [whole])


def test_a_sequence_does_not_depend_on_what_follows(model):
    ids = prompts(model)[:1]
    whole = model(ids)
    for length in (1, 5, 129, 279):
        same([model(ids[:, :length])], [whole[:, :length]])


def test_a_sequence_does_not_depend_on_padding(model):
    ids = prompts(model)[:2]
    padded, mask = np.zeros((2, 300), int), np.zeros((2, 300), bool)
    padded[0, :280], padded[1, 20:], mask[0, :280], mask[1, 20:] = ids[0], ids[1], True, True
    same([model(padded, mask=mask)[mask].reshape(2, 280, -1)], [model(ids)])


def test_the_model_does_not_depend_on_the_number_of_threads(model, threads):
    if numba.config.NUMBA_NUM_THREADS == 1:
        pytest.skip("this machine has one core")
    ids = prompts(model)[:3]
    all_threads = model(ids)
    threads(1)
    same([model(ids)], [all_threads])
