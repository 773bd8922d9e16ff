"""The indexer where there are many entries: what the examples of tests/ops are too small to reach."""

import numpy as np
import pytest

from dsv4.ops import Ops, chunks
from dsv4_accel.cuda.selection import MAX_K
from verdicts import as_good, exact


def numbers(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("width", [5, 32, 132])
@pytest.mark.parametrize("heads", [3, 64, 70])
def test_scores_of_several_tiles(ops, heads, width):
    """70 heads are more than a block multiplies at once, 300 keys more than one block's, 132 channels end in a tile."""
    given = numbers(1, 2, 2, heads, width), numbers(2, 2, 300, width), numbers(3, 2, 2, heads)
    truth = Ops.index_scores(*(array.astype(np.float64) for array in given))
    as_good(ops.index_scores(*given), truth, Ops.index_scores(*given))


def test_an_infinite_key_beside_queries_of_one_piece(ops):
    """What is left of a number behind its first piece may be 0, and is not to be multiplied with infinity."""
    queries, keys, weights = np.ones((1, 1, 5, 4), np.float32), numbers(2, 1, 40, 4), np.ones((1, 1, 5), np.float32)
    queries[0, 0, 3] = 1 / 3
    expected = ops.index_scores(queries, keys, weights)
    keys[0, 7, 2] = np.inf
    expected[0, 0, 7] = np.inf
    exact(ops.index_scores(queries, keys, weights), expected)


def test_numbers_of_one_piece_have_the_same_bits_beside_others(ops):
    """Where all of a warp's keys, or of 16 heads, are one bfloat16, what would add zeros is left out."""
    queries, keys, weights = (
        np.round(4 * numbers(1, 1, 2, 20, 32)) * 2.0**-9,
        np.round(4 * numbers(2, 1, 64, 32)) * 2.0**5,
        numbers(3, 1, 2, 20),
    )
    queries, keys = queries.astype(np.float32), keys.astype(np.float32)
    expected = ops.index_scores(queries, keys, weights)
    others = keys.copy()
    others[0, 3::8] = numbers(4, 8, 32)
    same = np.arange(64) % 8 != 3
    exact(ops.index_scores(queries, others, weights)[..., same], expected[..., same])
    many = np.concatenate([queries, numbers(5, 1, 2, 1, 32)], axis=2)
    without = np.concatenate([weights, np.zeros((1, 2, 1), np.float32)], axis=2)
    exact(ops.index_scores(many, keys, without), expected)


def test_a_score_has_the_same_bits_wherever_it_stands(ops):
    queries, keys, weights = numbers(1, 2, 3, 70, 20), numbers(2, 2, 300, 20), numbers(3, 2, 3, 70)
    expected = ops.index_scores(queries, keys, weights)
    for some in (slice(0, 1), slice(150, 300), slice(129, 131), slice(None, None, -1)):
        exact(ops.index_scores(queries, keys[:, some], weights), expected[:, :, some])
    exact(ops.index_scores(queries[1:, 2:], keys[1:], weights[1:, 2:]), expected[1:, 2:])


@pytest.mark.parametrize("width", [8, 7])
def test_the_first_keys_of_a_longer_cache_are_read_where_they_are(ops, width):
    """Whole vectors are, others are copied; what stands behind the keys of a sequence is not read."""
    queries, keys, weights = numbers(1, 2, 3, 5, width), numbers(2, 2, 140, width), numbers(3, 2, 3, 5)
    cache = np.full((2, 200, width), np.nan, np.float32)
    cache[:, :140] = keys
    on_device, cache, factors = map(ops.backend.asarray, (queries, cache, weights))
    found = ops.backend.to_numpy(ops.backend.index_scores(on_device, cache[:, :140], factors))
    exact(found, ops.index_scores(queries, keys, weights))


def scores_of(kind, count):
    scores = numbers(5, 2, 1, count)
    if kind == "all equal":
        scores[...] = 1
    if kind == "few values":
        scores[...] = np.round(scores)
    if kind == "falling":
        scores[...] = np.arange(count, 0, -1)
    if kind == "the best in one run":
        scores[..., count // 2 : count // 2 + count // 4] += 100
    if kind == "hardly numbers":
        scores[:, :, ::7], scores[:, :, 3::11], scores[:, :, 5::13], scores[:, :, 1] = np.nan, -np.inf, -0.0, np.inf
    if kind == "mostly no number":
        scores[:, :, 3:-3] = np.nan
    return scores


KINDS = "different", "all equal", "few values", "falling", "the best in one run", "hardly numbers", "mostly no number"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("count", "k"), [(8192, 100), (8193, 1), (16384, 700), (20000, 512), (8200, MAX_K)])
def test_the_best_of_several_runs(ops, kind, count, k):
    """A run has 8192 entries; the second query sees fewer, and may see fewer than it chooses."""
    scores, visible = scores_of(kind, count), np.array([[count], [count // 3]])
    exact(ops.top_k(scores, visible, k), Ops.top_k(scores, visible, k))


@pytest.mark.parametrize("kind", ["different", "few values", "hardly numbers"])
def test_the_best_of_the_best_of_runs(ops, kind):
    """Six runs leave more than a run; the third step sees one."""
    scores, visible = scores_of(kind, 45000), np.array([[45000], [10]])
    ops.backend.device.launched.clear()
    exact(ops.top_k(scores, visible, 2048), Ops.top_k(scores, visible, 2048))
    assert ops.backend.device.launched == ["best_of_scores", "best_of_candidates", "sorted_of_candidates"]


@pytest.mark.parametrize("visible", [-3, 0, 1, 499, 500, 501, 8191, 8192, 8193, 8999, 9000, 9001])
@pytest.mark.parametrize("kind", ["few values", "hardly numbers"])
def test_few_are_visible(ops, kind, visible):
    scores, visible = scores_of(kind, 9000), np.full((2, 1), visible)
    clipped = np.clip(visible, 0, 9000)
    exact(ops.top_k(scores, visible, 500), Ops.top_k(scores, clipped, 500))


def test_a_choice_of_more_than_half_a_run_is_left_to_the_reference(ops):
    scores, visible = scores_of("few values", MAX_K + 9), np.full((2, 1), MAX_K + 9)
    ops.backend.device.launched.clear()
    exact(ops.top_k(scores, visible, MAX_K + 1), Ops.top_k(scores, visible, MAX_K + 1))
    assert not ops.backend.device.launched


@pytest.mark.parametrize("length", [1, 3])
def test_both_steps_at_once_are_the_two_steps(ops, length):
    """More keys than a run has; what is not visible has no score, and needs none."""
    given = numbers(1, 1, length, 2, 4), numbers(2, 1, 8300, 4), numbers(3, 1, length, 2)
    visible = np.array([[8300, 130, 0]])[:, :length]
    exact(ops.index_top_k(*given, visible, 300), ops.top_k(ops.index_scores(*given), visible, 300))


def test_a_choice_in_pieces_is_the_choice(ops, monkeypatch):
    """Of a long prompt only so many scores are held at once."""
    given = numbers(1, 1, 5, 3, 8), numbers(2, 1, 40, 8), numbers(3, 1, 5, 3)
    visible = np.array([[0, 3, 40, 17, 9]])
    expected = ops.top_k(ops.index_scores(*given), visible, 6)
    exact(ops.index_top_k(*given, visible, 6), expected)
    monkeypatch.setattr(chunks, "MAX_NUMBERS", 80)
    ops.backend.device.launched.clear()
    exact(ops.index_top_k(*given, visible, 6), expected)
    assert ops.backend.device.launched.count("index_scores") == 3
