"""Interventions take away what they say and leave everything else as it is."""

import numpy as np
import pytest

import tiny
from dsv4.learn.evaluation import intervened, random_choice, without_csa, without_entries, without_hca
from dsv4.ops import Ops

IDS = tiny.tokens(3, 2, 300)  # enough for two HCA entries
CSA_LAYERS, HCA_LAYER = (1, 3), 2


class Watching(Ops):
    """NumPy's backend, keeping the entries and the indices of each call of sparse_attention."""

    def __init__(self):
        self.calls = []

    def sparse_attention(self, queries, window, window_index, entries, entry_index, attn_sink):
        self.calls.append((window_index, entries.shape[1], entry_index))
        return Ops.sparse_attention(queries, window, window_index, entries, entry_index, attn_sink)


def chosen(intervention):
    """Of each layer: how many entries there are, and which ones its queries read."""
    ops = Watching()
    model = tiny.model(ops, dtype=np.float64)
    changed = intervened(model, intervention)
    changed(IDS)
    assert [call[0].shape for call in ops.calls] == [(2, 300, tiny.CONFIG.sliding_window)] * 4
    assert all((call[0] == ops.calls[0][0]).all() for call in ops.calls)  # the windows are left alone
    return [(count, index) for _, count, index in ops.calls]


def reads_none(index):
    return not (index >= 0).any()


def test_nothing_is_changed_by_no_intervention():
    sliding, csa, hca, last = chosen(lambda ops: ops)
    assert [count for count, _ in (sliding, csa, hca, last)] == [0, 75, 2, 75]
    assert [reads_none(index) for _, index in (sliding, csa, hca, last)] == [True, False, False, False]


@pytest.mark.parametrize(
    ("intervention", "expected"),
    [
        (without_csa, [True, True, False, True]),
        (without_hca, [True, False, True, False]),
        (without_entries, [True, True, True, True]),
        (random_choice, [True, False, False, False]),
    ],
)
def test_which_layers_read_entries(intervention, expected):
    assert [reads_none(index) for _, index in chosen(intervention)] == expected


def test_without_one_kind_the_other_is_read_as_before():
    (_, first, hca, _), (_, changed, _, _) = chosen(lambda ops: ops), chosen(without_hca)
    assert (first[1] == changed[1]).all()  # layer 1 stands before the HCA layer
    assert (chosen(without_csa)[HCA_LAYER][1] == hca[1]).all()


def test_random_choice_is_blind_and_repeatable():
    k = tiny.CONFIG.index_topk
    visible = (np.arange(300) + 1) // 4
    counts = np.zeros(75)
    for seed in range(40):
        for layer in CSA_LAYERS:
            index = chosen(lambda ops, seed=seed: random_choice(ops, seed))[layer][1]
            assert ((index >= 0).sum(axis=-1) == np.minimum(visible, k)).all()
            assert (index < np.maximum(visible, 1)[:, None]).all()
            late = index[:, -1]
            assert all(len(set(row.tolist())) == k for row in late)
            np.add.at(counts, late.ravel(), 1)
    assert counts.sum() == 40 * 2 * 2 * k and counts.max() < 20  # 6.4 on average
    first, again = chosen(random_choice), chosen(random_choice)
    assert all((one[1] == other[1]).all() for one, other in zip(first, again, strict=True))


def test_the_model_that_is_given_stays_as_it_is():
    model = tiny.model(Ops())
    before = model(IDS)
    assert not np.allclose(intervened(model, without_entries)(IDS), before, atol=1e-3)
    assert (model(IDS) == before).all()


@pytest.mark.parametrize("intervention", [without_csa, without_hca, without_entries])
def test_the_same_on_every_backend(backend, intervention):
    model, reference = tiny.model(backend, dtype=np.float32), tiny.model(Ops(), dtype=np.float32)
    found, expected = (intervened(one, intervention)(IDS) for one in (model, reference))
    tiny.close(backend.to_numpy(found), expected, 2e-4)


def test_tokens_after_a_cache_lose_the_same():
    model = intervened(tiny.model(Ops()), without_hca)
    whole, cache = model(IDS), model.new_cache(2)
    parts = [model(IDS[:, start:stop], cache) for start, stop in ((0, 130), (130, 131), (131, 300))]
    tiny.close(np.concatenate(parts, axis=1), whole)
