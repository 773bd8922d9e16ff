"""The pullbacks of the compressor and of the indexer's scores, compared with finite differences."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dsv4.learn import vjp
from dsv4.learn.vjp import indexer
from learn.vjp.differences import hold
from strategies import generators, normal, sizes


@given(data=st.data(), batch=sizes(0, 2), blocks=sizes(0, 3), slots=sizes(1, 5), c=sizes(), generator=generators)
def test_compress(data, batch, blocks, slots, c, generator):
    """Some slots are excluded, but never the last one."""
    kv, score = (data.draw(normal(batch, blocks, slots, c)).astype(np.float64) for _ in range(2))
    excluded = generator.random((batch, blocks, slots, c)) < 0.3
    excluded[:, :, -1] = False
    score[excluded] = -np.inf
    hold("compress", (kv, score), generator)
    result, pull = vjp.compress(kv, score)
    gradients = pull(np.ones_like(result))
    assert not gradients.d_kv[excluded].any() and not gradients.d_score[excluded].any()


@given(data=st.data(), batch=sizes(0, 2), blocks=sizes(1, 4), slots=sizes(), c=sizes(0, 3), generator=generators)
def test_overlap(data, batch, blocks, slots, c, generator):
    hold("overlap", (data.draw(normal(batch, blocks, slots, 2 * c)).astype(np.float64),), generator)


@given(data=st.data(), queries_per_block=sizes(1, 3), generator=generators)
def test_index_scores(data, queries_per_block, generator):
    """Away from products of 0, where ReLU has its corner."""
    batch, length, heads, width, keys = (data.draw(sizes(least, 3)) for least in (0, 0, 1, 1, 0))
    shapes = (batch, length, heads, width), (batch, keys, width), (batch, length, heads)
    arguments = tuple(data.draw(normal(*shape)).astype(np.float64) for shape in shapes)
    products = arguments[0] @ arguments[1][:, None].swapaxes(-1, -2)
    assume((np.abs(products) > 2e-3).all())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(indexer, "QUERIES_PER_BLOCK", queries_per_block)
        hold("index_scores", arguments, generator)
