"""The balance loss by hand and by finite differences, and the bias that follows the load."""

import numpy as np
import pytest
from hypothesis import given

import tiny
from dsv4.learn.losses.balance import balance_loss, balance_losses, balanced_bias, expert_load, expert_loads
from dsv4.ops import Ops
from dsv4.ops.moe import expert_scores
from learn.duck import Duck
from strategies import generators

ROTATED = np.array([[np.roll([4.0, 3, 2, 1], shift) for shift in range(4)]])
"""Scores of four tokens among whose two best each of four experts is twice."""

ALL = np.ones((1, 4), bool)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_a_perfect_balance_gives_exactly_one(k):
    assert balance_loss(ROTATED, k, ALL) == 1


def test_by_hand():
    """Two tokens, three experts, the best one each: f = (3/2, 3/2, 0), P = ((.5 + .25) / 2, (.25 + .75) / 2, .125)."""
    scores = np.array([[[2.0, 1, 1], [1, 3, 0]]])
    expected = 1.5 * 0.375 + 1.5 * 0.5
    np.testing.assert_allclose(balance_loss(scores, 1, np.ones((1, 2), bool)), expected, rtol=1e-15)


def test_experts_that_get_all_tokens_cost_most():
    """f = E/k for k experts that have all of P."""
    scores = np.array([[[1.0, 1, 0, 0]] * 5])
    assert balance_loss(scores, 2, np.ones((1, 5), bool)) == 2


def test_each_sequence_is_balanced_by_itself():
    """Together the two would be in balance."""
    scores = np.array([[[1.0, 0]] * 3, [[0, 1.0]] * 3])
    assert balance_loss(scores, 1, np.ones((2, 3), bool)) == 2


def test_padding_does_not_count():
    padded = np.concatenate([ROTATED, np.full((1, 3, 4), [[9.0, 0, 0, 0]])], axis=1)
    mask = np.arange(7)[None] < 4
    np.testing.assert_array_equal(balance_loss(padded, 2, mask), balance_loss(ROTATED, 2, ALL))
    nobody = np.concatenate([padded, padded]), np.concatenate([mask, mask & False])
    assert balance_loss(nobody[0], 2, nobody[1]) == 0.5


@given(generator=generators)
def test_the_gradient_goes_through_the_probabilities_alone(generator):
    """d/ds of Σ f_i · 1/T Σ_t s_i / Σ_j s_j with f as a constant: (f_i − Σ_j f_j share_j) / (T Σ_j s_j)."""
    scores = generator.uniform(0.5, 2, (1, 5, 6))
    real, k = np.ones((1, 5), bool), 2
    frequency = np.zeros(6)
    for token in scores[0]:
        frequency[np.argsort(token)[-k:]] += 6 / (k * 5)
    total = scores.sum(axis=-1, keepdims=True)
    expected = (frequency - (frequency * scores / total).sum(axis=-1, keepdims=True)) / (5 * total)
    step = 1e-6
    for place in np.ndindex(scores.shape):
        shift = np.zeros_like(scores)
        shift[place] = step
        above, below = (balance_loss(scores + sign * shift, k, real) for sign in (1, -1))
        np.testing.assert_allclose((above - below) / (2 * step), expected[place], rtol=0, atol=1e-8)


def test_a_tapes_tensors_do():
    scores, mask = np.random.default_rng(0).uniform(0, 1, (2, 5, 6)).astype(np.float32), np.ones((2, 5), bool)
    found = balance_loss(Duck(scores), 2, mask)
    assert found.data == balance_loss(scores, 2, mask) and found.dtype == np.float32


def test_load_counts_real_tokens():
    indices = np.array([[0, 1], [1, 2], [3, 3], [1, 0]])
    mask = np.array([[True, True], [False, True]])
    np.testing.assert_array_equal(expert_load(indices, 5, mask), [2, 3, 1, 0, 0])


