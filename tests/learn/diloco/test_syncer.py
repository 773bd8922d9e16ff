"""Rounds, quorum and grace by hand, and what is merged."""

import numpy as np
import pytest

from dsv4.learn.diloco.messages import Fragment, Progress, Update, changed
from dsv4.learn.diloco.recovery import copy_of, rejoined
from learn.diloco.toys import SHAPES, Start, first_weights, same_weights


def made(**settings):
    syncer = Start(**{"bits": 32} | settings).syncer()
    syncer.progress(Progress(0, 1, 1.0), 0.0)
    return syncer


def update(syncer, learner, number=0, version=None, value=1.0, tokens=10, steps=1):
    place = number % len(syncer.fragments)
    differences = {name: np.full(SHAPES[name], value, np.float32) for name in syncer.fragments[place]}
    version = number // len(syncer.fragments) if version is None else version
    return Update(learner, number, place, version, differences, tokens, steps)


def done(syncer, number=0, **about):
    while number not in syncer.rounds:
        syncer.open(0.0)
    syncer.hear(update(syncer, 0, number, **about), 0.0)
    return syncer.close(number)


class TestRounds:
    def test_fragments_come_in_turn(self):
        syncer = made()
        for number in range(7):
            assert syncer.next_round == number
            done(syncer, number)
        assert syncer.versions == [3, 2, 2]

    def test_a_round_that_is_open_is_not_opened_again(self):
        syncer = made()
        assert [syncer.open(0.0)[:2] for _ in range(3)] == [(0, 0), (1, 1), (2, 2)]
        syncer.hear(update(syncer, 0, 1), 0.0)
        syncer.close(1)
        assert syncer.next_round == 4

    def test_the_next_one_is_due_after_h_over_p_steps_of_the_quickest(self):
        """H/P is 2; a learner of 3 seconds a step does not slow down one of 1."""
        syncer = made(delay=3)
        syncer.progress(Progress(1, 1, 3.0), 0.0)
        assert syncer.due(0.5) == 0.5
        syncer.open(0.5)
        assert syncer.due(0.6) == 2.5
        assert syncer.due(4.0) == 4.0

    def test_at_most_tau_are_open(self):
        syncer = made(delay=2)
        syncer.open(0.0)
        syncer.open(2.0)
        assert syncer.due(9.0) is None

    def test_nothing_is_due_before_a_learner_is_heard_of(self):
        assert Start().syncer().due(5.0) is None

    def test_who_is_silent_does_not_set_the_pace_unless_all_are(self):
        syncer = made()
        syncer.progress(Progress(1, 1, 3.0), 0.0)
        syncer.open(0.0)
        assert syncer.step_seconds(10.5) == 3.0
        assert syncer.step_seconds(99.0) == 1.0


class TestQuorumAndGrace:
    def test_the_grace_is_what_the_steps_hide_less_what_quorum_and_return_take(self):
        """γ(τ·ξ_step − ξ_quorum − ξ_sync) = .5 · (2 · 1 − .4 − .6)."""
        syncer = made(delay=2, grace=0.5)
        syncer.synced(0.6)
        syncer.open(0.0)
        assert syncer.hear(update(syncer, 2), 0.4) == "counted"
        assert syncer.rounds[0].closes == pytest.approx(0.4 + 0.5)

    def test_it_is_never_below_0(self):
        syncer = made()
        syncer.synced(60.0)
        syncer.open(0.0)
        syncer.hear(update(syncer, 0), 1.0)
        assert syncer.rounds[0].closes == 1.0

    def test_the_quorum_is_waited_for_and_set_once(self):
        syncer = made(learners=4, quorum=2, grace=0.5)
        syncer.open(0.0)
        syncer.hear(update(syncer, 0), 0.1)
        syncer.hear(update(syncer, 0), 0.2)
        assert syncer.rounds[0].closes is None
        syncer.hear(update(syncer, 1), 0.3)
        closes = syncer.rounds[0].closes
        syncer.hear(update(syncer, 2), 0.4)
        assert syncer.rounds[0].closes == closes and sorted(syncer.rounds[0].updates) == [0, 1, 2]

    def test_when_all_are_there_nobody_is_waited_for(self):
        syncer = made(learners=2, grace=1.0)
        syncer.open(0.0)
        syncer.hear(update(syncer, 0), 0.1)
        assert syncer.rounds[0].closes > 1
        syncer.hear(update(syncer, 1), 0.3)
        assert syncer.rounds[0].closes == 0.3

    def test_averages_keep_nine_tenths(self):
        syncer = made()
        syncer.progress(Progress(0, 2, 2.0), 0.0)
        assert syncer.step_seconds(0.0) == pytest.approx(1.1)


