"""Sparse attention's pullback, compared with finite differences, block by block and for every kind of index."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4.learn import vjp
from dsv4.learn.vjp import attention
from learn.vjp.differences import hold, same
from ops.test_attention import attention_inputs
from strategies import generators, sizes
from verdicts import in_dtype

NO_INDEX = np.zeros((1, 2, 0), np.int64)


def example(seed=0):
    """Two queries of two heads over three window rows and two entries."""
    generator = np.random.default_rng(seed)
    queries, window, entries = (generator.standard_normal(shape) for shape in ((1, 2, 2, 4), (1, 3, 4), (1, 2, 4)))
    return [queries, window, NO_INDEX, entries, NO_INDEX, generator.standard_normal(2)]


def of_a_span(length, window, entries, ratio, seed=0):
    """What a fresh span of two sequences gives a layer: a window that moves, and all entries that are complete."""
    generator = np.random.default_rng(seed)
    shapes = (2, length, 2, 8), (2, window - 1 + length, 8), (2, entries, 8)
    queries, rows, entry_rows = (generator.standard_normal(shape) for shape in shapes)
    token = np.arange(length)[:, None]
    columns = np.where(token + np.arange(window) >= window - 1, token + np.arange(window), -1)
    visible = np.where(np.arange(entries) < (token + 1) // ratio, np.arange(entries), -1)
    indices = (np.broadcast_to(index, (2, *index.shape)) for index in (columns, visible))
    return queries, rows, next(indices), entry_rows, next(indices), generator.standard_normal(2)


@given(arguments=attention_inputs(), queries_per_block=sizes(1, 3), generator=generators)
def test_gradients_are_differences(arguments, queries_per_block, generator):
    """Rows and index columns may be none, an index may be −1 or come twice, and blocks end in the middle."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "QUERIES_PER_BLOCK", queries_per_block)
        hold("sparse_attention", in_dtype(arguments, np.float64), generator)


@pytest.mark.parametrize("length", [32, 70])
def test_gradients_of_a_span(length):
    hold("sparse_attention", of_a_span(length, 8, 4, 16), np.random.default_rng(1))


@given(queries_per_block=st.integers(1, 100))
def test_where_blocks_end_does_not_matter(queries_per_block):
    arguments = of_a_span(70, 8, 17, 4)
    d_result = np.random.default_rng(3).standard_normal((2, 70, 2, 8))
    expected, pull = vjp.sparse_attention(*arguments)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "QUERIES_PER_BLOCK", queries_per_block)
        found, other_pull = vjp.sparse_attention(*arguments)
    same(found, expected)
    same(other_pull(d_result), pull(d_result))


def test_a_query_that_names_nothing_gives_and_gets_nothing():
    queries, window, _, entries, _, sink = example()
    index = np.array([[[-1, -1], [0, 2]]])
    arguments = queries, window, index, entries, np.full((1, 2, 1), -1), sink
    hold("sparse_attention", arguments, np.random.default_rng(0))
    result, pull = vjp.sparse_attention(*arguments)
    gradients = pull(np.ones_like(result))
    assert not result[:, 0].any() and not gradients.d_queries[:, 0].any()
    assert not gradients.d_window[:, 1].any() and not gradients.d_entries.any()


def test_a_sink_alone():
    arguments = example()
    result, pull = vjp.sparse_attention(*arguments)
    assert not result.any()
    assert not any(gradient.any() for gradient in pull(np.ones_like(result)))


def test_no_entries_at_all():
    queries, window, _, entries, _, sink = example()
    arguments = queries, window, np.array([[[0, 1], [1, 2]]]), entries[:, :0], np.full((1, 2, 3), -1), sink
    hold("sparse_attention", arguments, np.random.default_rng(0))


def test_the_sink_by_hand():
    """One key (1, 0), query 0, sink 0: half of the weight each; the sink's slope is −¼ of the value."""
    queries, window = np.zeros((1, 1, 1, 2)), np.array([[[1.0, 0.0]]])
    index, none = np.zeros((1, 1, 1), np.int64), np.zeros((1, 1, 0), np.int64)
    result, pull = vjp.sparse_attention(queries, window, index, np.zeros((1, 0, 2)), none, np.zeros(1))
    np.testing.assert_allclose(result, [[[[0.5, 0.0]]]])
    gradients = pull(np.array([[[[1.0, 0.0]]]]))
    np.testing.assert_allclose(gradients.d_attn_sink, [-0.25])
    np.testing.assert_allclose(gradients.d_queries, [[[[0.25 / np.sqrt(2), 0.0]]]])
    np.testing.assert_allclose(gradients.d_window, [[[0.5, 0.0]]])


def test_a_row_named_twice_gets_twice_the_weight():
    queries, window, _, entries, _, sink = example()
    twice, once = np.array([[[0, 0, 1], [2, 2, 2]]]), np.array([[[0, 3, 1], [2, 4, 5]]])
    copies = window[:, [0, 1, 2, 0, 2, 2]]
    result, pull = vjp.sparse_attention(queries, window, twice, entries, NO_INDEX, sink)
    expected, pull_copies = vjp.sparse_attention(queries, copies, once, entries, NO_INDEX, sink)
    same(result, expected)
    d_copies = pull_copies(np.ones_like(result)).d_window[0]
    d_window = np.array([[d_copies[[0, 3]].sum(0), d_copies[1], d_copies[[2, 4, 5]].sum(0)]])
    same(pull(np.ones_like(result)).d_window, d_window)


@pytest.mark.parametrize("foreign", [np.nan, np.inf])
def test_rows_that_nobody_names_may_hold_anything(foreign):
    queries, window, _, entries, _, sink = example()
    window[:, 1] = entries[:, 0] = foreign
    arguments = queries, window, np.array([[[0, 2], [2, -1]]]), entries, np.array([[[1], [-1]]]), sink
    hold("sparse_attention", arguments, np.random.default_rng(0))
