"""Sparse attention against one softmax written out for each query and head, and what the sink and −1 must do."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4.ops.attention import attention_shares
from strategies import generators, indices, normal, sizes
from verdicts import close, exact, hold


def naive_attention(queries, window, window_index, entries, entry_index, attn_sink):
    output = np.zeros(queries.shape)
    batch, length, heads, c = queries.shape
    for b, t, h in np.ndindex(batch, length, heads):
        keys = [window[b, i] for i in window_index[b, t] if i >= 0]
        keys += [entries[b, i] for i in entry_index[b, t] if i >= 0]
        weights = [math.exp(sum(queries[b, t, h, j] * key[j] for j in range(c)) / math.sqrt(c)) for key in keys]
        denominator = sum(weights) + math.exp(attn_sink[h])
        for key, weight in zip(keys, weights, strict=True):
            output[b, t, h] += weight / denominator * key
    return output


in_both = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@st.composite
def attention_inputs(draw):
    """The six arguments; rows and index columns may be none, and an index may be −1 or come twice."""
    batch, length, heads, c = draw(sizes(0, 2)), draw(sizes(0, 3)), draw(sizes(1, 3)), draw(sizes(1, 6))
    window_rows, entry_rows = draw(sizes(0, 5)), draw(sizes(0, 5))
    return (
        draw(normal(batch, length, heads, c)),
        draw(normal(batch, window_rows, c)),
        draw(indices(batch, length, draw(sizes(0, 5)), rows=window_rows)),
        draw(normal(batch, entry_rows, c)),
        draw(indices(batch, length, draw(sizes(0, 5)), rows=entry_rows)),
        draw(normal(heads)),
    )


def example(seed=0, dtype=np.float64):
    """Two queries of three heads over four window rows and five entries, all named once."""
    generator = np.random.default_rng(seed)
    shapes = (1, 2, 3, 8), (1, 4, 8), (1, 5, 8)
    queries, window, entries = (generator.standard_normal(shape).astype(dtype) for shape in shapes)
    window_index, entry_index = np.tile(np.arange(4), (1, 2, 1)), np.tile(np.arange(5), (1, 2, 1))
    return queries, window, window_index, entries, entry_index, generator.standard_normal(3).astype(dtype)


@given(arguments=attention_inputs())
def test_attention_is_a_softmax_over_the_named_rows(ops, arguments):
    hold(ops, "sparse_attention", naive_attention, *arguments, magnitude=16)


@given(arguments=attention_inputs())
def test_shares_are_what_the_output_is_weighted_with(arguments):
    """They sum to 1 with the sink's, are 0 where nothing is named, and weigh the values as attention does."""
    exact_arguments = [each.astype(np.float64) if each.dtype.kind == "f" else each for each in arguments]
    queries, window, window_index, entries, entry_index, _ = exact_arguments
    shares = attention_shares(*exact_arguments)
    split = window_index.shape[2]
    assert shares.shape == (*queries.shape[:3], split + entry_index.shape[2] + 1)
    np.testing.assert_allclose(shares.sum(axis=-1), 1)
    output = np.zeros(queries.shape)
    for rows, index, part in (
        (window, window_index, shares[..., :split]),
        (entries, entry_index, shares[..., split:-1]),
    ):
        for b, t, k in np.ndindex(index.shape):
            if index[b, t, k] >= 0:
                output[b, t] += part[b, t, :, k, None] * rows[b, index[b, t, k]]
            else:
                assert not part[b, t, :, k].any()
    np.testing.assert_allclose(output, naive_attention(*exact_arguments), atol=1e-12)


