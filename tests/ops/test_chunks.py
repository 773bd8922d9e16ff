"""Runs of queries, compared with the computation in one go: a prompt may be cut anywhere without a trace."""

import numpy as np
import pytest

from dsv4.ops import Ops, chunks
from verdicts import exact


@pytest.mark.parametrize("length", [0, 1, 5, 12])
@pytest.mark.parametrize("most_numbers", [1, 30, 59, 60, 10**6])
def test_runs_are_joined_in_order(monkeypatch, length, most_numbers):
    monkeypatch.setattr(chunks, "MAX_NUMBERS", most_numbers)
    seen = []

    def double(x, index):
        seen.append(x.shape[1])
        return 2 * x + index[..., None]

    x, index = np.arange(2.0 * length * 3).reshape(2, length, 3), np.arange(2 * length).reshape(2, length)
    exact(chunks.over_queries(double, 10, x, index), 2 * x + index[..., None])
    assert sum(seen) == length
    assert max(seen) == min(length, max(1, most_numbers // 10))


def test_attention_and_index_scores_are_the_same_in_runs(monkeypatch):
    generator = np.random.default_rng(0)
    queries, rows = generator.standard_normal((2, 7, 3, 8)), generator.standard_normal((2, 9, 8))
    index, weights = generator.integers(-1, 9, (2, 7, 5)), generator.standard_normal((2, 7, 3))

    def both():
        attention = Ops.sparse_attention(queries, rows, index, rows, index[..., :2], weights[0, 0])
        return attention, Ops.index_scores(queries, rows, weights)

    at_once = both()
    for most_numbers in (1, 500, 1000):
        monkeypatch.setattr(chunks, "MAX_NUMBERS", most_numbers)
        for found, expected in zip(both(), at_once, strict=True):
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)
