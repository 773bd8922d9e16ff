"""Weights that change in place, as an optimiser changes them, and weights that were placed because they do not."""

import gc
import weakref

import ml_dtypes
import numpy as np
import pytest

from counting import numbers_of
from dsv4.ops import Expert, Routing
from dsv4.ops.map_arrays import map_arrays
from dsv4.ops.quantise import quantise_fp4, quantise_fp8
from verdicts import exact

ROWS = 96
WIDTHS = [96, 128]
"""Below a chunk of 128 columns, where backends may keep a copy that is filled up, and a whole one."""

STORAGES = {
    "float32": lambda rows: rows[:],
    "bfloat16": lambda rows: rows.astype(ml_dtypes.bfloat16)[:],
    "fp8": quantise_fp8,
    "fp4": quantise_fp4,
}
"""How rows of float32 are stored; dense ones as views, which is how a parameter of a larger array looks."""

every_weight = pytest.mark.parametrize("storage", STORAGES)
every_width = pytest.mark.parametrize("width", WIDTHS)


def matrix(storage, rows, width, seed=0):
    return STORAGES[storage](np.random.default_rng(seed).standard_normal((rows, width), np.float32))


def on(backend, weight):
    """The weight where the backend computes, as something that may change; NumPy's are copied."""
    return map_arrays(weight, lambda array: backend.asarray(array.copy())[:])


def inputs(backend, width):
    return backend.asarray(np.random.default_rng(9).standard_normal((3, width), np.float32))


@every_weight
@every_width
def test_a_weight_that_was_set_to_zero_gives_zero(backend, storage, width):
    weight, x = on(backend, matrix(storage, ROWS, width)), inputs(backend, width)
    assert np.any(backend.to_numpy(backend.linear(x, weight)))
    numbers_of(weight)[...] = 0
    exact(backend.to_numpy(backend.linear(x, weight)), np.zeros((3, ROWS), np.float32))


@every_weight
@every_width
def test_experts_that_were_set_to_zero_give_zero(backend, storage, width):
    shapes = ((128, width), (width, 128), (128, width))  # w1, w2, w3
    experts = [
        Expert(*(on(backend, matrix(storage, *shape, seed)) for seed, shape in enumerate(shapes, 3 * number)))
        for number in range(2)
    ]
    routing = Routing(backend.asarray(np.full((3, 2), 0.5, np.float32)), backend.asarray(np.array([[0, 1]] * 3)))
    arguments = inputs(backend, width), routing, experts, 10.0, False
    assert np.any(backend.to_numpy(backend.experts(*arguments)))
    for expert in experts:
        numbers_of(expert.w2)[...] = 0
    exact(backend.to_numpy(backend.experts(*arguments)), np.zeros((3, width), np.float32))


@every_weight
@every_width
@pytest.mark.parametrize("round_inputs", [False, True])
def test_a_placed_weight_gives_the_same_bits(backend, round_inputs, storage, width):
    weight, x = matrix(storage, ROWS, width), inputs(backend, width)
    placed = backend.place(weight)
    assert placed.shape == weight.shape
    expected = backend.to_numpy(backend.linear(x, on(backend, weight), round_inputs))
    for _ in range(2):  # the second time with what the first has left
        exact(backend.to_numpy(backend.linear(x, placed, round_inputs)), expected)


@every_weight
@every_width
def test_placed_weights_go_together_with_any_others(backend, storage, width):
    """With one, with several, with one that was not placed and changes, and with new ones in their place."""
    x = inputs(backend, width)
    first = backend.place(matrix(storage, ROWS, width))

    def check(*others):
        for one, weight in zip(backend.linears(x, [first, *others]), [first, *others], strict=True):
            exact(backend.to_numpy(one), backend.to_numpy(backend.linear(x, weight)))

    for seed in range(1, 6):  # each gone before the next one comes
        other = backend.place(matrix(storage, 40, width, seed))
        check(other)
        check(other, other, first)
    changes = on(backend, matrix(storage, 40, width, 7))
    check(changes)
    numbers_of(changes)[...] = 0
    check(changes)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, ml_dtypes.bfloat16])
@pytest.mark.parametrize("shape", [(), (5,), (3, 4), (2, 3, 4)])
def test_whatever_a_checkpoint_holds_can_be_placed(backend, dtype, shape):
    weight = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    placed = backend.to_numpy(backend.place(weight))
    assert placed.dtype == weight.dtype
    exact(placed, weight)


@every_weight
@every_width
def test_a_placed_weight_lives_no_longer_than_it_is_held(backend, storage, width):
    """What a backend keeps goes with it."""
    placed = backend.place(matrix(storage, ROWS, width))
    backend.linear(inputs(backend, width), placed)
    watched = weakref.ref(placed)
    del placed
    gc.collect()
    assert watched() is None