@pytest.mark.parametrize("length", [1, 40])
def test_many_keys(ops, length):
    """A size at which a backend works in blocks; with every key named once, it is dense attention."""
    generator = np.random.default_rng(length)
    queries = generator.standard_normal((2, length, 4, 32))
    window, entries = generator.standard_normal((2, 128, 32)), generator.standard_normal((2, 300, 32))
    window_index = np.broadcast_to(np.arange(128), (2, length, 128))
    entry_index = np.broadcast_to(np.arange(300), (2, length, 300))
    sink = generator.standard_normal(4)
    keys = np.concatenate([window, entries], axis=1)
    weights = np.exp(np.einsum("bthc,bkc->bthk", queries, keys) / math.sqrt(32))
    truth = np.einsum("bthk,bkc->bthc", weights, keys) / (weights.sum(-1) + np.exp(sink))[..., None]
    close(ops.sparse_attention(queries, window, window_index, entries, entry_index, sink), truth, magnitude=4)


def test_the_sink_takes_its_share_and_has_no_value(ops):
    """Logits 0 and sink ln 2: weights 1 : 1 : 2, so half of the mean of the two values."""
    queries, sink = np.zeros((1, 1, 1, 2)), np.array([math.log(2)])
    window, nothing = np.array([[[4.0, 8.0], [0.0, 4.0]]]), np.zeros((1, 1, 0), np.int64)
    found = ops.sparse_attention(queries, window, np.array([[[0, 1]]]), np.zeros((1, 0, 2)), nothing, sink)
    close(found, np.array([[[[1.0, 3.0]]]]))


@pytest.mark.parametrize(("sink", "share"), [(-1e30, 1), (-50, 1), (50, 0), (1e30, 0)])
def test_a_huge_sink_leaves_nothing_and_a_tiny_one_everything(ops, sink, share):
    *arguments, _ = example(dtype=np.float32)
    expected = share * naive_attention(*arguments, np.full(3, -100.0))
    found = ops.sparse_attention(*arguments, np.full(3, sink, np.float32))
    close(found, expected, magnitude=4)


@in_both
def test_each_head_has_a_sink_of_its_own(ops, dtype):
    *arguments, sink = example(dtype=dtype)
    other = sink + np.array([0, 3, 0], dtype)
    before, after = ops.sparse_attention(*arguments, sink), ops.sparse_attention(*arguments, other)
    close(after[:, :, [0, 2]], before[:, :, [0, 2]])
    share = np.linalg.norm(after[:, :, 1], axis=-1) / np.linalg.norm(before[:, :, 1], axis=-1)
    assert (share < 0.9).all()


def test_logits_are_divided_by_the_root_of_the_width(ops):
    """One key (2, 2, 2, 2), query (1, 1, 1, 1), sink 0: the logit is 8 / 2."""
    ones, nothing = np.ones((1, 1, 1, 4)), np.zeros((1, 1, 0), np.int64)
    found = ops.sparse_attention(ones, 2 * ones[0], np.array([[[0]]]), np.zeros((1, 0, 4)), nothing, np.zeros(1))
    close(found, 2 * ones * math.exp(4) / (math.exp(4) + 1))


@in_both
@given(data=st.data())
def test_minus_one_names_nothing_wherever_it_stands(ops, dtype, data):
    queries, window, window_index, entries, entry_index, sink = example(dtype=dtype)
    expected = ops.sparse_attention(queries, window, window_index, entries, entry_index, sink)
    at = data.draw(st.tuples(sizes(0, 4), sizes(0, 5)))
    window_index, entry_index = (
        np.insert(index, [place, place], -1, axis=2)
        for index, place in zip((window_index, entry_index), at, strict=True)
    )
    close(ops.sparse_attention(queries, window, window_index, entries, entry_index, sink), expected)


@in_both
@given(data=st.data())
def test_rows_that_are_not_named_do_not_matter(ops, dtype, data):
    queries, window, window_index, entries, entry_index, sink = example(dtype=dtype)
    window_index, entry_index = window_index[:, :, :2], np.where(entry_index == 4, -1, entry_index)
    expected = ops.sparse_attention(queries, window, window_index, entries, entry_index, sink)
    window, entries = window.copy(), entries.copy()
    window[:, 2:] = entries[:, 4] = data.draw(st.sampled_from([1e30, np.inf, np.nan]))
    exact(ops.sparse_attention(queries, window, window_index, entries, entry_index, sink), expected)


