"""Training sees what the rollouts saw: the same tokens, experts and entries, with the weights of now."""

import numpy as np
import pytest

import tiny
from dsv4.learn import Trainable, TrainableModel
from dsv4.learn.gradients import Pass
from dsv4.learn.losses.grpo import divergence, policy
from dsv4.learn.losses.policy import log_policy
from dsv4.learn.post.replay import replay_of, replayed
from dsv4.learn.tape import gradients
from dsv4.model.model import Model
from dsv4.ops import Ops
from learn.differences import difference
from learn.post.drawing import DRAWING, PROMPTS, draw, model


@pytest.fixture(scope="module")
def rollouts(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("rollouts") / "0.jsonl", model())


@pytest.fixture(scope="module")
def replay(rollouts):
    return replay_of(rollouts, tiny.CONFIG)


def later(seed=0):
    """The model after a few steps: its weights are a little other ones."""
    weights = Trainable.of(tiny.checkpoint(seed), np.float64)
    g = np.random.default_rng(1)
    for array in weights.parameters.values():
        array += 0.3 * np.abs(array).mean() * g.standard_normal(array.shape)
    return TrainableModel(weights)


def test_the_batch_by_hand(rollouts, replay):
    for row, one in enumerate(rollouts):
        tokens, length = [*one.prompt, *one.answer], len(one.prompt) + len(one.answer) - 1
        assert replay.mask[row].sum() == length and replay.mask[row, :length].all()
        assert replay.ids[row, :length].tolist() == tokens[:-1]
        assert replay.wanted[row, :length].tolist() == tokens[1:]
        places = np.nonzero(replay.drawn[row])[0]
        assert places.tolist() == list(range(len(one.prompt) - 1, length))
        np.testing.assert_array_equal(replay.log_old[row, places], one.log_old)
        assert [np.nonzero(replay.kept[row, place])[0].tolist() for place in places] == one.kept
    assert (replay.log_old[~replay.drawn] == 0).all() and replay.kept[~replay.drawn].all()


def test_a_pass_chooses_what_was_chosen_then(rollouts, replay):
    """Bit for bit what was recorded; by itself the later model would choose otherwise."""
    now = later()
    own = Pass(now, replay.ids, replay.mask, observes=True)
    with replayed(now, replay):
        run = Pass(now, replay.ids, replay.mask, observes=True)
    differ = 0
    for row, one in enumerate(rollouts):
        length = len(one.prompt) + len(one.answer) - 1
        for gate, experts in one.choices.experts.items():
            found, others = (each.seen[f"{gate}indices"].reshape(*replay.ids.shape, -1) for each in (run, own))
            np.testing.assert_array_equal(found[row, :length], experts)
            differ += (others[row, :length] != experts).sum()
        for attn, entries in one.choices.entries.items():
            np.testing.assert_array_equal(run.seen[f"{attn}indexer.topk"][row, :length], entries)
    assert differ > 0


def test_experts_that_the_model_would_not_take_now_are_weighed_by_their_scores(replay):
    """Scores of experts that were not chosen are no zeros: the replay takes them as they are."""
    now = later()
    with replayed(now, replay):
        run = Pass(now, replay.ids, replay.mask, observes=True)
    real = replay.mask.reshape(-1)
    for gate, experts in replay.experts.items():
        scores = np.sqrt(np.logaddexp(0, run.seen[f"{gate}logits"].data))
        chosen = np.stack([scores[token, each] for token, each in enumerate(experts)])
        expected = chosen / chosen.sum(axis=1, keepdims=True) * tiny.CONFIG.routed_scaling_factor
        np.testing.assert_allclose(run.seen[f"{gate}weights"].data[real], expected[real], rtol=1e-12)
        bias = now.weights.others[f"{gate}bias"]
        best = np.sort(np.argsort(-(scores + bias), axis=1)[:, :2], axis=1)
        assert (np.sort(experts, axis=1)[real] != best[real]).any()


def test_afterwards_the_model_chooses_for_itself_again(replay):
    now = later()
    before = Pass(now, replay.ids, replay.mask).states.data
    with pytest.raises(KeyError), replayed(now, replay):
        raise KeyError
    np.testing.assert_array_equal(Pass(now, replay.ids, replay.mask).states.data, before)


def test_on_the_same_weights_the_policy_is_the_samplers(replay):
    same = TrainableModel(Trainable.of(tiny.checkpoint(), np.float64))
    with replayed(same, replay):
        run = Pass(same, replay.ids, replay.mask)
    found = log_policy(run.logits, replay.wanted, DRAWING.temperature, replay.kept).data
    np.testing.assert_allclose(found[replay.drawn], replay.log_old[replay.drawn], rtol=0, atol=1e-9)


def test_without_the_mask_of_the_sampler_it_is_another_policy(replay):
    same = TrainableModel(Trainable.of(tiny.checkpoint(), np.float64))
    with replayed(same, replay):
        run = Pass(same, replay.ids, replay.mask)
    found = log_policy(run.logits, replay.wanted, DRAWING.temperature).data
    assert np.abs(found - replay.log_old)[replay.drawn].max() > 0.01


def test_the_gradient_of_the_whole_loss_is_what_differences_say(replay):
    now, reference = later(), model(seed=0)
    advantage = np.array([1.0, -0.6, -0.4])
    with np.errstate(divide="ignore"):
        log_reference = log_policy(reference(replay.ids, mask=replay.mask), replay.wanted, 0.8, replay.kept)

    def loss_of(logits):
        log_now = log_policy(logits, replay.wanted, 0.8, replay.kept)
        surrogate = policy(log_now, replay.log_old, advantage, replay.drawn, 10.0, np.inf)
        return surrogate + divergence(log_now, replay.log_old, log_reference, replay.drawn) * 0.1

    names = ["layers.1.attn.wq_b.weight", "layers.2.ffn.gate.weight", "layers.3.ffn.experts.2.w1.weight", "head.weight"]
    with replayed(now, replay):
        run = Pass(now, replay.ids, replay.mask)
        found = gradients(loss_of(run.logits), [now.leaves[name] for name in names])
    plain = Model(now.weights, Ops(), False, np.float64)
    with replayed(plain, replay):
        for name, gradient in zip(names, found, strict=True):
            place = np.unravel_index(np.abs(gradient).argmax(), gradient.shape)
            array = now.weights.parameters[name]
            expected = difference(lambda: float(loss_of(plain(replay.ids, mask=replay.mask))), array, place, 1e-5)
            np.testing.assert_allclose(gradient[place], expected, rtol=1e-6, err_msg=name)


def test_a_short_answer_has_no_entries_to_read(tmp_path):
    short = draw(tmp_path / "0.jsonl", prompts=[PROMPTS[0][:2]], drawing=DRAWING.__class__(window=1, seed=1))
    batch = replay_of(short, tiny.CONFIG)
    now = later()
    with replayed(now, batch):
        assert np.isfinite(Pass(now, batch.ids, batch.mask).logits.data).all()
    assert batch.kept is None


def test_no_rollouts_are_an_error():
    with pytest.raises(ValueError, match=r"^rollouts: expected at least one, found none$"):
        replay_of([], tiny.CONFIG)
