"""What a learner counts, says and takes."""

import numpy as np
import pytest

from dsv4.errors import TrainingError
from dsv4.learn.diloco.few_bits import Packed
from dsv4.learn.diloco.messages import Change, Fragment, Request, size_of, unpacked
from learn.diloco.toys import BIAS, SHAPES, TOKENS, Start, Step, first_weights, same_weights


def stepped(steps, **settings):
    learner = Start(**settings).learner(1)
    for _ in range(steps):
        learner.step()
    return learner


def fragment_of(learner, place, version, value=1.0):
    return Fragment(
        place, version, {name: np.full(SHAPES[name], value, np.float32) for name in learner.fragments[place]}
    )


def change_of(learner, place, version, value=0.5):
    """It adds the value to every number."""
    differences = {name: np.full(SHAPES[name], value, np.float32) for name in learner.fragments[place]}
    return Change(place, version, differences)


class TestUpdates:
    def test_it_says_how_far_it_has_gone_back_from_where_it_is(self):
        """Θ_prev − θ: adding what it says to what it has gives what the syncer sent."""
        learner, first = stepped(2, bits=32), first_weights()
        update = learner.update(Request(4, 1))
        for name in learner.fragments[1]:
            back = learner.trainer.weights.weight(name) + update.differences[name]
            np.testing.assert_allclose(back, first[name], atol=1e-6)
        assert update[:4] == (1, 4, 1, 0) and update[5:] == (2 * TOKENS, 2)

    def test_before_the_first_step_it_has_nothing_to_say(self):
        assert stepped(0).update(Request(0, 0)) is None

    def test_four_bits_for_all_but_a_routers_bias(self):
        learner = stepped(1)
        updates = [learner.update(Request(place, place)) for place in range(3)]
        kinds = {name: type(one) for update in updates for name, one in update.differences.items()}
        assert {name for name, kind in kinds.items() if kind is not Packed} == {BIAS}
        assert size_of(updates[0]) < sum(4 * unpacked(one).size for one in updates[0].differences.values()) / 2


class TestFragments:
    def test_one_that_comes_takes_the_place_of_its_own_and_its_count_begins_anew(self):
        learner = stepped(3)
        assert learner.receive(fragment_of(learner, 1, 1))
        assert (learner.steps, learner.tokens) == ([3, 0, 3], [3 * TOKENS, 0, 3 * TOKENS])
        for name in learner.fragments[1]:
            assert np.all(learner.trainer.weights.weight(name) == 1)
        learner.step()
        assert learner.steps == [4, 1, 4] and learner.update(Request(4, 1)).version == 1

    @pytest.mark.parametrize("version", [1, 2])
    def test_a_stale_one_changes_nothing(self, version):
        learner = stepped(1)
        learner.receive(fragment_of(learner, 0, 2, 2.0))
        learner.step()
        before = learner.state()
        assert not learner.receive(fragment_of(learner, 0, version, 9.0))
        same_weights(learner.state(), before)

    def test_a_change_is_added_to_the_fragment_as_it_came(self):
        """Not to what was learnt since."""
        learner = stepped(1)
        learner.receive(fragment_of(learner, 1, 1))
        learner.step()
        assert learner.receive(change_of(learner, 1, 2))
        for name in learner.fragments[1]:
            np.testing.assert_array_equal(learner.trainer.weights.weight(name), np.float32(1.5))
        assert learner.versions[1] == 2 and learner.steps[1] == 0

    @pytest.mark.parametrize("version", [1, 2, 4])
    def test_one_that_does_not_follow_from_its_own_changes_nothing(self, version):
        learner = stepped(1)
        learner.receive(fragment_of(learner, 0, 2, 2.0))
        learner.step()
        before = learner.state()
        assert not learner.receive(change_of(learner, 0, version))
        same_weights(learner.state(), before)

    def test_what_it_says_next_starts_from_what_came(self):
        learner = stepped(2, bits=32)
        learner.receive(fragment_of(learner, 1, 1))
        learner.step()
        for name, difference in learner.update(Request(4, 1)).differences.items():
            np.testing.assert_allclose(learner.trainer.weights.weight(name) + difference, 1, atol=1e-6)


class TestRejoining:
    def test_it_stands_where_its_peer_stands_and_has_learnt_nothing_of_its_own(self):
        peer, late = stepped(4), Start().learner(0)
        peer.receive(fragment_of(peer, 2, 1))
        late.rejoin(peer.state())
        assert late.trainer.step == 4 and late.versions == [0, 0, 1]
        same_weights(late.trainer.state(), peer.trainer.state())
        assert all(late.update(Request(place, place)) is None for place in range(3))

    def test_it_counts_again_from_its_next_step_on(self):
        late = Start().learner(0)
        late.rejoin(stepped(4).state())
        late.step()
        update = late.update(Request(0, 0))
        assert (update.learner, update.tokens, update.steps) == (0, TOKENS, 1)


def test_a_state_goes_on_with_the_same_bits():
    learner, other = stepped(3), Start().learner(1)
    learner.receive(fragment_of(learner, 1, 1))
    other.load_state(learner.state())
    for one in (learner, other):
        one.step()
    same_weights(other.state(), learner.state())


def test_a_loss_that_is_no_number_ends_it(monkeypatch):
    learner = stepped(1)
    monkeypatch.setattr(learner.trainer, "advance", lambda: Step(1, float("nan"), 0, "stop"))
    with pytest.raises(TrainingError, match="learner 1, step 1: expected a loss that is a number"):
        learner.step()
