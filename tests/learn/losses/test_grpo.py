"""GRPO's loss: by hand, and against every group of answers in a world of three tokens and three steps."""

import itertools

import numpy as np
import pytest

from dsv4.learn import tape
from dsv4.learn.losses.grpo import advantages, divergence, kept_answers, policy, unbiased_kl
from dsv4.learn.losses.next_token import surprise
from dsv4.learn.losses.policy import log_policy
from learn.differences import hold
from learn.losses.enumeration import VOCAB, chances, log_table, log_tokens, score, table, world

WORLDS = [pytest.param(None, id="three steps"), pytest.param(2, id="an end token")]
NEVER = np.inf
"""A δ that leaves out no answer."""


def rewards_of(here):
    """A reward for each answer of a world, of both signs."""
    return np.random.default_rng(5).standard_normal(len(here.answers))


def taped_tokens(here, logits):
    """log π of each token, from a leaf, as training computes it: [N, STEPS]."""
    rows = logits[here.rows]
    return log_policy(rows, np.maximum(here.answers, 0))


def by_hand(here, logits, old, reference, group, rewards, epsilon, beta, delta):
    """∇J of one group, token by token, each derivative written out."""
    now, then, ref = (log_tokens(here, one) for one in (logits, old, reference))
    mean = sum(rewards[one] for one in group) / len(group)
    gradient = np.zeros_like(logits)
    for one in group:
        better, length = rewards[one] - mean, int(here.drawn[one].sum())
        foreign = sum(then[one, t] - now[one, t] for t in range(length)) / length
        for t in range(length):
            ratio = np.exp(now[one, t] - then[one, t])
            is_clipped = ratio > 1 + epsilon if better > 0 else ratio < 1 - epsilon
            learns = not is_clipped and not (better < 0 and foreign > delta)
            toward = better * ratio * learns - beta * ratio * (now[one, t] - ref[one, t])
            gradient += toward / length / len(group) * score(here, logits, one, t)
    return gradient


@pytest.mark.parametrize("end", WORLDS)
@pytest.mark.parametrize(("epsilon", "delta"), [(0.2, 0.1), (10.0, 0.1), (0.2, NEVER)])
def test_the_expected_gradient_over_every_group_of_answers(end, epsilon, delta):
    here = world(end)
    logits, old, reference = (table(here, seed) for seed in (0, 1, 2))
    rewards, chance, beta = rewards_of(here), chances(here, old), 0.3
    expected, left_out = np.zeros_like(logits), 0
    leaf = tape.leaf(logits)
    log_now, log_old, log_reference = taped_tokens(here, leaf), log_tokens(here, old), log_tokens(here, reference)
    loss = 0
    for group in itertools.product(range(len(here.answers)), repeat=2):
        weight, chosen = chance[list(group)].prod(), np.array(group)
        expected += weight * by_hand(here, logits, old, reference, group, rewards, epsilon, beta, delta)
        drawn, advantage = here.drawn[chosen], advantages(rewards[chosen])
        surrogate = policy(log_now[chosen], log_old[chosen], advantage, drawn, epsilon, delta)
        kl = divergence(log_now[chosen], log_old[chosen], log_reference[chosen], drawn)
        loss = loss + (surrogate + kl * beta) * weight
        left_out += (~kept_answers(log_now[chosen], log_old[chosen], advantage, drawn, delta)).sum()
    [found] = tape.gradients(loss, [leaf])
    np.testing.assert_allclose(-found, expected, rtol=0, atol=1e-9)
    assert (left_out > 0) == (delta != NEVER)
    assert np.abs(expected).max() > 0.01


def test_on_the_policy_itself_it_is_the_gradient_of_the_expected_reward():
    """With answers of one length, E ∇J = (G − 1)/G · ∇ E[R]/|o|: the mean of a group contains the answer's own reward.

    A standard deviation in the advantage would make it another vector.
    """
    here, group_size = world(), 3
    logits, rewards = table(here, 0), rewards_of(here)
    chance = chances(here, logits)
    expected = np.zeros_like(logits)
    for one in range(len(here.answers)):
        for t in range(3):
            expected += chance[one] * rewards[one] * score(here, logits, one, t) / 3
    expected *= (group_size - 1) / group_size
    leaf = tape.leaf(logits)
    log_now, log_old = taped_tokens(here, leaf), log_tokens(here, logits)
    weights = np.zeros(len(here.answers))  # the loss is linear in the advantages: each answer's, over all groups
    for group in itertools.product(range(len(here.answers)), repeat=group_size):
        for one, better in zip(group, advantages(rewards[list(group)]), strict=True):
            weights[one] += chance[list(group)].prod() * better / group_size
    loss = policy(log_now, log_old, weights * len(weights), here.drawn, 0.2, NEVER)
    [found] = tape.gradients(loss, [leaf])
    np.testing.assert_allclose(-found, expected, rtol=0, atol=1e-9)


def test_advantages_by_hand():
    np.testing.assert_array_equal(advantages(np.array([1.0, 0.0, 0.0, 0.0])), [0.75, -0.25, -0.25, -0.25])
    np.testing.assert_array_equal(advantages(np.array([1.0, 1.0, 1.0])), [0, 0, 0])
    small, large = advantages(np.array([0.1, 0.0])), advantages(np.array([10.0, 0.0]))
    np.testing.assert_allclose(large, 100 * small)  # a standard deviation would make them equal
    with pytest.raises(ValueError, match=r"^rewards: expected those of a group of answers, found none$"):
        advantages(np.empty(0))


