"""Real processes that are killed with −9, slow, or not heard: training goes on, and the tape makes the same bits.

One start of Ray serves each run; nothing is timed, and nothing but the toy's own steps takes a fixed time.
"""

from itertools import pairwise

import pytest

from dsv4.errors import BackendError, TrainingError
from dsv4.learn.diloco.chaos import QUIET, SYNCER, Chaos, Kill
from dsv4.learn.diloco.real import run as module
from dsv4.learn.diloco.real.files import recovered_tape
from dsv4.learn.diloco.replay import replayed
from learn.diloco.toys import Start, Toy, distance, first_weights, same_weights

SECONDS = 0.05
"""Of a toy's step."""

TROUBLE = Chaos(kills=(Kill(1, 8, 0.5), Kill(SYNCER, 6, 0.5)), slow=((2, 10.0),), lost=0.05)


def test_without_ray_it_is_said_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match="ray: expected Ray, found none installed: pip install"):
        module.run(Start(), tmp_path, QUIET, 0)


class Diverging(Start):
    """A learner that comes to a loss that is no number."""

    def learner(self, number):
        learner = super().learner(number)
        learner.trainer.__class__ = DivergingToy
        return learner


class DivergingToy(Toy):
    def advance(self):
        found = super().advance()
        return found._replace(loss=float("nan"), verdict="stop") if found.step == 3 else found


@pytest.mark.filterwarnings("ignore")  # of Ray's own
class TestChaos:
    @pytest.fixture(scope="class", autouse=True)
    def has_ray(self):
        pytest.importorskip("ray", reason="Ray is not installed (extra `ray`)")

    @pytest.fixture(scope="class")
    def trouble(self, tmp_path_factory):
        """A learner killed, the syncer killed, a learner ten times slower, and messages lost, all in one run."""
        start, directory = Start(72, SECONDS, inner_steps=24), tmp_path_factory.mktemp("trouble")
        syncer = module.run(start, directory, TROUBLE, 0)
        return start, syncer, recovered_tape(directory / "tape.jsonl", syncer.versions)

    def test_the_model_learns_to_the_end(self, trouble):
        _, syncer, _ = trouble
        assert min(syncer.versions) >= 2
        assert distance(syncer.weights) < 0.5 * distance(first_weights())

    def test_everything_has_happened(self, trouble):
        events = [line["event"] for line in trouble[2]]
        assert {"killed", "copied", "returned", "restarted", "lost", "merged"} <= set(events)

    def test_the_tape_makes_the_same_bits(self, trouble):
        start, syncer, tape = trouble
        same_weights(replayed(tape, start.learner, start.syncer())[0].state(), syncer.state())

    def test_nothing_is_merged_twice(self, trouble):
        versions = [(line["fragment"], line["version"]) for line in trouble[2] if line["event"] == "merged"]
        assert len(versions) == len(set(versions))
        for place in range(3):
            own = [version for fragment, version in versions if fragment == place]
            assert own == list(range(1, len(own) + 1))

    def test_who_was_killed_counts_again(self, trouble):
        tape = trouble[2]
        returned = next(n for n, line in enumerate(tape) if line["event"] == "returned" and line["learner"] == 1)
        assert any(1 in line["learners"] for line in tape[returned:] if line["event"] == "merged")

    def test_lines_of_a_learner_are_in_order(self, trouble):
        lines = [line for line in trouble[2] if line.get("sender") == "0.0"]
        assert all(after["number"] == before["number"] + 1 for before, after in pairwise(lines))

    def test_a_loss_that_is_no_number_ends_the_run_in_one_line(self, tmp_path):
        with pytest.raises(TrainingError, match="expected a loss that is a number"):
            module.run(Diverging(24, SECONDS), tmp_path, QUIET, 0)

    def test_an_address_where_nothing_is_is_refused(self, tmp_path):
        with pytest.raises(BackendError, match="ray: expected processes at"):
            module.run(Start(), tmp_path, QUIET, 0, "127.0.0.1:1")