class TestWhoIsHeard:
    def test_an_update_for_a_round_that_is_over_is_late(self):
        syncer = made()
        late = update(syncer, 1)
        done(syncer)
        assert syncer.hear(late, 1.0) == "late"
        assert not syncer.rounds

    def test_an_update_from_an_older_fragment_is_stale_and_changes_nothing(self):
        syncer = made()
        for number in range(3):
            done(syncer, number)
        syncer.open(1.0)
        assert syncer.hear(update(syncer, 1, number=3, version=0), 1.0) == "stale"
        assert not syncer.rounds[3].updates

    def test_a_late_update_does_not_count_in_the_next_round_of_its_fragment(self):
        syncer = made()
        late = update(syncer, 1, number=0)
        for number in range(3):
            done(syncer, number)
        syncer.open(1.0)
        assert syncer.hear(late, 1.0) == "late"
        assert not syncer.rounds[3].updates


class TestMerging:
    def test_two_outer_steps_by_hand(self):
        """η .7, μ .9: Δ = 1 twice; m 1 and 1.9; Θ − .7 · 1.9, then − .7 · 2.71."""
        syncer, first = made(), first_weights()
        names = syncer.fragments[0]
        done(syncer, 0)
        for name in names:
            np.testing.assert_allclose(syncer.weights[name], first[name] - 0.7 * 1.9, atol=1e-5)
        for number in (1, 2, 3):
            done(syncer, number)
        for name in names:
            np.testing.assert_allclose(syncer.weights[name], first[name] - 0.7 * (1.9 + 2.71), atol=1e-5)

    def test_a_round_changes_its_own_fragment_alone(self):
        syncer, first = made(), first_weights()
        sent = done(syncer, 0)
        assert (sent.fragment, sent.version, tuple(sent.differences)) == (0, 1, syncer.fragments[0])
        for place in (1, 2):
            for name in syncer.fragments[place]:
                np.testing.assert_array_equal(syncer.weights[name], first[name])

    def test_learners_weigh_by_tokens_squared_over_steps(self):
        """20 tokens in one step and 10 in one: 4 to 1."""
        syncer, first = made(outer_learning_rate=1.0, outer_momentum=0.0), first_weights()
        syncer.open(0.0)
        syncer.hear(update(syncer, 0, tokens=20, value=1.0), 0.0)
        syncer.hear(update(syncer, 1, tokens=10, value=2.0), 0.0)
        syncer.close(0)
        for name in syncer.fragments[0]:
            np.testing.assert_allclose(syncer.weights[name], first[name] - 1.2, atol=1e-5)

    @pytest.mark.parametrize(("merge", "moved"), [("radial", 2**0.5), ("mean", 1.0)])
    def test_learners_that_point_different_ways_are_merged_as_asked_for(self, merge, moved):
        """Two learners with one number each: as long as each of them, or as their mean."""
        syncer, first = made(outer_learning_rate=1.0, outer_momentum=0.0, merge=merge), first_weights()
        [place] = [place for place, names in enumerate(syncer.fragments) if "a" in names]
        for _ in range(place + 1):
            syncer.open(0.0)
        for learner in (0, 1):
            one = update(syncer, learner, place, value=0.0)
            one.differences["a"][learner, 0] = 2.0
            syncer.hear(one, 0.0)
        syncer.close(place)
        np.testing.assert_allclose((first["a"] - syncer.weights["a"])[:2, 0], [moved, moved], atol=1e-6)

    def test_a_routers_bias_becomes_the_learners_mean_without_momentum(self):
        syncer, first = made(), first_weights()
        [place] = [place for place, names in enumerate(syncer.fragments) if any("bias" in name for name in names)]
        for number in (place, place + 3):
            done(syncer, number)
        [name] = [name for name in syncer.fragments[place] if "bias" in name]
        np.testing.assert_allclose(syncer.weights[name], first[name] - 2, atol=1e-6)