def test_the_kl_estimate_is_right_on_average_and_so_is_its_gradient():
    here = world()
    logits, old, reference = (table(here, seed)[:1] for seed in (0, 1, 2))
    now, then, ref = log_table(logits), log_table(old), log_table(reference)
    true_kl = (np.exp(now) * (now - ref)).sum()
    assert abs((np.exp(then) * unbiased_kl(now, then, ref)).sum() - true_kl) < 1e-12
    leaf = tape.leaf(logits)
    estimate = (unbiased_kl(log_policy(leaf[[0, 0, 0]][None], np.arange(3)[None]), then, ref) * np.exp(then)).sum()
    [found] = tape.gradients(estimate, [leaf])
    expected = np.exp(now) * (now - ref - true_kl)  # ∇ Σ π (log π − log π_ref) of a softmax
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_the_kl_estimate_is_no_divergence_the_other_way():
    now, ref = log_table(np.array([[3.0, 0.0, 0.0]])), log_table(np.zeros((1, 3)))
    backward = (np.exp(ref) * (ref - now)).sum()
    found = (np.exp(now) * unbiased_kl(now, now, ref)).sum()
    assert abs(found - backward) > 0.05


DRAWN = np.array([[1, 1, 1, 0], [1, 1, 0, 0]], bool)


@pytest.mark.parametrize(
    ("advantage", "distance", "kept"),
    [
        pytest.param(-1.0, 0.3, False, id="worse and foreign"),
        pytest.param(-1.0, 0.1, True, id="worse and near"),
        pytest.param(-1.0, 0.2, True, id="worse and at the limit"),
        pytest.param(-1.0, -0.3, True, id="worse and likelier now"),
        pytest.param(0.0, 0.3, True, id="neither better nor worse"),
        pytest.param(1.0, 0.3, True, id="better and foreign"),
    ],
)
def test_which_answers_are_left_out(advantage, distance, kept):
    """The mean is over the answer's own tokens: what stands behind them does not count."""
    old = np.where(DRAWN, 0.0, 50.0)
    now = np.where(DRAWN, -np.array([[distance + 0.125, distance, distance - 0.125, 0], [distance, distance, 0, 0]]), 0)
    found = kept_answers(now, old, np.array([advantage, advantage]), DRAWN, 0.2 + 1e-12)
    np.testing.assert_array_equal(found, [kept, kept])


def test_an_answer_that_is_left_out_still_feels_the_reference():
    now = tape.leaf(np.array([[-3.0, -3.0, 0.0]]))
    old, drawn, worse = np.zeros((1, 3)), np.array([[1, 1, 0]], bool), np.array([-1.0])
    [from_policy] = tape.gradients(policy(now, old, worse, drawn, 10.0, 0.1) + 0 * now.sum(), [now])
    np.testing.assert_array_equal(from_policy, 0)
    [from_kl] = tape.gradients(divergence(now, old, np.full((1, 3), -1.0), drawn), [now])
    assert (from_kl[0, :2] != 0).all() and from_kl[0, 2] == 0


def test_each_answer_counts_the_same_whatever_its_length():
    now = tape.leaf(np.zeros((2, 4)))
    [found] = tape.gradients(policy(now, np.zeros((2, 4)), np.ones(2), DRAWN, 0.2, NEVER), [now])
    np.testing.assert_allclose(found, -np.where(DRAWN, [[1 / 6], [1 / 4]], 0))


def test_the_clip_holds_a_ratio_on_the_side_that_it_would_go_to():
    log_ratio, advantage = np.log([[1.5], [1.5], [0.5], [0.5]]), np.array([1.0, -1.0, 1.0, -1.0])
    now = tape.leaf(log_ratio)
    drawn = np.ones((4, 1), bool)
    [found] = tape.gradients(policy(now, np.zeros((4, 1)), advantage, drawn, 0.2, NEVER), [now])
    np.testing.assert_allclose(found[:, 0], -np.array([0, -1.5, 0.5, 0]) / 4)


def test_the_policy_is_that_of_the_tokens_that_were_kept():
    logits = np.log(np.array([[[4.0, 3.0, 2.0, 1.0]]]))
    kept = np.array([[[True, True, False, False]]])
    found = log_policy(logits, np.array([[1]]), 1.0, kept)
    np.testing.assert_allclose(np.exp(found), [[3 / 7]])
    np.testing.assert_allclose(np.exp(log_policy(logits, np.array([[1]]), 0.5)), [[9 / 30]])
    np.testing.assert_array_equal(log_policy(logits, np.array([[1]])), -surprise(logits, np.array([[1]])))


def test_gradients_of_the_policy():
    g = np.random.default_rng(3)
    logits, kept = g.standard_normal((2, 3, VOCAB + 2)), g.random((2, 3, VOCAB + 2)) < 0.7
    kept[..., 1] = True
    wanted = np.ones((2, 3), np.int64)
    hold(lambda one: log_policy(one, wanted, 0.7, kept), logits)
    [found] = tape.gradients(log_policy(leaf := tape.leaf(logits), wanted, 0.7, kept).sum(), [leaf])
    assert (found[~kept] == 0).all()
