"""What an indexer's choice is worth: between chance and the best choice, by hand and on whole models."""

from itertools import combinations

import numpy as np
import pytest

import tiny
from dsv4.learn.evaluation import intervened, without_csa
from dsv4.learn.losses.indexer import attention_to_entries, capture, captures, visible_entries
from dsv4.ops import Ops
from learn.losses.traces import IDS, LAYERS, REAL, trace


def of_entries(chosen, count):
    """A mask [1, 1, count]."""
    return np.isin(np.arange(count), chosen)[None, None]


def test_a_blind_choice_stands_at_0_and_the_best_one_at_1():
    """Exactly: over every possible choice, the average is what chance is said to get."""
    attention = np.random.default_rng(3).random((1, 1, 6))
    visible = of_entries(range(5), 6)
    attention[0, 0, 5] = 0  # not visible, so not attended to
    found = [capture(attention, of_entries(chosen, 6), visible) for chosen in combinations(range(5), 2)]
    assert np.mean([one.standing for one in found]) == pytest.approx(0, abs=1e-12)
    assert max(one.standing for one in found) == pytest.approx(1)
    whole = attention.sum()
    assert found[0].chosen == pytest.approx(attention[0, 0, :2].sum() / whole)
    assert found[0].chance == pytest.approx(2 / 5)


def test_queries_that_take_all_they_see_do_not_count():
    attention = np.array([[[0.5, 0.2, 0.0], [0.1, 0.1, 0.3]]])
    visible = np.array([[[True, True, False], [True, True, True]]])
    chosen = np.array([[[True, True, False], [True, True, False]]])
    found = capture(attention, chosen, visible)
    np.testing.assert_allclose(found, [0.4, 2 / 3, 0.8], rtol=1e-12)
    assert capture(attention[:, :1], chosen[:, :1], visible[:, :1]) is None


@pytest.mark.parametrize("chosen", [[], range(5)], ids=["none", "all"])
def test_a_query_that_chooses_nothing_or_everything_does_not_count(chosen):
    attention = np.random.default_rng(3).random((1, 1, 6))
    assert capture(attention, of_entries(chosen, 6), of_entries(range(5), 6)) is None


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_where_no_choice_is_better_than_another_there_is_nothing_to_measure(share):
    visible = of_entries(range(5), 6)
    assert capture(np.where(visible, share, 0), of_entries([0, 3], 6), visible) is None


def test_without_csa_no_indexer_has_chosen():
    """As with `evaluation.without_csa`: nothing to measure, where there were queries that must choose."""
    model = intervened(tiny.model(Ops()), without_csa)
    assert captures(model, trace(model, IDS), REAL) == {}


def test_captures_of_a_model():
    """Its indexer takes 3 entries of at most 6: those of the largest scores."""
    model = tiny.model(Ops())
    seen = trace(model, IDS)
    found = captures(model, seen, REAL)
    assert [*found] == LAYERS
    for measured in found.values():
        assert 0 < measured.chance < measured.best < 1 and measured.chosen <= measured.best
    assert captures(model, trace(model, IDS[:, :15]), REAL[:, :15]) == {}


def test_an_indexer_that_knows_the_attention_stands_at_1():
    model = tiny.model(Ops(), index_topk=100)
    seen = trace(model, IDS)
    for name in LAYERS:
        attn = model.layers[int(name.split(".")[1])].attn
        visible = visible_entries(REAL, 6)
        pieces = (seen[name + piece] for piece in ("q", "kv", "compressor.out"))
        attention = attention_to_entries(*pieces, attn.attn_sink, 8, visible)
        seen[f"{name}indexer.topk"] = Ops.top_k(attention, visible.sum(axis=-1), 3)
    assert [measured.standing for measured in captures(model, seen, REAL).values()] == pytest.approx([1, 1])
