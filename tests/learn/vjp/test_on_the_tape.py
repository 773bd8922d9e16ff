"""The hand-derived products behind a model on the tape, compared with the tape's own rules."""

import numpy as np
import pytest

import tiny
from dsv4.learn import Trainable, TrainableModel, gradients, tape
from dsv4.learn.vjp import VJPS
from dsv4.ops import Expert
from dsv4.ops.map_arrays import map_arrays
from learn.vjp.test_vjps import DENSE
from verdicts import in_dtype

RELATIVE = 1e-12


def swept(ops, name, arguments):
    """The results of an operation, and its gradients by all arrays of floats, for the same gradients of the results."""
    leaves, results = [], []

    def leaf(array):
        return array if array.dtype.kind != "f" else leaves.append(tape.leaf(array)) or leaves[-1]

    operation = getattr(ops, name.split()[0])
    map_arrays([operation(*(map_arrays(one, leaf) for one in arguments))], results.append)
    generator = np.random.default_rng(99)
    loss = sum((result * generator.standard_normal(result.shape)).sum() for result in results)
    return [result.data for result in results], tape.gradients(loss, leaves)


def equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=RELATIVE * np.abs(other).max(initial=0), strict=True)


@pytest.mark.parametrize("name", [name for name in DENSE if not name.startswith("rope")])
@pytest.mark.parametrize("seed", range(3))
def test_hand_derived_is_rule_made(name, seed):
    arguments = in_dtype(DENSE[name].arguments(np.random.default_rng(seed), 2, 5), np.float64)
    for found, expected in zip(
        swept(tape.DerivedOps(VJPS), name, arguments), swept(tape.TapeOps(), name, arguments), strict=True
    ):
        equal(found, expected)


@pytest.mark.parametrize("name", ["rope", "rope of heads"])
def test_rope_with_frequencies_that_have_no_gradient(name):
    x, positions, frequencies = in_dtype(DENSE[name].arguments(np.random.default_rng(0), 2, 5), np.float64)
    found, expected = (
        swept(_WithFrequencies(ops, frequencies), name, (x, positions))
        for ops in (tape.DerivedOps(VJPS), tape.TapeOps())
    )
    equal(found[0], expected[0])
    equal(found[1], expected[1])


class _WithFrequencies:
    """A backend whose rope has its frequencies already."""

    def __init__(self, ops, frequencies):
        self.rope = lambda x, positions: ops.rope(x, positions, frequencies)


@pytest.mark.parametrize("ops", [tape.TapeOps(), tape.DerivedOps(VJPS)], ids=["rules", "hand-derived"])
class TestTies:
    """Where two sides of a corner have different slopes, both ways take the same one."""

    def test_nothing_goes_through_a_relu_at_0(self, ops):
        arguments = np.zeros((1, 1, 2, 3)), np.ones((1, 4, 3)), np.ones((1, 1, 2))
        _, found = swept(ops, "index_scores", arguments)
        assert not any(gradient.any() for gradient in found)

    def test_everything_goes_through_a_clamp_at_its_limit(self, ops):
        """gate = up = 2, the limit: h = 2σ(2) · 2, whose slopes are those of a gate and of an up without a clamp."""
        one = np.ones((1, 1))
        arguments = 2 * one, one[0], Expert(one, one, one), 2.0, False
        [weight] = np.random.default_rng(99).standard_normal((1, 1))
        _, [d_x, *_] = swept(ops, "expert", arguments)
        share = 1 / (1 + np.exp(-2))
        np.testing.assert_allclose(d_x[0], weight * (2 * (share + 2 * share * (1 - share)) + 2 * share), rtol=1e-12)


def test_a_whole_model():
    """Layers of every kind and the MTP layer, on two sequences that are longer than a block of HCA."""
    weights = Trainable.of(tiny.checkpoint(0, hc_sinkhorn_iters=20), np.float64)
    ids = tiny.tokens(1, 2, 135)
    losses = {"next_token": 1.0, "mtp": 0.3}
    expected_loss, expected = gradients(TrainableModel(weights, tape.TapeOps()), ids, losses=losses)
    loss, found = gradients(TrainableModel(weights, tape.DerivedOps(VJPS)), ids, losses=losses)
    assert loss == pytest.approx(expected_loss, rel=RELATIVE, abs=0)
    equal(found.values(), (expected[name] for name in found))