class TestReturns:
    """What is sent back, and what learners have after it."""

    def test_who_adds_up_all_changes_has_what_the_syncer_takes_it_for(self):
        syncer, held = made(), first_weights()
        for number in range(9):
            held |= changed(held, done(syncer, number, value=0.1 * number))
        same_weights(held, {name: syncer.sent[name] for name in held})
        assert any(not np.array_equal(held[name], syncer.weights[name]) for name in held)

    def test_what_rounding_keeps_back_is_sent_later(self):
        """One number moves by 7 a round, another by .35: a scale of 1. It is sent 0, 1, 0, 0 and 1 in five rounds."""
        syncer = made(fragments=1, inner_steps=2, outer_learning_rate=1.0, outer_momentum=0.0)
        first, found = syncer.weights["a"][0, 1], []
        for number in range(5):
            syncer.open(0.0)
            one = update(syncer, 0, number, value=0.0)
            one.differences["a"][0, :2] = -7.0, -0.35
            syncer.hear(one, 0.0)
            syncer.close(number)
            found.append(float(syncer.sent["a"][0, 1] - first))
        np.testing.assert_allclose(found, [0, 1, 1, 1, 2], atol=0.05)
        np.testing.assert_allclose(syncer.weights["a"][0, 1] - first, 1.75, atol=1e-5)

    def test_a_whole_fragment_is_the_one_that_learners_have(self):
        syncer = made()
        done(syncer)
        for name, tensor in syncer.newest(0).tensors.items():
            np.testing.assert_array_equal(tensor, syncer.sent[name])
        assert any(not np.array_equal(syncer.sent[name], syncer.weights[name]) for name in syncer.fragments[0])

    def test_a_learner_that_begins_without_a_peer_follows_the_changes_after_it(self):
        syncer = made()
        done(syncer)
        learner = rejoined(Start(bits=32).learner(0), copy_of({}, syncer, None))
        for number in (1, 2, 3):
            assert learner.receive(done(syncer, number, value=0.3))
        same_weights({name: learner.trainer.weights.weight(name) for name in SHAPES}, syncer.sent)

    def test_with_32_bits_they_have_all(self):
        syncer = made(return_bits=32)
        sent = done(syncer)
        assert isinstance(sent, Fragment)
        same_weights(dict(sent.tensors), {name: syncer.weights[name] for name in syncer.fragments[0]})
        same_weights(syncer.sent, syncer.weights)


class TestLastRounds:
    """Learners have done their 24 steps."""

    def test_before_anybody_is_done_there_are_none(self):
        assert made().ends(1.0) is None

    def test_they_begin_when_all_are_done(self):
        syncer = made()
        for learner, time in enumerate((30.0, 30.5, 31.0)):
            syncer.progress(Progress(learner, 24, 1.0), time)
        assert syncer.ends(31.0) == syncer.due(31.0) == 31.0

    def test_who_is_behind_is_waited_for_during_tau_steps(self):
        syncer = made(delay=2)
        syncer.progress(Progress(0, 24, 1.0), 30.0)
        assert syncer.due(30.5) == 32.0
        assert syncer.due(33.0) == 33.0

    def test_no_other_round_opens_whose_result_would_come_too_late(self):
        syncer = made(delay=2)
        syncer.progress(Progress(0, 21, 1.0), 30.0)
        assert syncer.due(30.0) == 30.0
        syncer.progress(Progress(0, 22, 1.0), 31.0)
        assert syncer.due(31.0) is None

    def test_each_fragment_has_one_and_all_open_at_once(self):
        syncer = made(learners=1)
        done(syncer, 0)
        syncer.progress(Progress(0, 24, 1.0), 30.0)
        numbers = []
        while syncer.due(30.0) == 30.0:
            numbers.append(syncer.open(30.0).round)
        assert numbers == [1, 2, 3] and syncer.due(30.0) is None
        for number in numbers:
            assert not syncer.is_over
            syncer.hear(update(syncer, 0, number), 30.0)
            syncer.close(number)
        assert syncer.is_over

    def test_they_merge_to_the_mean_without_momentum(self):
        """Two learners with one number each; before them, a round with a momentum of 1."""
        syncer = made(learners=2, fragments=1, inner_steps=2)
        done(syncer)
        before = syncer.weights["a"]
        for learner in (0, 1):
            syncer.progress(Progress(learner, 24, 1.0), 30.0)
        syncer.open(30.0)
        for learner in (0, 1):
            one = update(syncer, learner, 1, value=0.0)
            one.differences["a"][learner, 0] = 2.0
            syncer.hear(one, 30.0)
        syncer.close(1)
        moved = before - syncer.weights["a"]
        np.testing.assert_allclose(moved[:3, 0], [1, 1, 0], atol=1e-6)


class TestRestart:
    def test_from_what_was_written_of_each_fragment_it_goes_on_as_if_nothing_had_been(self):
        syncer, saved = made(), {}
        for number in range(5):
            saved[number % 3] = (done(syncer, number), syncer.state([number % 3]))[1]
        syncer.open(9.0)
        again = made()
        for place, state in saved.items():
            again.load_state(state, [place])
        assert (again.versions, again.next_round, again.rounds) == ([2, 2, 1], 5, {})
        same_weights(again.state(), syncer.state())
        for one in (syncer, again):
            done(one, 5)
        same_weights(again.state(), syncer.state())