def test_the_bias_rises_where_load_is_missing():
    bias = np.array([0.5, 0.5, 0.5], np.float32)
    found = balanced_bias(bias, np.array([6, 2, 4]), 0.25)
    np.testing.assert_array_equal(found, [0.25, 0.75, 0.5])
    assert found.dtype == np.float32 and (bias == 0.5).all()


def trace(model, ids, mask=None):
    """Everything that a pass and the MTP module report; the module reads the token after each, where there is one."""
    seen = {}
    mask = np.ones(ids.shape, bool) if mask is None else mask
    states = model.states(ids, mask=mask, observe=seen.__setitem__)
    following, exist = np.roll(ids, -1, axis=1), mask & np.roll(mask, -1, axis=1)
    exist[:, -1] = False
    model.mtp_logits(states, following, mask=exist, observe=seen.__setitem__)
    return seen


IDS = tiny.tokens(23, 2, 10)
GATES = ["layers.1.ffn.gate.", "layers.2.ffn.gate.", "layers.3.ffn.gate.", "mtp.0.ffn.gate."]


def test_layers_that_choose_by_score_are_balanced_and_hash_layers_are_not():
    model = tiny.model(Ops())
    assert model.config.num_hash_layers == 1
    seen, mask = trace(model, IDS), np.ones(IDS.shape, bool)
    losses, loads = balance_losses(model.config, seen, mask), expert_loads(model.config, seen, mask)
    assert [*losses] == [*loads] == GATES
    for gate in GATES:
        scores = expert_scores(seen[f"{gate}logits"], "sqrtsoftplus").reshape(2, -1, 6)
        real = mask & (np.arange(10) < 9) if gate.startswith("mtp") else mask
        assert losses[gate] == balance_loss(scores, 2, real)
        assert loads[gate].sum() == 2 * real.sum()
    without_mtp = {name: result for name, result in seen.items() if not name.startswith("mtp")}
    assert [*balance_losses(model.config, without_mtp, mask)] == GATES[:3]


def test_the_bias_changes_the_load_and_not_the_loss():
    """The loss counts what would be chosen without it."""
    source = tiny.checkpoint()
    source.weights["layers.1.ffn.gate.bias"] = np.zeros(6, np.float32)
    biased = source.changed(layers__1__ffn__gate__bias=lambda bias: bias + np.array([9, 9, 0, 0, 0, 0], np.float32))
    mask = np.ones(IDS.shape, bool)
    before, after = (trace(tiny.model(Ops(), one), IDS) for one in (source, biased))
    gate = GATES[0]
    losses = [balance_losses(source.config, seen, mask)[gate] for seen in (before, after)]
    assert losses[0] == losses[1]
    assert [*expert_loads(source.config, after, mask)[gate]] == [20, 20, 0, 0, 0, 0]
    assert [*expert_loads(source.config, before, mask)[gate]] != [20, 20, 0, 0, 0, 0]


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_padded_batch_has_the_losses_and_loads_of_its_real_tokens(side):
    model = tiny.model(Ops())
    mask, ids = np.arange(10) < np.array([[10], [6]]), IDS
    if side == "left":
        mask, ids = mask[:, ::-1], np.array([IDS[0], np.roll(IDS[1], 4)])
    padded = trace(model, ids, mask)
    alone = [trace(model, IDS[:1]), trace(model, IDS[1:, :6])]
    real = [np.ones((1, 10), bool), np.ones((1, 6), bool)]
    config = model.config
    for gate in GATES:
        parts = [balance_losses(config, seen, one)[gate] for seen, one in zip(alone, real, strict=True)]
        np.testing.assert_allclose(balance_losses(config, padded, mask)[gate], np.mean(parts), rtol=1e-12)
        loads = [expert_loads(config, seen, one)[gate] for seen, one in zip(alone, real, strict=True)]
        np.testing.assert_array_equal(expert_loads(config, padded, mask)[gate], sum(loads))
