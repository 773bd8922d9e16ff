"""Runs in virtual time with a toy: they end, learn, repeat and resume to the bit, whatever goes wrong."""

import numpy as np
import pytest

from dsv4.errors import TrainingError
from dsv4.learn.diloco.chaos import SYNCER, Chaos, Kill
from dsv4.learn.diloco.replay import replayed
from dsv4.learn.diloco.snapshot import put_back, taken
from learn.diloco.toys import Start, distance, first_weights, same_weights

TROUBLE = {
    "quiet": Chaos(),
    "learner killed": Chaos(kills=(Kill(1, 7, 4.0),)),
    "syncer killed": Chaos(kills=(Kill(SYNCER, 4, 3.0),)),
    "slow learner": Chaos(slow=((2, 10.0),)),
    "messages lost": Chaos(lost=0.2),
    "all learners killed": Chaos(kills=(Kill(0, 9, 5.0), Kill(1, 8, 6.0), Kill(2, 9, 5.0))),
    "syncer killed at the end": Chaos(kills=(Kill(SYNCER, 12, 30.0),)),
    "syncer killed among last rounds": Chaos((Kill(SYNCER, 14, 3.0), Kill(1, 20, 12.0)), ((2, 3.0),)),
    "everything": Chaos((Kill(1, 7, 4.0), Kill(SYNCER, 5, 3.0), Kill(0, 12, 2.0)), ((2, 5.0),), 0.1),
}


def run(start, chaos, seed=0, events=None):
    """A world at its end, or after so many events, and its tape."""
    tape = []
    world = start.world(chaos, seed, tape.append)
    while not world.is_over and (events is None or world.counts["advanced"] < events):
        world.advance()
        world.counts["advanced"] += 1
        assert world.counts["advanced"] < 20_000, "it does not end"
    return world, tape


@pytest.fixture(scope="module", params=TROUBLE)
def finished(request):
    """Start, chaos, world and tape of a run that has ended."""
    start, chaos = Start(), TROUBLE[request.param]
    return start, chaos, *run(start, chaos)


class TestWhateverGoesWrong:
    def test_every_fragment_is_merged_as_often_as_the_steps_ask_for(self, finished):
        """24 steps, H = 6: four times, and once more in the end if the last turn was not just before it; where the
        syncer was gone or messages were lost, once less perhaps, or once more where it was gone in the end.
        """
        _, chaos, world, tape = finished
        restarts = sum(kill.who == SYNCER for kill in chaos.kills)
        least = 4 if chaos.lost == restarts == 0 else 3
        assert least <= min(world.syncer.versions) <= max(world.syncer.versions)
        assert 5 <= max(world.syncer.versions) <= 5 + restarts
        rounds = [line["round"] for line in tape if line["event"] == "merged"]
        assert len(set(rounds)) == len(rounds) == sum(world.syncer.versions)

    def test_it_learns(self, finished):
        world = finished[2]
        assert distance(world.syncer.weights) < 0.5 * distance(first_weights())

    def test_the_tape_makes_the_same_bits_again(self, finished):
        start, _, world, tape = finished
        syncer, learners = replayed(tape, start.learner, start.syncer())
        same_weights(syncer.state(), world.syncer.state())
        assert learners.keys() == world.learners.keys()
        for m, learner in learners.items():
            same_weights(learner.state(), world.learners[m].state())

    def test_the_same_seed_makes_the_same_tape_and_another_one_another(self, finished):
        start, chaos, world, tape = finished
        again, same = run(start, chaos)
        assert same == tape
        same_weights(again.syncer.state(), world.syncer.state())
        assert run(start, chaos, seed=1)[1] != tape

    @pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
    def test_a_snapshot_goes_on_with_the_same_bits_and_lines(self, finished, share):
        start, chaos, world, tape = finished
        half, before = run(start, chaos, events=int(share * world.counts["advanced"]))
        state = {name: array.copy() for name, array in taken(half).items()}
        del half
        after = []
        resumed = start.world(chaos, 0, after.append)
        put_back(resumed, state)
        while not resumed.is_over:
            resumed.advance()
        assert before + after == tape
        same_weights(resumed.syncer.state(), world.syncer.state())


@pytest.mark.parametrize("seed", range(130, 160))
def test_drawn_trouble_comes_to_an_end_and_is_replayed_to_the_same_bits(seed):
    """Few steps, so that who is killed near the end is in it: a syncer among last rounds, too."""
    lots = np.random.default_rng(seed)
    learners, fragments, steps = (int(lots.integers(*limits)) for limits in ((1, 5), (1, 4), (2, 30)))
    killed = [(int(lots.integers(learners)), 3), (int(lots.integers(learners)), 3), (SYNCER, 2)]
    kills = [Kill(who, int(lots.integers(1, steps + more)), lots.uniform(0, 15)) for who, more in killed]
    slow = ((int(lots.integers(learners)), lots.uniform(1, 6)),)
    bits = {"bits": int(lots.choice([4, 32])), "return_bits": int(lots.choice([2, 4, 32]))}
    start = Start(steps, learners=learners, fragments=fragments, inner_steps=2 * fragments, **bits)
    world, tape = run(start, Chaos(tuple(kills), slow, float(lots.choice([0.0, 0.1]))), seed)
    syncer, learners = replayed(tape, start.learner, start.syncer())
    same_weights(syncer.state(), world.syncer.state())
    for m, learner in world.learners.items():
        same_weights(learners[m].state(), learner.state())


def merged_by(tape, learner, after=0.0):
    return [line for line in tape if line["event"] == "merged" and learner in line["learners"] and line["time"] > after]


