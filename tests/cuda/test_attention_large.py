"""Attention and the indexer where there is much to read: what the examples of tests/ops are too small to reach."""

import numpy as np
import pytest

from backends import CUDA_ON_HOST, Caller, create_backend
from cuda.host_build import compiler
from dsv4.ops import Ops
from verdicts import as_good, exact

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler")


@pytest.fixture(scope="module")
def ops():
    return Caller(create_backend(CUDA_ON_HOST))


def numbers(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def attention_of(batch, length, heads, channels, near, far, seed=0):
    """Arguments with holes: a tenth of all indices names nothing, and the last query names nothing at all."""
    generator = np.random.default_rng(seed)
    window, entries = numbers(1, batch, 20, channels), numbers(2, batch, 200, channels)
    near_index, far_index = (
        generator.integers(-rows // 10, rows, (batch, length, count)).clip(-1)
        for rows, count in ((20, near), (200, far))
    )
    near_index[-1, -1], far_index[-1, -1] = -1, -1
    return numbers(3, batch, length, heads, channels), window, near_index, entries, far_index, numbers(4, heads)


SHAPES = {
    "one tile": (1, 1, 3, 8, 5, 7),
    "tiles and heads that are not full": (1, 2, 17, 20, 12, 75),
    "the released width, several splits": (1, 2, 16, 512, 20, 150),
    "a width that needs zeros behind it": (2, 1, 2, 300, 3, 64),
}


@pytest.mark.parametrize("name", SHAPES)
def test_attention(ops, name):
    given = attention_of(*SHAPES[name])
    wide = [array.astype(np.float64) if array.dtype == np.float32 else array for array in given]
    as_good(ops.sparse_attention(*given), Ops.sparse_attention(*wide), Ops.sparse_attention(*given))


def test_splits_in_blocks_of_their_own_give_the_same_bits(ops, monkeypatch):
    """Whether a query's splits are spread depends on how much else there is to do; its output does not."""
    given = attention_of(2, 3, 5, 36, 20, 150)
    launched = ops.backend.device.launched
    outputs = []
    for multiprocessors, kernel in ((1000, "merge_splits"), (1, "attention_of_queries")):
        monkeypatch.setattr(ops.backend.device, "multiprocessors", multiprocessors)
        outputs.append(ops.sparse_attention(*given))
        assert launched[-1] == kernel
    exact(*outputs)
    alone = ops.sparse_attention(*(array if array.ndim == 1 else array[1:] for array in given))
    exact(alone, outputs[0][1:])


@pytest.mark.parametrize(("which", "named"), [(2, "window"), (4, "entries")])
def test_an_index_beyond_the_rows_is_noted(ops, which, named):
    given = attention_of(1, 2, 2, 8, 5, 7)
    given[which][0, 0, 3] = 200
    with pytest.raises(ValueError, match=f"sparse_attention: {named} index 200 is beyond the"):
        ops.sparse_attention(*given)


@pytest.mark.parametrize("heads", [3, 64, 70])
def test_scores_of_several_tiles(ops, heads):
    """70 heads are more than a block sums at once, 300 keys are more than one block's, 20 channels end in a tile."""
    given = numbers(1, 2, 2, heads, 20), numbers(2, 2, 300, 20), numbers(3, 2, 2, heads)
    truth = Ops.index_scores(*(array.astype(np.float64) for array in given))
    found = ops.index_scores(*given)
    as_good(found, truth, Ops.index_scores(*given))
    exact(ops.index_scores(given[0][1:, :1], given[1][1:, 150:], given[2][1:, :1]), found[1:, :1, 150:])


def scores_of(kind, count):
    scores = numbers(5, 2, 1, count)
    if kind == "all equal":
        scores[...] = 1
    if kind == "few values":
        scores[...] = np.round(scores)
    if kind == "hardly numbers":
        scores[:, :, ::7], scores[:, :, 3::11], scores[:, :, 5::13], scores[:, :, 1] = np.nan, -np.inf, -0.0, np.inf
    return scores


@pytest.mark.parametrize("kind", ["different", "all equal", "few values", "hardly numbers"])
@pytest.mark.parametrize(("count", "k"), [(20000, 512), (8193, 1), (16384, 700), (8200, 4096)])
def test_the_best_of_several_runs(ops, kind, count, k):
    scores, visible = scores_of(kind, count), np.array([[count], [count // 3]])
    exact(ops.top_k(scores, visible, k), Ops.top_k(scores, visible, k))


def test_a_choice_in_pieces_is_the_choice(ops, monkeypatch):
    """Of a long prompt only so many scores are held at once."""
    from dsv4_accel.cuda import indexer

    given = numbers(1, 1, 5, 3, 8), numbers(2, 1, 40, 8), numbers(3, 1, 5, 3)
    visible = np.array([[0, 3, 40, 17, 9]])
    expected = ops.top_k(ops.index_scores(*given), visible, 6)
    exact(ops.index_top_k(*given, visible, 6), expected)
    monkeypatch.setattr(indexer, "MAX_SCORES", 80)
    exact(ops.index_top_k(*given, visible, 6), expected)
