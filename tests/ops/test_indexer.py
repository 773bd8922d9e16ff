"""Index scores against the sum written out head by head, and top-k against a sort of one query's visible entries."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4.ops import Ops, chunks
from strategies import generators, laid_out, normal, sizes, with_ties
from verdicts import as_good, close, exact, hold


def naive_scores(queries, keys, weights):
    batch, length, heads, width = queries.shape
    scores = np.zeros((batch, length, keys.shape[1]))
    for b, t, i in np.ndindex(scores.shape):
        for h in range(heads):
            product = sum(float(queries[b, t, h, j]) * float(keys[b, i, j]) for j in range(width))
            scores[b, t, i] += float(weights[b, t, h]) * max(product, 0.0)
    return scores


@given(data=st.data(), batch=sizes(0, 2), length=sizes(0, 3), entries=sizes(), heads=sizes(1, 3), width=sizes(1, 8))
def test_scores_are_a_weighted_sum_of_positive_products(ops, data, batch, length, entries, heads, width):
    queries, keys = data.draw(normal(batch, length, heads, width)), data.draw(normal(batch, entries, width))
    weights = data.draw(normal(batch, length, heads))
    hold(ops, "index_scores", naive_scores, queries, keys, weights, magnitude=3 * heads * width)


def test_relu_comes_before_the_weight(ops):
    """Products 2 and −3 with weights −1 and −1: −1·2 + −1·0, neither ReLU(−2 + 3) nor ReLU(−2) + ReLU(3)."""
    queries = np.array([[[[2.0], [-3.0]]]], np.float32)
    scores = ops.index_scores(queries, np.array([[[1.0]]], np.float32), np.array([[[-1.0, -1.0]]], np.float32))
    exact(scores, np.array([[[-2.0]]], np.float32))


@pytest.mark.parametrize("length", [5, 70])
def test_many_entries(ops, length):
    """A size at which a backend works in blocks."""
    generator = np.random.default_rng(length)
    queries, keys = generator.standard_normal((1, length, 4, 16)), generator.standard_normal((1, 300, 16))
    weights = generator.standard_normal((1, length, 4))
    truth = np.einsum("bth,bthi->bti", weights, np.maximum(np.einsum("bthd,bid->bthi", queries, keys), 0))
    close(ops.index_scores(queries, keys, weights), truth)


@pytest.mark.parametrize("heads", [1, 16, 17, 63, 64, 65, 130])
@pytest.mark.parametrize("entries", [1, 5, 6, 7, 64, 193, 400])
def test_sizes_around_those_of_blocks(ops, heads, entries):
    """Heads and entries that fill the vectors and tiles of a backend, and that do not; weights of both signs."""
    generator = np.random.default_rng([heads, entries])
    shapes = (2, 3, heads, 20), (2, entries, 20), (2, 3, heads)
    queries, keys, weights = (generator.standard_normal(shape).astype(np.float32) for shape in shapes)
    truth = Ops.index_scores(*(array.astype(np.float64) for array in (queries, keys, weights)))
    baseline = Ops.index_scores(queries, keys, weights)
    as_good(ops.index_scores(queries, keys, weights), truth, baseline, magnitude=20 * heads**0.5)


@pytest.mark.parametrize("heads", [3, 64, 70])
@pytest.mark.parametrize("special", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_stays_with_its_key(ops, heads, special):
    """A key of infinity or NaN has the score that its products give, and its neighbours have theirs."""
    generator = np.random.default_rng(heads)
    queries, weights = (
        np.abs(generator.standard_normal((1, 1, heads, 4))),
        np.abs(generator.standard_normal((1, 1, heads))),
    )
    keys = generator.standard_normal((1, 20, 4))
    queries, keys, weights = (array.astype(np.float32) for array in (queries, keys, weights))
    expected = ops.index_scores(queries, keys, weights)
    keys[0, 7] = special
    expected[0, 0, 7] = max(special, 0) if special == special else np.nan
    exact(ops.index_scores(queries, keys, weights), expected)


@pytest.mark.parametrize(
    ("keys", "weights"), [((1, 3, 5), (1, 2, 2)), ((2, 3, 4), (1, 2, 2)), ((1, 3, 4), (1, 2, 1)), ((1, 3, 4), (1, 2))]
)
def test_scores_need_fitting_shapes(ops, keys, weights):
    with pytest.raises(ValueError, match=r"index_scores: .* do not fit"):
        ops.index_scores(np.ones((1, 2, 2, 4), np.float32), np.ones(keys, np.float32), np.ones(weights, np.float32))


def naive_top_k(scores, visible, k):
    """What is not visible comes behind all numbers, and NaN comes last."""
    batch, length, entries = scores.shape
    chosen = np.full((batch, length, min(k, entries)), -1, np.int64)
    for b, t in np.ndindex(batch, length):
        candidates = range(min(int(visible[b, t]), entries))
        numbers = [entry for entry in candidates if not np.isnan(scores[b, t, entry])]
        best = sorted(numbers, key=lambda entry: (-scores[b, t, entry], entry))
        hidden = [-1] * (entries - len(candidates))
        rest = [entry for entry in candidates if np.isnan(scores[b, t, entry])]
        chosen[b, t] = [*best, *hidden, *rest][:k]
    return chosen


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("values", [normal, with_ties])
@given(data=st.data(), batch=sizes(0, 3), length=sizes(0, 3), entries=sizes(0, 9), k=sizes(1, 12))
def test_top_k_sorts_visible_entries(ops, values, dtype, data, batch, length, entries, k):
    scores = data.draw(values(batch, length, entries)).astype(dtype)
    visible = data.draw(generators).integers(0, entries + 1, (batch, length))
    exact(ops.top_k(scores, data.draw(laid_out(visible)), k), naive_top_k(scores, visible, k))


def test_among_equals_the_lowest_number_comes_first(ops):
    scores = np.array([[[0, 7, 0, 7, 0, -0.0, 7, 7]]], np.float32)
    exact(ops.top_k(scores, np.array([[8]]), 6), np.array([[[1, 3, 6, 7, 0, 2]]]))
    exact(ops.top_k(scores, np.array([[7]]), 8), np.array([[[1, 3, 6, 0, 2, 4, 5, -1]]]))


@pytest.mark.parametrize(("visible", "expected"), [(0, [-1, -1]), (1, [0, -1]), (2, [1, 0]), (3, [2, 1])])
def test_what_is_not_visible_is_never_chosen(ops, visible, expected):
    scores = np.array([[[1, 2, 3]]], np.float32)
    exact(ops.top_k(scores, np.array([[visible]]), 2), np.array([[expected]]))


def test_scores_of_minus_infinity_are_visible(ops):
    scores = np.array([[[-np.inf, 1, -np.inf, 5]]], np.float32)
    exact(ops.top_k(scores, np.array([[3]]), 4), np.array([[[1, 0, 2, -1]]]))


@pytest.mark.parametrize("k", [1, 64, 500, 512, 1000])
@pytest.mark.parametrize("distinct", [3, 10**6])
def test_top_k_of_many(ops, k, distinct):
    """A size at which a backend selects by thresholds, with many exact ties and with almost none."""
    generator = np.random.default_rng(k)
    scores = generator.integers(0, distinct, (1, 3, 1000)).astype(np.float32)
    visible = np.array([[1000, 600, 30]])
    exact(ops.top_k(scores, visible, k), naive_top_k(scores, visible, k))


@pytest.mark.parametrize("k", [1, 7, 16, 17, 64, 300, 2000])
@pytest.mark.parametrize("entries", [1, 15, 16, 17, 63, 64, 65, 300, 1100])
def test_ties_and_what_is_no_number(ops, k, entries):
    """Ties, infinities and NaN anywhere, and at the last place that is chosen; few, some and all entries visible."""
    generator = np.random.default_rng([k, entries])
    few = np.array([0, -0.0, 1, 2, -np.inf, np.inf, np.nan])
    rows = [
        generator.standard_normal(entries),
        generator.choice(few, entries),
        generator.choice(few[:2], entries),
        np.where(generator.random(entries) < 0.02, 1, 0),
        np.sort(generator.standard_normal(entries)),
        -np.sort(generator.integers(0, 9, entries)),
        np.full(entries, -np.inf),
        np.where(generator.random(entries) < 0.9, np.nan, generator.standard_normal(entries)),
        np.full(entries, np.nan),
    ]
    scores = np.array([rows] * 5, np.float32)  # [5, 9, entries]
    visible = np.array([-3, 0, entries // 2, entries, entries + 5]).repeat(len(rows)).reshape(5, -1)
    expected = naive_top_k(scores, np.clip(visible, 0, entries), k)
    exact(ops.top_k(scores, visible, k), expected)


@pytest.mark.parametrize("magnitude", [1e-45, 1e-38, 1.0, 3e38])
def test_neighbouring_numbers_are_told_apart(ops, magnitude):
    """One unit in the last place decides, for subnormal numbers as well."""
    start = np.float32(magnitude).view(np.int32)
    numbers = (start + np.random.default_rng(0).permutation(200) // 2).astype(np.int32).view(np.float32)
    scores = np.concatenate([numbers, -numbers])[None, None]
    visible = np.array([[400]])
    for k in (1, 99, 100, 101, 301):
        exact(ops.top_k(scores, visible, k), naive_top_k(scores, visible, k))


@pytest.mark.parametrize(("k", "visible"), [(0, (1, 2)), (-1, (1, 2)), (3, (2,)), (3, (1, 3)), (3, (1, 2, 1))])
def test_top_k_needs_a_positive_k_and_fitting_shapes(ops, k, visible):
    with pytest.raises(ValueError, match=f"k = {k} must be positive and visible"):
        ops.top_k(np.ones((1, 2, 4), np.float32), np.ones(visible, np.int64), k)


@given(data=st.data(), batch=sizes(0, 2), length=sizes(0, 3), entries=sizes(0, 9), k=sizes(1, 12))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_both_steps_at_once(ops, dtype, data, batch, length, entries, k):
    arrays = (
        data.draw(normal(batch, length, 3, 5)),
        data.draw(normal(batch, entries, 5)),
        data.draw(normal(batch, length, 3)),
    )
    arrays = [array.astype(dtype) for array in arrays]
    visible = data.draw(generators).integers(0, entries + 1, (batch, length))
    exact(ops.index_top_k(*arrays, visible, k), ops.top_k(ops.index_scores(*arrays), visible, k))


@pytest.mark.parametrize("entries", [1, 64, 191, 193, 400, 3000])
@pytest.mark.parametrize("k", [1, 5, 64, 512])
def test_both_steps_at_once_for_many_entries(ops, entries, k):
    """Products of small integers are exact in any order, so that many scores are equal; each query sees more."""
    generator = np.random.default_rng([entries, k])
    shapes = (2, 4, 9, 8), (2, entries, 8), (2, 4, 9)
    queries, keys, weights = (generator.integers(-1, 2, shape).astype(np.float32) for shape in shapes)
    visible = np.array([[0, 1, entries // 2, entries], [entries, entries + 3, -1, entries]])
    expected = naive_top_k(Ops.index_scores(queries, keys, weights), np.clip(visible, 0, entries), k)
    exact(ops.index_top_k(queries, keys, weights, visible, k), expected)


@pytest.mark.parametrize("most_numbers", [1, 100, 10**6])
def test_a_long_prompt_is_gone_through_in_runs(ops, monkeypatch, most_numbers):
    generator = np.random.default_rng(0)
    shapes = (2, 7, 3, 8), (2, 40, 8), (2, 7, 3)
    queries, keys, weights = (generator.integers(-3, 4, shape).astype(np.float32) for shape in shapes)
    visible = generator.integers(0, 41, (2, 7))
    expected = naive_top_k(Ops.index_scores(queries, keys, weights), visible, 6)
    monkeypatch.setattr(chunks, "MAX_NUMBERS", most_numbers)
    exact(ops.index_top_k(queries, keys, weights, visible, 6), expected)


def test_what_is_not_visible_is_of_no_account(ops):
    """Keys behind the visible ones may hold anything: NaN and huge numbers are neither chosen nor in the way."""
    generator = np.random.default_rng(1)
    shapes = (1, 2, 20, 8), (1, 100, 8), (1, 2, 20)
    queries, keys, weights = (generator.standard_normal(shape).astype(np.float32) for shape in shapes)
    visible = np.array([[70, 33]])
    expected = ops.index_top_k(queries, keys, weights, visible, 50)
    keys[:, 70:] = np.array([np.nan, 1e30] * 15)[:, None]
    exact(ops.index_top_k(queries, keys, weights, visible, 50), expected)


@pytest.mark.parametrize(
    ("keys", "weights", "visible", "k", "message"),
    [
        ((1, 3, 5), (1, 2, 2), (1, 2), 1, "do not fit"),
        ((2, 3, 4), (1, 2, 2), (1, 2), 1, "do not fit"),
        ((1, 3, 4), (1, 3, 2), (1, 2), 1, "do not fit"),
        ((1, 3, 4), (1, 2, 2), (1, 3), 1, "must fit queries"),
        ((1, 3, 4), (1, 2, 2), (2,), 1, "must fit queries"),
        ((1, 3, 4), (1, 2, 2), (1, 2), 0, "k = 0 must be positive"),
    ],
)
def test_both_steps_at_once_need_a_positive_k_and_fitting_shapes(ops, keys, weights, visible, k, message):
    arrays = (np.ones(shape, np.float32) for shape in ((1, 2, 2, 4), keys, weights))
    with pytest.raises(ValueError, match=f"index_top_k: .*{message}"):
        ops.index_top_k(*arrays, np.ones(visible, np.int64), k)