def time_of(tape, event):
    return next(line["time"] for line in tape if line["event"] == event)


@pytest.fixture(scope="module", params=["quiet", "learner killed"])
def ended(request):
    """World and tape of a run that has ended, and the lines of the last merges."""
    world, tape = run(Start(), TROUBLE[request.param])
    return world, tape, [line for line in tape if line["event"] == "merged" and line["last"]]


class TestTheEnd:
    def test_each_fragment_has_a_last_merge_of_all_learners_after_their_last_steps(self, ended):
        world, tape, last = ended
        assert sorted(line["fragment"] for line in last) == [0, 1, 2] and world.syncer.is_over
        assert all(line["learners"] == [0, 1, 2] for line in last)
        assert min(line["time"] for line in last) > max(line["time"] for line in tape if line["event"] == "step")

    def test_no_step_is_left_out_of_it(self, ended):
        """Each learner is merged with all steps that it has done since it had the fragment, or since it returned."""
        _, tape, last = ended
        for line in last:
            before = tape[: tape.index(line)]
            for learner, steps in zip(line["learners"], line["steps"], strict=True):
                own = [one for one in before if one.get("learner") == learner]
                begins = [
                    place
                    for place, one in enumerate(own)
                    if one["event"] == "returned"
                    or (one["event"] == "received" and one["fragment"] == line["fragment"])
                ]
                assert steps == sum(one["event"] == "step" for one in own[begins[-1] :]) > 0


class TestWhatFollows:
    def test_the_others_do_not_wait_for_a_learner_that_is_killed(self):
        tape = run(Start(), TROUBLE["learner killed"])[1]
        killed, returned = time_of(tape, "killed"), time_of(tape, "returned")
        meanwhile = [line for line in tape if line["event"] == "merged" and killed + 1 < line["time"] < returned]
        assert meanwhile and all(line["learners"] == [0, 2] for line in meanwhile)

    def test_a_learner_that_returns_counts_again(self):
        tape = run(Start(), TROUBLE["learner killed"])[1]
        assert len(merged_by(tape, 1, time_of(tape, "returned"))) >= 3

    def test_it_has_a_peers_state_and_without_one_the_syncers(self):
        one, none = (run(Start(), TROUBLE[name])[1] for name in ("learner killed", "all learners killed"))
        assert [line["peer"] for line in one if line["event"] == "copied"] == [0]
        assert None in [line["peer"] for line in none if line["event"] == "copied"]

    def test_a_slow_learner_slows_nobody_down_and_still_counts(self):
        quiet, slow = (run(Start(72, inner_steps=24), TROUBLE[name]) for name in ("quiet", "slow learner"))
        assert slow[0].time < 1.1 * quiet[0].time
        assert merged_by(slow[1], 2)

    def test_a_learner_that_missed_a_fragment_is_sent_it_and_counts_again(self):
        tape = run(Start(), Chaos(lost=0.2))[1]
        missed = {(line["learner"], line["round"] % 3, line["round"] // 3) for line in tape if line["event"] == "stale"}
        lines = [line for line in tape if line["event"] == "received"]
        received = {(line["learner"], line["fragment"], line["version"]) for line in lines}
        assert missed & received
        assert all(merged_by(tape, learner) for learner, *_ in missed)

    def test_a_syncer_that_is_killed_before_it_has_sent_a_fragment_takes_nothing_back(self):
        tape = run(Start(), TROUBLE["syncer killed"])[1]
        rounds = [line["round"] for line in tape if line["event"] == "merged"]
        assert rounds[4] == 4 and len(rounds) == len(set(rounds))
        received = [
            (line["learner"], line["fragment"], line["version"]) for line in tape if line["event"] == "received"
        ]
        assert len(received) == len(set(received))

    def test_rounds_keep_the_pace_of_the_steps_on_a_fast_network(self):
        """H/P steps lie between two merges on average: not one or two."""
        tape = run(Start(steps=48), Chaos())[1]
        times = [line["time"] for line in tape if line["event"] == "merged"]
        assert np.mean(np.diff(times)) == pytest.approx(2.05, abs=0.15)

    def test_a_quorum_of_all_waits_for_the_slow_one(self):
        tape = run(Start(quorum=3), Chaos(slow=((2, 3.0),)))[1]
        assert all(line["learners"] == [0, 1, 2] for line in tape if line["event"] == "merged")


def test_one_learner_with_eta_1_and_no_momentum_is_that_learner_alone():
    """Nothing is lost but what was learnt while a fragment was on its way."""
    start = Start(learners=1, outer_learning_rate=1.0, outer_momentum=0.0, bits=32)
    world, tape = run(start, Chaos())
    assert all(line["learners"] == [0] for line in tape if line["event"] == "merged")
    alone = start.learner(0)
    for _ in range(24):
        alone.step()
    ours = distance(world.syncer.weights)
    assert distance({name: alone.trainer.weights.weight(name) for name in first_weights()}) == pytest.approx(
        ours, rel=0.8
    )


def test_a_tape_with_a_line_missing_is_refused():
    start = Start()
    tape = run(start, Chaos())[1]
    answered = next(place for place, line in enumerate(tape) if line["event"] == "answered")
    with pytest.raises(TrainingError, match="tape: line"):
        replayed(tape[:answered] + tape[answered + 1 :], start.learner, start.syncer())


def test_a_snapshot_of_something_else_is_refused():
    world = Start().world(Chaos())
    with pytest.raises(TrainingError, match="snapshot: expected"):
        put_back(world, {"world": np.frombuffer(b"{}", np.uint8)})
