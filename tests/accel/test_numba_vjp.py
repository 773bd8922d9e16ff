"""The vector-Jacobian products of the Numba backend: as good as NumPy's, and NumPy's own where kernels do not go."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("numba")

import tiny
from dsv4 import learn
from dsv4.checking.arrays import numbers
from dsv4.learn import Trainable, TrainableModel
from dsv4.learn.vjp import VJPS as NUMPY
from dsv4.ops import Expert, Routing
from dsv4_accel.numba import threads
from dsv4_accel.numba.vjp import OURS, VJPS
from learn.vjp.test_vjps import DENSE, arrays, hold_unwritten, pulled
from verdicts import as_good, in_dtype


def _routing(g, tokens):
    return Routing(numbers(g, tokens, 2), g.integers(0, 4, (tokens, 2)))


def _experts(g):
    matrices = [Expert(*(numbers(g, *shape) / 5 for shape in ((48, 32), (32, 48), (48, 32)))) for _ in range(5)]
    return 2 * numbers(g, 30, 32), _routing(g, 30), matrices, 1.5, False


def _mix(g):
    return numbers(g, 2, 9, 4, 48), numbers(g, 2, 9, 48), numbers(g, 2, 9, 4), numbers(g, 2, 9, 4, 4)


def _turned(x):
    """The same numbers with their axes in another order in memory."""
    return np.array(x, order="F")


LARGE = {
    "rms_norm": lambda g: (numbers(g, 3, 7, 80), numbers(g, 80), 1e-6),
    "rms_norm of turned arrays": lambda g: (_turned(numbers(g, 3, 7, 80)), numbers(g, 80), 1e-6),
    "rms_scale": lambda g: (numbers(g, 3, 7, 2, 32), 1e-6),
    "rope": lambda g: (numbers(g, 2, 5, 3, 48), g.integers(0, 5000, (2, 5)), numbers(g, 16)),
    "mhc_collapse": lambda g: _mix(g)[::2],
    "mhc_mix": _mix,
    "mhc_mix of turned arrays": lambda g: tuple(map(_turned, _mix(g))),
    "experts": _experts,
    "expert": lambda g: (2 * numbers(g, 30, 32), numbers(g, 30), _experts(g)[2][0], 1.5, True),
}
"""Shapes that kernels take, by operation."""

CASES = LARGE | {f"{name} as elsewhere": lambda g, one=one: one.arguments(g, 2, 5) for name, one in DENSE.items()}


def test_all_are_tried_at_shapes_that_kernels_take():
    assert {name.split()[0] for name in LARGE} == set(OURS)
    assert VJPS.keys() == NUMPY.keys()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(3))
def test_as_good_as_numpy(name, seed):
    arguments = CASES[name](np.random.default_rng(seed))
    found, numpy = (pulled(name, arguments, table) for table in (VJPS, NUMPY))
    truth = pulled(name, in_dtype(arguments, np.float64), NUMPY)
    for one, baseline, true in zip(arrays(found), arrays(numpy), arrays(truth), strict=True):
        assert one.dtype == np.float32
        as_good(one, true, baseline)


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_written_to(name):
    hold_unwritten(CASES[name](np.random.default_rng(0)), name, VJPS)


def _as_given(layout, d_result):
    """The gradient of a result with its axes in another order in memory, or as one number that is repeated."""
    if layout == "turned":
        return np.array(d_result, order="F")
    return np.broadcast_to(d_result.reshape(-1)[0], d_result.shape)


@pytest.mark.parametrize("layout", ["turned", "repeated"])
@pytest.mark.parametrize("name", LARGE)
def test_gradients_that_lie_in_memory_in_another_way(name, layout):
    """A sum's gradient is one number that is repeated, and cannot be written to."""
    result, pull = VJPS[name.split()[0]](*LARGE[name](np.random.default_rng(0)))
    d_result = _as_given(layout, np.random.default_rng(1).standard_normal(result.shape).astype(np.float32))
    for one, other in zip(arrays(pull(d_result)), arrays(pull(np.array(d_result, order="C"))), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", LARGE)
def test_two_threads_at_once(name):
    """As training calls them: each thread with arrays of its own, and one pullback from both."""
    calls = [LARGE[name](np.random.default_rng(seed)) for seed in range(8)]
    alone = [arrays(list(pulled(name, call, VJPS))) for call in calls]
    _, pull = VJPS[name.split()[0]](*calls[0])
    d_result = alone[0][0]
    expected = arrays(pull(d_result))
    with ThreadPoolExecutor(2) as pool:
        together = [arrays(list(found)) for found in pool.map(lambda call: pulled(name, call, VJPS), calls)]
        shared = [arrays(found) for found in pool.map(lambda _: pull(d_result), range(8))]
    for found, other in zip([*together, *shared], [*alone, *[expected] * 8], strict=True):
        for one, another in zip(found, other, strict=True):
            np.testing.assert_array_equal(one, another)


WIDE = {
    "rms_norm": lambda g: (numbers(g, 2, 512, 512), numbers(g, 512), 1e-6),
    "rms_scale": lambda g: (numbers(g, 2, 512, 512), 1e-6),
    "rope": lambda g: (numbers(g, 2, 512, 512), g.integers(0, 5000, (2, 512)), numbers(g, 32)),
    "mhc_collapse": lambda g: (numbers(g, 2, 256, 4, 512), numbers(g, 2, 256, 4)),
    "mhc_mix": lambda g: (
        numbers(g, 2, 256, 4, 512), numbers(g, 2, 256, 512), numbers(g, 2, 256, 4), numbers(g, 2, 256, 4, 4),
    ),
    "experts": lambda g: (numbers(g, 400, 32), _routing(g, 400), *_experts(g)[2:]),
    "expert": lambda g: (numbers(g, 800, 32), numbers(g, 800), _experts(g)[2][0], 1.5, True),
}  # fmt: skip
"""Shapes of which a forward kernel would spread the work over all threads."""


@pytest.mark.parametrize("name", WIDE)
def test_a_kernel_keeps_to_the_thread_that_calls_it(name, monkeypatch):
    def spread():
        raise AssertionError("a kernel asked for more threads")

    monkeypatch.setattr(threads, "are_usable", spread)
    pulled(name, WIDE[name](np.random.default_rng(0)), VJPS)


def test_all_are_tried_at_shapes_that_threads_would_share():
    assert WIDE.keys() == OURS.keys()


@pytest.mark.parametrize("name", ["experts", "expert"])
def test_experts_without_tokens(name):
    x, routing, matrices, limit, round_inputs = _experts(np.random.default_rng(0))
    none = Routing(routing.weights[:0], routing.indices[:0])
    arguments = {
        "experts": (x[:0], none, matrices, limit, round_inputs),
        "expert": (x[:0], routing.weights[:0, 0], matrices[0], limit, round_inputs),
    }[name]
    found, expected = (pulled(name, arguments, table) for table in (VJPS, NUMPY))
    for one, other in zip(arrays(list(found)), arrays(list(expected)), strict=True):
        np.testing.assert_array_equal(one, other, strict=True)


@pytest.mark.parametrize("name", ["rms_norm", "rms_scale", "rope", "mhc_collapse", "mhc_mix"])
def test_no_tokens_at_all(name):
    rows = {"rope": (0, 1), "mhc_collapse": (0, 1), "mhc_mix": (0, 1, 2, 3)}.get(name, (0,))
    arguments = LARGE[name](np.random.default_rng(0))
    none = tuple(one[:0] if place in rows else one for place, one in enumerate(arguments))
    found, expected = (pulled(name, none, table) for table in (VJPS, NUMPY))
    for one, other in zip(arrays(found), arrays(expected), strict=True):
        np.testing.assert_array_equal(one, other, strict=True)


@pytest.mark.parametrize("name", CASES)
def test_float64_is_numpys(name):
    arguments = in_dtype(CASES[name](np.random.default_rng(0)), np.float64)
    found, expected = (pulled(name, arguments, table) for table in (VJPS, NUMPY))
    for one, other in zip(arrays(found), arrays(expected), strict=True):
        np.testing.assert_array_equal(one, other, strict=True)


def test_a_model_is_trained_with_them_as_the_page_says():
    """The example of docs/training.md, on a model whose widths kernels take: other bits, the same gradients."""
    page = (Path(__file__).parents[2] / "docs/training.md").read_text(encoding="utf-8")
    [example] = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "dsv4_accel" in block]
    weights, ids = Trainable.of(tiny.checkpoint(0, **tiny.WIDE)), tiny.tokens(1, 2, 40)
    names = {"learn": learn, "model": TrainableModel(weights)}
    loss, expected = learn.gradients(names["model"], ids)
    exec(example, names)
    found_loss, found = learn.gradients(names["model"], ids)
    truth = learn.gradients(TrainableModel(Trainable.of(tiny.checkpoint(0, **tiny.WIDE), np.float64)), ids)[1]
    assert names["model"].weights is weights
    assert found_loss == pytest.approx(loss, rel=1e-5)
    assert any((found[name] != expected[name]).any() for name in found)
    sizes = {name: np.abs(true).max(initial=0) or 1 for name, true in truth.items()}

    def together(gradients):  # one verdict for the model: three numbers of NumPy's may be exact by chance
        return np.concatenate([np.ravel(gradients[name]) / size for name, size in sizes.items()])

    as_good(together(found), together(truth), together(expected))
