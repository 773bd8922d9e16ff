"""The hyper-connections' pullbacks, compared with finite differences, and Sinkhorn's with all of its rounds."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dsv4.learn import vjp
from dsv4.learn.vjp.mhc import sinkhorn
from dsv4.ops import mhc
from dsv4.ops.mhc import MhcWeights
from learn.vjp.differences import hold, hold_one, same
from ops.test_mhc import mhc_inputs
from strategies import generators, normal, sizes
from verdicts import in_dtype

EPS = st.sampled_from([1e-6, 1e-2])


@given(inputs=mhc_inputs(lambda n: (2 + n) * n, 3), rounds=sizes(1, 20), eps=EPS, norm_eps=EPS, generator=generators)
def test_weights(inputs, rounds, eps, norm_eps, generator):
    hold("mhc_weights", (*in_dtype(inputs, np.float64), rounds, eps, norm_eps), generator)


@given(inputs=mhc_inputs(lambda n: n, 1), eps=EPS, norm_eps=EPS, generator=generators)
def test_head_weights(inputs, eps, norm_eps, generator):
    hold("mhc_head_weights", (*in_dtype(inputs, np.float64), eps, norm_eps), generator)


@given(data=st.data(), batch=sizes(0, 2), length=sizes(0, 3), n=sizes(1, 4), d=sizes(1, 5), generator=generators)
def test_collapse_and_mix(data, batch, length, n, d, generator):
    shapes = (batch, length, n, d), (batch, length, d), (batch, length, n), (batch, length, n, n)
    streams, output, post, comb = (data.draw(normal(*shape)).astype(np.float64) for shape in shapes)
    hold("mhc_collapse", (streams, post), generator)
    hold("mhc_mix", (streams, output, post, comb), generator)


def hold_sinkhorn(logits, rounds, eps, generator):
    result, pull = sinkhorn(logits, rounds, eps)
    same(result, mhc.sinkhorn(logits, rounds, eps))
    weight = generator.standard_normal(result.shape)

    def loss():
        return np.sum(weight * mhc.sinkhorn(logits, rounds, eps))

    hold_one(loss, logits, pull(weight), np.sum(np.abs(weight * result)), generator)


@given(logits=normal(2, 4, 4, scale=3), rounds=sizes(1, 20), eps=EPS, generator=generators)
def test_every_round_of_sinkhorn(logits, rounds, eps, generator):
    hold_sinkhorn(logits.astype(np.float64), rounds, eps, generator)


def test_sinkhorn_far_from_its_fixed_point():
    """20 rounds leave rows 2 % away from their sum, so that the fixed point's gradient would be another one."""
    logits = np.array([[0.0, -20], [0, 0]])
    assert np.abs(mhc.sinkhorn(logits, 20, 1e-6).sum(axis=-1) - 1).max() > 0.02
    hold_sinkhorn(logits, 20, 1e-6, np.random.default_rng(0))


def test_post_and_pre_by_hand():
    """Streams that say nothing: pre = σ(0) + eps has the slope ¼, and post = 2σ(0) the slope ½."""
    streams, fn, base = np.ones((1, 1, 1, 1)), np.zeros((3, 1)), np.zeros(3)
    _, pull = vjp.mhc_weights(streams, fn, base, np.ones(3), 20, 1e-6, 1e-6)
    ones = np.ones((1, 1, 1))
    gradients = pull(MhcWeights(ones, ones, ones[..., None]))
    np.testing.assert_allclose(gradients.d_base, [0.25, 0.5, 0], atol=1e-12)


def test_comb_is_used_transposed():
    """Stream 1 goes to stream 0 alone: its gradient comes from there, and only comb[1, 0] matters."""
    streams, comb = np.array([[[[2.0], [3.0]]]]), np.array([[[[0.0, 0.0], [1.0, 0.0]]]])
    _, pull = vjp.mhc_mix(streams, np.zeros((1, 1, 1)), np.zeros((1, 1, 2)), comb)
    gradients = pull(np.array([[[[5.0], [0.0]]]]))
    np.testing.assert_array_equal(gradients.d_streams, [[[[0.0], [5.0]]]])
    np.testing.assert_array_equal(gradients.d_comb, [[[[10.0, 0.0], [15.0, 0.0]]]])