@in_both
@given(data=st.data())
def test_the_order_of_the_indices_does_not_matter(ops, dtype, data):
    queries, window, window_index, entries, entry_index, sink = example(dtype=dtype)
    expected = ops.sparse_attention(queries, window, window_index, entries, entry_index, sink)
    generator = data.draw(generators)
    window_index, entry_index = generator.permuted(window_index, axis=2), generator.permuted(entry_index, axis=2)
    close(ops.sparse_attention(queries, window, window_index, entries, entry_index, sink), expected, magnitude=4)


@in_both
def test_window_rows_and_entries_serve_alike(ops, dtype):
    queries, window, window_index, entries, entry_index, sink = example(dtype=dtype)
    expected = ops.sparse_attention(queries, window, window_index, entries, entry_index, sink)
    swapped = ops.sparse_attention(queries, entries, entry_index, window, window_index, sink)
    close(swapped, expected, magnitude=4)


def test_a_row_named_twice_counts_twice(ops):
    """Logits 0 and a sink that takes no share: the mean of rows 0, 1, 1."""
    queries, sink = np.zeros((1, 1, 1, 1)), np.array([-200.0])
    window, nothing = np.array([[[3.0], [9.0]]]), np.zeros((1, 1, 0), np.int64)
    found = ops.sparse_attention(queries, window, np.array([[[1, 0, 1]]]), np.zeros((1, 0, 1)), nothing, sink)
    close(found, np.array([[[[7.0]]]]))


@in_both
def test_a_query_without_keys_gets_zeros(ops, dtype):
    queries, window, window_index, entries, entry_index, sink = example(dtype=dtype)
    window_index[0, 1], entry_index[0, 1] = -1, -1
    found = ops.sparse_attention(queries, window, window_index, entries, entry_index, sink)
    exact(found[0, 1], np.zeros((3, 8), dtype))
    assert found[0, 0].all()
    nothing = np.zeros((1, 2, 0), np.int64)
    exact(ops.sparse_attention(queries, window, nothing, entries[:, :0], nothing, sink), np.zeros_like(queries))


def test_large_logits_choose_the_best_key(ops):
    queries, window, window_index, entries, entry_index, sink = example(dtype=np.float32)
    found = ops.sparse_attention(queries * 1e6, window, window_index, entries, entry_index, sink)
    keys = np.concatenate([window, entries], axis=1)[0]
    best = keys[(queries[0] @ keys.T).argmax(axis=-1)]
    close(found[0], best)


@in_both
@pytest.mark.parametrize(
    ("place", "shape"),
    [
        (1, (2, 4, 8)),
        (1, (1, 4, 7)),
        (2, (1, 3, 4)),
        (2, (2, 2, 4)),
        (3, (1, 5, 9)),
        (4, (1, 1, 5)),
        (5, (4,)),
        (5, (3, 1)),
    ],
)
def test_shapes_must_fit(ops, place, shape, dtype):
    arguments = list(example(dtype=dtype))
    arguments[place] = np.zeros(shape, arguments[place].dtype)
    with pytest.raises(ValueError, match=r"sparse_attention: .*(do not fit|must have shape)"):
        ops.sparse_attention(*arguments)


@in_both
@pytest.mark.parametrize("beyond", [0, 1, 2**40])
@pytest.mark.parametrize(("place", "rows"), [(2, 4), (4, 5)])
def test_an_index_beyond_the_rows_is_an_error(ops, place, rows, beyond, dtype):
    arguments = list(example(dtype=dtype))
    arguments[place][0, 1, 2] = rows + beyond
    with pytest.raises(ValueError, match=f"index {rows + beyond} is beyond the {rows} rows"):
        ops.sparse_attention(*arguments)
