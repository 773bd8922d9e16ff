"""The pullbacks of matrix products and of the embedding, compared with finite differences."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dsv4.learn import vjp
from learn.vjp.differences import hold
from strategies import generators, normal, sizes


@given(data=st.data(), batch=sizes(0, 2), length=sizes(0, 3), width=sizes(1), out=sizes(1), generator=generators)
def test_linear(data, batch, length, width, out, generator):
    x, weight = (data.draw(normal(*shape)).astype(np.float64) for shape in ((batch, length, width), (out, width)))
    hold("linear", (x, weight), generator)
    if batch:
        hold("linear", (x[0], weight), generator)


@given(data=st.data(), length=sizes(0, 3), groups=sizes(1, 3), width=sizes(1), rank=sizes(1), generator=generators)
def test_grouped_linear(data, length, groups, width, rank, generator):
    x, weight = (data.draw(normal(*shape)) for shape in ((2, length, groups * width), (groups * rank, width)))
    hold("grouped_linear", (x.astype(np.float64), weight.astype(np.float64), groups), generator)


@given(data=st.data(), vocabulary=sizes(1, 5), width=sizes(1), generator=generators)
def test_embedding(data, vocabulary, width, generator):
    table = data.draw(normal(vocabulary, width)).astype(np.float64)
    ids = generator.integers(0, vocabulary, (data.draw(sizes(0, 2)), data.draw(sizes(0, 4))))
    hold("embedding", (ids, table), generator, parts=lambda *arguments: [arguments[-1]])


def test_a_row_that_is_read_twice_gets_both_gradients():
    _, pull = vjp.embedding(np.array([[2, 0, 2]]), np.zeros((4, 1)))
    d_table = pull(np.array([[[1.0], [10.0], [100.0]]])).d_table
    np.testing.assert_array_equal(d_table, [[10.0], [0.0], [101.0], [0.0]])
