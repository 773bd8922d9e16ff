"""Hyper-connections, compared with the formulas written out for one token, with the official outputs, and by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4.ops.mhc import MhcWeights, mhc_split, sinkhorn
from ops.naive import golden, matrix_vector, sigmoid
from strategies import normal, sizes
from verdicts import close, exact, hold

EPS = 1e-6


def naive_mixes(streams, fn, norm_eps):
    """The projected streams of one token, [n, d]."""
    z = [float(value) for stream in streams for value in stream]
    return matrix_vector(fn, z) / math.sqrt(sum(value * value for value in z) / len(z) + norm_eps)


def naive_sinkhorn(logits, iterations, eps):
    n = len(logits)
    comb = [[math.exp(logits[j][i]) / sum(map(math.exp, logits[j])) + eps for i in range(n)] for j in range(n)]
    for iteration in range(iterations):
        if iteration > 0:
            comb = [[value / (sum(row) + eps) for value in row] for row in comb]
        columns = [sum(comb[j][i] for j in range(n)) + eps for i in range(n)]
        comb = [[comb[j][i] / columns[i] for i in range(n)] for j in range(n)]
    return np.array(comb)


def naive_weights(streams, fn, base, scale, iterations, eps, norm_eps):
    batch, length, n, _ = streams.shape
    pre, post, comb = np.zeros((batch, length, n)), np.zeros((batch, length, n)), np.zeros((batch, length, n, n))
    for place in np.ndindex(batch, length):
        mixes = naive_mixes(streams[place], fn, norm_eps)
        pre[place] = [sigmoid(mixes[j] * scale[0] + base[j]) + eps for j in range(n)]
        post[place] = [2 * sigmoid(mixes[n + j] * scale[1] + base[n + j]) for j in range(n)]
        logits = [[mixes[2 * n + j * n + i] * scale[2] + base[2 * n + j * n + i] for i in range(n)] for j in range(n)]
        comb[place] = naive_sinkhorn(logits, iterations, eps)
    return MhcWeights(pre, post, comb)


def naive_head_weights(streams, fn, base, scale, eps, norm_eps):
    weights = np.zeros(streams.shape[:3])
    for place in np.ndindex(streams.shape[:2]):
        mixes = naive_mixes(streams[place], fn, norm_eps)
        weights[place] = [sigmoid(mix * scale[0] + shift) + eps for mix, shift in zip(mixes, base, strict=True)]
    return weights


@st.composite
def mhc_inputs(draw, rows_per_stream, scales):
    """streams [B, S, n, d], fn, base, scale."""
    n, d = draw(sizes(1, 4)), draw(sizes(1, 6))
    rows = rows_per_stream(n)
    streams = draw(normal(draw(sizes(0, 2)), draw(sizes(0, 3)), n, d, scale=draw(st.sampled_from([1e-3, 1, 30]))))
    return streams, draw(normal(rows, n * d, scale=0.3)), draw(normal(rows)), draw(normal(scales))


both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@given(
    inputs=mhc_inputs(lambda n: (2 + n) * n, 3),
    iterations=sizes(1, 20),
    eps=st.sampled_from([EPS, 1e-2]),
    data=st.data(),
)
def test_weights_are_their_formulas(ops, inputs, iterations, eps, data):
    norm_eps = data.draw(st.sampled_from([1e-6, 1e-2]))
    hold(ops, "mhc_weights", naive_weights, *inputs, iterations, eps, norm_eps, magnitude=8)


@pytest.mark.parametrize("n", range(1, 7))
@pytest.mark.parametrize("length", [1, 5, 16, 33])
def test_any_number_of_streams(ops, n, length):
    """Odd ones, too, and any number of tokens, after so few iterations that each of them shows."""
    generator = np.random.default_rng(n)
    shapes = (1, length, n, 5), ((2 + n) * n, 5 * n), ((2 + n) * n,), (3,)
    inputs = [generator.standard_normal(shape).astype(np.float32) for shape in shapes]
    hold(ops, "mhc_weights", naive_weights, *inputs, 2, EPS, EPS, magnitude=8)


@given(inputs=mhc_inputs(lambda n: n, 1), eps=st.sampled_from([EPS, 1e-2]), norm_eps=st.sampled_from([1e-6, 1e-2]))
def test_head_weights_are_their_formula(ops, inputs, eps, norm_eps):
    hold(ops, "mhc_head_weights", naive_head_weights, *inputs, eps, norm_eps, magnitude=8)


@both_dtypes
def test_weights_are_those_of_the_official_code(dtype):
    data = golden()
    split = mhc_split(data["mhc.mixes"].astype(dtype), data["mhc.base"], data["mhc.scale"], 4, 20, EPS)
    for name, found in split._asdict().items():
        assert found.dtype == dtype
        assert np.abs(found - data[f"mhc.{name}"]).max() <= 5e-7


def test_a_backend_weighs_as_the_official_code(ops):
    """24 channels hold the golden projections and 4 pad every token to one length, so that fn can undo the norm."""
    data = golden()
    mixes = data["mhc.mixes"].astype(np.float64)
    length = 1.01 * np.square(mixes).sum(axis=-1).max()
    pad = np.sqrt(length - np.square(mixes).sum(axis=-1, keepdims=True))
    streams = np.concatenate([mixes, pad, np.zeros((32, 3))], axis=-1).reshape(1, 32, 4, 7)
    fn = np.eye(24, 28) * math.sqrt(length / 28)
    found = ops.mhc_weights(streams, fn, data["mhc.base"], data["mhc.scale"], 20, EPS, 0.0)
    for name, one in found._asdict().items():
        assert np.abs(one[0] - data[f"mhc.{name}"]).max() <= 5e-7


def from_base(ops, base, iterations=20, eps=EPS, dtype=np.float64):
    """The weights of one token whose streams say nothing: fn is zero, and base alone decides."""
    n = math.isqrt(len(base) + 1) - 1
    streams, fn, scale = np.ones((1, 1, n, 1), dtype), np.zeros((len(base), n), dtype), np.ones(3, dtype)
    return ops.mhc_weights(streams, fn, np.array(base, dtype), scale, iterations, eps, EPS)


def test_eps_is_on_pre_and_not_on_post(ops):
    found = from_base(ops, [-60.0, 0, -60, 0, 0, 0, 0, 0])
    close(found.pre[0, 0], np.array([EPS, 0.5 + EPS]), magnitude=EPS)
    assert found.post[0, 0, 0] == pytest.approx(2 * math.exp(-60), rel=1e-12, abs=0)
    assert found.post[0, 0, 1] == 1


def test_eps_is_on_the_head(ops):
    streams, fn = np.ones((1, 1, 2, 3)), np.zeros((2, 6))
    found = ops.mhc_head_weights(streams, fn, np.array([-60.0, 0]), np.ones(1), EPS, EPS)
    close(found[0, 0], np.array([EPS, 0.5 + EPS]), magnitude=EPS)


@both_dtypes
@pytest.mark.parametrize("iterations", [1, 2, 19, 20, 21])
def test_iterations_are_counted_as_they_are(ops, iterations, dtype):
    """A matrix with a near-zero corner converges so slowly that one more round shows."""
    logits = [[0.0, 0.0], [0.0, -20.0]]
    found = from_base(ops, [0.0] * 4 + logits[0] + logits[1], iterations, dtype=dtype).comb[0, 0]
    close(found, naive_sinkhorn(logits, iterations, EPS))
    for other in (iterations - 1, iterations + 1):
        assert np.abs(found - naive_sinkhorn(logits, max(other, 0), EPS)).max() > 1e-4


def test_comb_is_made_row_by_row_and_ends_on_columns(ops):
    """One round: the softmax of a row is (¾, ¼), of the other (½, ½); then the columns are divided by 5/4 and 3/4."""
    comb = from_base(ops, [0.0] * 4 + [math.log(3), 0, 0, 0], 1, 0.0).comb[0, 0]
    close(comb, np.array([[3 / 5, 1 / 3], [2 / 5, 2 / 3]]))


@given(data=st.data(), n=sizes(1, 4))
def test_columns_sum_to_one_and_rows_nearly(ops, data, n):
    base = np.concatenate([np.zeros(2 * n), data.draw(normal(n * n))])
    comb = from_base(ops, list(base)).comb[0, 0]
    assert (comb > 0).all()
    np.testing.assert_allclose(comb.sum(axis=0), 1, rtol=0, atol=1.01 * EPS)
    np.testing.assert_allclose(comb.sum(axis=1), 1, rtol=0, atol=2e-3)


@both_dtypes
def test_huge_logits_are_safe(ops, dtype):
    comb = from_base(ops, [0.0] * 4 + [1e4, -1e4, -1e4, 1e4], dtype=dtype).comb[0, 0]
    np.testing.assert_allclose(comb, np.eye(2), rtol=0, atol=3 * EPS)
    exact(sinkhorn(np.zeros((3, 1, 1)), 1, 0.0), np.ones((3, 1, 1)))


@given(data=st.data(), factor=st.floats(0.01, 100))
def test_the_scale_of_the_streams_does_not_matter(ops, data, factor):
    streams, fn, base = data.draw(normal(1, 2, 4, 3)), data.draw(normal(24, 12)), data.draw(normal(24))
    streams, rest = streams.astype(np.float64), (fn, base, np.ones(3, np.float32), 20, EPS, 0.0)
    found, expected = ops.mhc_weights(streams * factor, *rest), ops.mhc_weights(streams, *rest)
    for one, other in zip(found, expected, strict=True):
        close(one, other, magnitude=10)


def naive_collapse(streams, pre):
    result = np.zeros((*streams.shape[:2], streams.shape[3]))
    for b, t, j in np.ndindex(streams.shape[:3]):
        result[b, t] += pre[b, t, j] * streams[b, t, j]
    return result


def naive_mix(streams, output, post, comb):
    result = np.zeros(streams.shape)
    for b, t, i in np.ndindex(streams.shape[:3]):
        result[b, t, i] = post[b, t, i] * output[b, t]
        for j in range(streams.shape[2]):
            result[b, t, i] += comb[b, t, j, i] * streams[b, t, j]
    return result


@given(data=st.data(), batch=sizes(0, 2), length=sizes(0, 3), n=sizes(1, 4), d=sizes(0, 6))
def test_collapse_and_mix_are_weighted_sums(ops, data, batch, length, n, d):
    streams, output = data.draw(normal(batch, length, n, d)), data.draw(normal(batch, length, d))
    pre, post, comb = (data.draw(normal(batch, length, *shape)) for shape in ((n,), (n,), (n, n)))
    hold(ops, "mhc_collapse", naive_collapse, streams, pre, magnitude=16)
    hold(ops, "mhc_mix", naive_mix, streams, output, post, comb, magnitude=16)


def test_comb_is_used_transposed(ops):
    """comb[0, 1] = 1: old stream 0 becomes new stream 1, and so on round."""
    streams, nothing = np.array([[[[10.0], [20.0], [30.0]]]]), np.zeros((1, 1, 3))
    comb = np.array([[[[0.0, 1, 0], [0, 0, 1], [1, 0, 0]]]])
    exact(ops.mhc_mix(streams, np.ones((1, 1, 1)), nothing, comb), np.array([[[[30.0], [10], [20]]]]))


def test_post_weighs_the_output_stream_by_stream(ops):
    streams, comb = np.ones((1, 1, 2, 2)), np.zeros((1, 1, 2, 2))
    found = ops.mhc_mix(streams, np.array([[[5.0, 7.0]]]), np.array([[[2.0, -1.0]]]), comb)
    exact(found, np.array([[[[10.0, 14], [-5, -7]]]]))


@given(data=st.data(), share=st.floats(0, 1))
def test_a_doubly_stochastic_comb_keeps_the_mean_of_the_streams(ops, data, share):
    streams, output = data.draw(normal(2, 3, 4, 5)), data.draw(normal(2, 3, 5))
    streams, output = streams.astype(np.float64), output.astype(np.float64)
    permutations = [np.eye(4)[data.draw(st.permutations(range(4)))] for _ in range(2)]
    comb = np.broadcast_to(share * permutations[0] + (1 - share) * permutations[1], (2, 3, 4, 4))
    mixed = ops.mhc_mix(streams, output, np.ones((2, 3, 4)), comb)
    close(mixed.mean(axis=2), streams.mean(axis=2) + output, magnitude=8)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((24, 12), (20,), (3,)), r"base .*\(20,\)"),
        (((24, 11), (24,), (3,)), "fn takes 11 channels, but the streams have 12"),
    ],
)
def test_shapes_must_fit(ops, shapes, message):
    fn, base, scale = (np.ones(shape, np.float32) for shape in shapes)
    with pytest.raises(ValueError, match=message):
        ops.mhc_weights(np.ones((1, 2, 4, 3), np.float32), fn, base, scale, 20, EPS, EPS)


@pytest.mark.parametrize(("rows", "scales"), [(23, 3), (25, 3), (24, 1), (24, 2), (24, 4)])
def test_rows_and_scales_must_fit(ops, rows, scales):
    fn, base, scale = np.ones((rows, 12), np.float32), np.ones(24, np.float32), np.ones(scales, np.float32)
    with pytest.raises(ValueError, match="mhc"):
        ops.mhc_weights(np.ones((1, 2, 4, 3), np.float32), fn, base, scale, 20, EPS, EPS)


@pytest.mark.parametrize(("rows", "shifts", "scales"), [(3, 4, 1), (4, 1, 1), (3, 1, 1), (4, 4, 4)])
def test_head_rows_and_scales_must_fit(ops, rows, shifts, scales):
    with pytest.raises(ValueError, match="mhc_head_weights"):
        ops.mhc_head_weights(np.ones((1, 2, 4, 3)), np.ones((rows, 12)), np.ones(shifts), np.ones(scales), EPS, EPS)


def test_head_channels_must_fit(ops):
    with pytest.raises(ValueError, match="fn takes 11 channels, but the streams have 12"):
        ops.mhc_head_weights(np.ones((1, 2, 4, 3)), np.ones((4, 11)), np.ones(4), np.ones(1), EPS, EPS)


@pytest.mark.parametrize(
    ("output", "post", "comb"), [((1, 2, 2), (1, 2, 4), (1, 2, 4, 4)), ((1, 2, 3), (1, 2, 1), (1, 2, 4, 4))]
)
def test_what_is_mixed_must_fit(ops, output, post, comb):
    with pytest.raises(ValueError, match="mhc_mix: output, post and comb must have shapes"):
        ops.mhc_mix(np.ones((1, 2, 4, 3)), np.ones(output), np.ones(post), np.ones(comb))
