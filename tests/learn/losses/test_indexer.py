"""The indexer's loss and target: by hand, against attention itself, by finite differences, and on whole models."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiny
from dsv4.learn.losses.indexer import (
    attention_to_entries,
    chosen_entries,
    indexer_kl,
    indexer_losses,
    indexer_target,
    visible_entries,
)
from dsv4.ops import Ops
from learn.duck import Duck
from learn.losses.traces import IDS, LAYERS, REAL, trace
from strategies import generators, sizes


def random_pieces(generator, batch=2, length=9, heads=3, entries=2, c=6):
    """Queries, window keys, entries, a sink for each head, a window of 4, and which entries each query considers."""
    shapes = (batch, length, heads, c), (batch, length, c), (batch, entries, c), (heads,)
    return *(generator.standard_normal(shape) for shape in shapes), 4, generator.random((batch, length, entries)) < 0.7


def by_attention(queries, window, entries, attn_sink, width, considered):
    """The shares by `sparse_attention` itself: each entry has a one in a channel of its own, where the values sum."""
    batch, length, _, c = queries.shape
    count = entries.shape[1]
    queries = np.pad(queries * np.sqrt((c + count) / c), [(0, 0)] * 3 + [(0, count)])
    marked = np.concatenate([entries, np.broadcast_to(np.eye(count), (batch, count, count))], axis=-1)
    rows = np.pad(window, [(0, 0), (0, 0), (0, count)])
    back = np.arange(length)[:, None] - np.arange(width)
    window_index = np.broadcast_to(np.where(back >= 0, back, -1), (batch, length, width))
    entry_index = np.where(considered, np.arange(count), -1)
    output = Ops.sparse_attention(queries, rows, window_index, marked, entry_index, attn_sink)
    return output[..., c:].mean(axis=2)


@given(generator=generators, length=sizes(1, 9), entries=sizes(0, 4), heads=sizes(1, 3))
def test_attention_to_entries_is_what_attention_gives_them(generator, length, entries, heads):
    pieces = random_pieces(generator, length=length, entries=entries, heads=heads)
    np.testing.assert_allclose(attention_to_entries(*pieces), by_attention(*pieces), rtol=0, atol=1e-12)


@pytest.mark.parametrize("width", [1, 4, 70, 200])
def test_a_longer_text_is_taken_in_runs(width):
    """Of 64 queries, with the window before them."""
    queries, window, entries, sink, _, considered = random_pieces(np.random.default_rng(4), length=150, entries=5)
    pieces = queries, window, entries, sink, width, considered
    np.testing.assert_allclose(attention_to_entries(*pieces), by_attention(*pieces), rtol=0, atol=1e-12)


def test_one_query_by_hand():
    """Logits of two heads: 0 for the window's two keys and the sink; log 2 and log 5 for two entries, the other way
    round for the second head; a third entry is not considered."""
    queries = np.zeros((1, 2, 2, 4))
    queries[0, 1, :, :2] = [[2, 0], [0, 2]]  # divided by √4
    entries = np.array([[[np.log(2), np.log(5), 0, 0], [np.log(5), np.log(2), 0, 0], [9, 9, 0, 0]]])
    considered = np.array([[[False, False, False], [True, True, False]]])
    sink = np.array([0, np.log(3)])
    found = attention_to_entries(queries, np.zeros((1, 2, 4)), entries, sink, 2, considered)
    expected = [(2 / 10 + 5 / 12) / 2, (5 / 10 + 2 / 12) / 2, 0]
    np.testing.assert_allclose(found[0], [[0, 0, 0], expected], rtol=1e-14)
    total = sum(expected)
    np.testing.assert_allclose(indexer_target(found)[0, 1], [part / total for part in expected], rtol=1e-14)


@given(generator=generators)
def test_a_sink_moves_the_target(generator):
    """Were it normalised over entries alone, a sink, which gives them nothing, could not."""
    queries, window, entries, sink, width, considered = random_pieces(generator)
    considered = considered | True
    other = sink + np.array([3, 0, 0])
    before, after = (
        indexer_target(attention_to_entries(queries, window, entries, one, width, considered)) for one in (sink, other)
    )
    assert np.abs(before - after).max() > 1e-4


@given(generator=generators)
def test_the_window_moves_the_target(generator):
    queries, window, entries, sink, width, considered = random_pieces(generator)
    considered = considered | True
    before, after = (
        indexer_target(attention_to_entries(queries, one, entries, sink, width, considered))
        for one in (window, 2 * window)
    )
    assert np.abs(before - after).max() > 1e-4


def test_large_logits_and_rows_without_an_entry_give_no_nan():
    queries, window, entries, sink, width, considered = random_pieces(np.random.default_rng(0))
    considered[0] = False
    shares = attention_to_entries(1e3 * queries, window, 1e3 * entries, sink, width, considered)
    target = indexer_target(shares)
    assert not target[0].any()
    sums = target.sum(axis=-1)
    np.testing.assert_allclose(sums[sums != 0], 1, rtol=1e-12)
    assert (sums[considered.any(axis=-1)] != 0).any()


def test_divergence_by_hand():
    """p = (3/4, 1/4) against equal scores; the other way round it would be another number."""
    target = np.array([[[0.75, 0.25, 0]]])
    scores = np.array([[[2.0, 2.0, 7.0]]])
    found = indexer_kl(scores, target, np.array([[[True, True, False]]]))
    np.testing.assert_allclose(found, [[0.75 * np.log(1.5) + 0.25 * np.log(0.5)]], rtol=1e-14)


def test_scores_that_are_the_target_diverge_by_nothing():
    generator = np.random.default_rng(1)
    target = generator.dirichlet(np.ones(5), (2, 3))
    scores = np.log(target) + generator.standard_normal((2, 3, 1))
    np.testing.assert_allclose(indexer_kl(scores, target, np.ones((2, 3, 5), bool)), 0, rtol=0, atol=1e-14)


def test_a_query_that_sees_no_entry_adds_nothing():
    scores, nothing = np.full((1, 2, 3), 5.0), np.zeros((1, 2, 3))
    assert not indexer_kl(scores, nothing, nothing.astype(bool)).any()


@given(generator=generators, entries=sizes(1, 5))
def test_its_gradient_is_share_less_target(generator, entries):
    considered = generator.random((1, 3, entries)) < 0.7
    target = np.where(considered, generator.random((1, 3, entries)), 0)
    total = target.sum(axis=-1, keepdims=True)
    target = np.divide(target, total, out=np.zeros_like(target), where=total > 0)
    scores = generator.standard_normal((1, 3, entries))
    weight = np.where(considered, np.exp(scores), 0)
    share = weight / np.where(total > 0, weight.sum(axis=-1, keepdims=True), 1)
    step = 1e-6
    for place in np.ndindex(scores.shape):
        shift = np.zeros_like(scores)
        shift[place] = step
        above, below = (indexer_kl(scores + sign * shift, target, considered).sum() for sign in (1, -1))
        np.testing.assert_allclose((above - below) / (2 * step), (share - target)[place], rtol=0, atol=1e-8)


def test_a_tapes_tensors_do():
    generator = np.random.default_rng(2)
    target = generator.dirichlet(np.ones(4), (1, 3)).astype(np.float32)
    scores, considered = generator.standard_normal((1, 3, 4)).astype(np.float32), np.ones((1, 3, 4), bool)
    considered[0, 0], target[0, 0] = False, 0
    found = indexer_kl(Duck(scores), target, considered)
    np.testing.assert_array_equal(found.data, indexer_kl(scores, target, considered))
    assert found.dtype == np.float32


def test_an_entry_is_visible_as_soon_as_its_last_token_is_there():
    mask = np.arange(9)[None] < 8
    expected = [[False, False]] * 3 + [[True, False]] * 4 + [[True, True]] + [[False, False]]
    np.testing.assert_array_equal(visible_entries(mask, 2)[0], expected)


def test_chosen_entries_without_those_that_name_nothing():
    topk = np.array([[[2, -1, 0], [-1, -1, -1]]])
    np.testing.assert_array_equal(chosen_entries(topk, 4), [[[True, False, True, False], [False] * 4]])


def by_loops(model, seen, name, scope):
    """The loss of a layer, one query after another."""
    attn = model.layers[int(name.split(".")[1])].attn
    q, kv, entries = (seen[name + piece] for piece in ("q", "kv", "compressor.out"))
    scores, topk = seen[f"{name}indexer.scores"], seen[f"{name}indexer.topk"]
    total = 0.0
    for row, position in np.ndindex(*q.shape[:2]):
        visible = range((position + 1) // 4)
        considered = [entry for entry in topk[row, position] if entry >= 0] if scope == "chosen" else [*visible]
        if not considered:
            continue
        first = max(0, position - model.config.sliding_window + 1)
        target = np.zeros(len(considered))
        for head, query in enumerate(q[row, position]):
            keys = np.concatenate([entries[row, considered], kv[row, first : position + 1]])
            weight = np.exp(np.append(keys @ query / np.sqrt(len(query)), attn.attn_sink[head]))
            target += weight[: len(considered)] / weight.sum()
        target /= target.sum()
        share = np.exp(scores[row, position, considered])
        total += np.sum(target * np.log(target / (share / share.sum())))
    return total / (q.shape[0] * q.shape[1])


@pytest.mark.parametrize("scope", ["visible", "chosen"])
def test_losses_of_a_model_are_those_of_its_queries(scope):
    model = tiny.model(Ops())
    seen = trace(model, IDS)
    losses = indexer_losses(model, seen, REAL, scope)
    assert [*losses] == LAYERS
    for name, loss in losses.items():
        assert loss > 0.01
        np.testing.assert_allclose(loss, by_loops(model, seen, name, scope), rtol=1e-9)


def test_dense_and_sparse_are_one_where_all_entries_are_chosen():
    dense, sparse = tiny.model(Ops(), index_topk=100), tiny.model(Ops())
    seen = trace(dense, IDS)
    assert indexer_losses(dense, seen, REAL, "visible") == indexer_losses(dense, seen, REAL, "chosen")
    seen = trace(sparse, IDS)
    visible, chosen = (indexer_losses(sparse, seen, REAL, scope) for scope in ("visible", "chosen"))
    assert all(visible[name] != chosen[name] for name in LAYERS)


def test_an_mtp_module_with_an_indexer_learns_too():
    model = tiny.model(Ops(), compress_ratios=(0, 4))
    seen = {}
    states = model.states(IDS, observe=seen.__setitem__)
    assert not indexer_losses(model, seen, REAL, "chosen")
    model.mtp_logits(states[:, :-1], IDS[:, 1:], observe=seen.__setitem__)
    losses = indexer_losses(model, seen, REAL, "chosen")
    assert [*losses] == ["mtp.0.attn."]
    model.mtp_logits(states, np.roll(IDS, -1, axis=1), mask=np.arange(26) < REAL * 25, observe=seen.__setitem__)
    assert indexer_losses(model, seen, REAL, "chosen") == pytest.approx(losses)


@pytest.mark.parametrize("scope", ["visible", "chosen"])
def test_padding_does_not_count(scope):
    model = tiny.model(Ops())
    mask = np.arange(26) < np.array([[26], [13]])
    padded = indexer_losses(model, trace(model, IDS, mask), mask, scope)
    left = np.array([IDS[0], np.roll(IDS[1], 13)])
    assert indexer_losses(model, trace(model, left, mask[:, ::-1]), mask[:, ::-1], scope) == padded
    first = indexer_losses(model, trace(model, IDS[:1]), REAL[:1], scope)
    second = indexer_losses(model, trace(model, IDS[1:, :13]), REAL[1:, :13], scope)
    for name in LAYERS:
        np.testing.assert_allclose(padded[name], (26 * first[name] + 13 * second[name]) / 39, rtol=1e-9)


def test_a_text_too_short_for_an_entry_has_no_loss():
    model = tiny.model(Ops())
    assert indexer_losses(model, trace(model, IDS[:, :3]), REAL[:, :3], "visible") == {}


@given(topk=st.lists(st.integers(-1, 3), min_size=1, max_size=4, unique=True))
def test_every_choice_is_found_again(topk):
    found = np.nonzero(chosen_entries(np.array([[topk]]), 4)[0, 0])[0]
    assert {*found} == {*topk} - {-1}
