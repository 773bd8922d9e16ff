"""Routing by older weights, what counts as a spike, and which weights choose for which step."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiny
from dsv4.learn.anticipatory import SpikeRule, SpikeWatch, routed_by, routing_indices
from dsv4.ops import Ops
from dsv4.ops.moe import route_by_id
from strategies import sizes

IDS = tiny.tokens(5, 2, 9)
RULE = SpikeRule(window=4, deviations=3.0, rollback=2, period=5, delay=2)


def trace(model):
    """What a pass and the MTP module report, and the logits of both."""
    seen = {}
    states = model.states(IDS, observe=seen.__setitem__)
    logits = model.head(states), model.mtp_logits(states[:, :-1], IDS[:, 1:], observe=seen.__setitem__)
    return seen, logits


def test_a_models_own_choice_changes_nothing():
    model = tiny.model(Ops())
    seen, logits = trace(model)
    with routed_by(model, routing_indices(model.config, seen)):
        again = trace(model)[1]
    for found, expected in zip(again, logits, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_older_weights_choose_and_the_own_ones_weigh():
    """In every layer that chooses by score, the MTP module's too; the hash layer has its table."""
    old, new = tiny.model(Ops(), tiny.checkpoint(1)), tiny.model(Ops(), tiny.checkpoint(2))
    chosen = routing_indices(old.config, trace(old)[0])
    assert [*chosen] == [*(f"layers.{n}.ffn.gate." for n in (1, 2, 3)), "mtp.0.ffn.gate."]
    own, own_logits = trace(new)
    with routed_by(new, chosen):
        seen, logits = trace(new)
    for gate, indices in chosen.items():
        assert (np.sort(indices) != np.sort(own[f"{gate}indices"])).any()
        np.testing.assert_array_equal(seen[f"{gate}indices"], indices)
        expected = route_by_id(seen[f"{gate}logits"], indices, "sqrtsoftplus", 1.5)
        np.testing.assert_array_equal(seen[f"{gate}weights"], expected.weights)
    np.testing.assert_array_equal(seen["layers.0.ffn.gate.indices"], own["layers.0.ffn.gate.indices"])
    assert (logits[0] != own_logits[0]).any() and (logits[1] != own_logits[1]).any()


def test_afterwards_a_model_chooses_for_itself_again():
    model = tiny.model(Ops())
    seen, logits = trace(model)
    others = {gate: 5 - indices for gate, indices in routing_indices(model.config, seen).items()}
    with pytest.raises(RuntimeError), routed_by(model, others):
        raise RuntimeError
    np.testing.assert_array_equal(trace(model)[1][0], logits[0])


def watched(*losses, rule=RULE):
    """A watch that has seen these losses, none of which was a spike."""
    watch = SpikeWatch(rule)
    assert [watch.verdict(step, loss) for step, loss in enumerate(losses)] == ["go on"] * len(losses)
    return watch


def test_a_spike_is_above_the_mean_by_some_deviations():
    """1, 2, 3, 4 have the mean 2.5 and the deviation √1.25."""
    limit = 2.5 + 3 * np.sqrt(1.25)
    assert watched(9, 1, 2, 3, 4).verdict(5, limit + 1e-9) == "roll back"
    assert watched(9, 1, 2, 3, 4).verdict(5, limit) == "go on"


def test_before_there_are_enough_losses_none_is_a_spike():
    watched(1, 1, 1, 100)


@pytest.mark.parametrize("loss", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_is_a_spike_always(loss):
    assert watched().verdict(0, loss) == "roll back"


def test_a_spike_does_not_hide_the_next_one():
    watch = watched(1, 1, 1, 1)
    assert [watch.verdict(step, 50.0) for step in (4, 4)] == ["roll back"] * 2


def test_a_spike_in_the_period_after_one_is_beyond_repair():
    watch = watched(1, 1, 1, 1)
    watch.begin(3, spiked_at=5)
    assert [watch.is_anticipatory(step) for step in range(2, 10)] == [False, *[True] * 5, False, False]
    assert watch.verdict(7, 50.0) == "stop"
    assert watch.verdict(8, 50.0) == "roll back"


def test_the_period_is_not_over_before_the_step_of_the_spike():
    """Else a loss that leaps at the same step again would be gone back from for ever."""
    watch = watched(1, 1, 1, 1)
    watch.begin(3, spiked_at=9)
    assert [step for step in range(15) if watch.is_anticipatory(step)] == [*range(3, 10)]
    assert watch.verdict(9, 50.0) == "stop"
    assert watch.verdict(10, 50.0) == "roll back"


@given(first=sizes(0, 5), period=sizes(1, 9), delay=sizes(1, 4), back=sizes(0, 12))
def test_every_step_of_a_period_is_routed_once_by_weights_of_the_right_age(first, period, delay, back):
    """Those of step t by θ_{t−Δt}, or by the oldest since the rollback; and nothing is fetched ahead for nothing."""
    watch = SpikeWatch(SpikeRule(window=2, deviations=1.0, rollback=1, period=period, delay=delay))
    watch.begin(first, spiked_at=first + back)
    end = first + max(period, back + 1)
    routed = {step: [*watch.steps_to_route(step)] for step in range(end + 5)}
    by = {target: step for step, targets in routed.items() for target in targets}
    assert sum(map(len, routed.values())) == len(by)
    assert by == {target: max(first, target - delay) for target in range(first, end)}


def test_without_a_spike_nothing_is_routed_ahead():
    assert [*watched(1, 2).steps_to_route(3)] == []


@given(losses=st.lists(st.floats(0, 10), max_size=9), begin=st.none() | sizes(0, 9))
def test_a_resumed_watch_says_the_same(losses, begin):
    watch, resumed = SpikeWatch(RULE), SpikeWatch(RULE)
    for step, loss in enumerate(losses):
        watch.verdict(step, loss)
    if begin is not None:
        watch.begin(begin, spiked_at=begin + 7)
    resumed.load_state(watch.state())
    assert resumed.state().keys() == watch.state().keys()
    later = [3.0, 9.0, 1.0, 40.0]
    assert [watch.verdict(9, loss) for loss in later] == [resumed.verdict(9, loss) for loss in later]
    assert [watch.steps_to_route(step) for step in range(20)] == [resumed.steps_to_route(step) for step in range(20)]
