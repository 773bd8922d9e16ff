"""Real processes that are killed with −9, slow, or not heard: training goes on, and the tape makes the same bits.

One start of Ray serves all runs, each of which has a limit. Nothing but the toy's own steps takes a fixed time.
"""

import json
import signal
import threading
from contextlib import contextmanager, suppress
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

STEPS, SETTINGS = 144, {"inner_steps": 24, "delay": 3}

TROUBLE = Chaos(kills=(Kill(1, 8, 0.5), Kill(SYNCER, 4, 0.5)), slow=((2, 10.0),), lost=0.1)


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


class Patient(Start):
    """Learners that are slow until the tape has everything that the tests ask for, however long a start takes."""

    def __init__(self, directory):
        super().__init__(STEPS, SECONDS, **SETTINGS)
        self.tape = directory / "tape.jsonl"

    def learner(self, number):
        learner = super().learner(number)
        learner.trainer.__class__ = PatientToy
        learner.trainer.tape = self.tape
        return learner


class PatientToy(Toy):
    is_sure = False

    def advance(self):
        found = super().advance()
        for waited in range(40):
            tape = lines_of(self.tape) if found.step >= 24 and not self.is_sure else []
            self.is_sure = self.is_sure or counts_again(tape)
            if self.is_sure or found.step < 24 or (are_back(tape) and waited >= 8):
                break
            threading.Event().wait(SECONDS)
        return found


def lines_of(tape):
    return [json.loads(line) for line in tape.read_bytes().split(b"\n")[:-1]] if tape.exists() else []


def are_back(tape):
    """Whether the learner and the syncer that were killed have both been started again."""
    return {"returned", "restarted"} <= {line["event"] for line in tape}


def counts_again(tape):
    """Whether they are, and the learner was merged after it had come back."""
    if not are_back(tape):
        return False
    later = tape[[line["event"] for line in tape].index("returned") :]
    return any(1 in line["learners"] for line in later if line["event"] == "merged")


@contextmanager
def within(seconds):
    """A limit for what is done in it."""

    def over(*_):
        raise TimeoutError(f"expected an end within {seconds} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.filterwarnings("ignore")  # of Ray's own
class TestChaos:
    @pytest.fixture(scope="class", autouse=True)
    def ray(self):
        """Ray's processes are started once for all runs."""
        pytest.importorskip("ray", reason="Ray is not installed (extra `ray`)")
        with within(120):
            ray, _ = module._connected(module.LOCAL)
        yield ray
        ray.shutdown()

    @pytest.fixture(scope="class")
    def trouble(self, ray, tmp_path_factory):
        """A learner killed, the syncer killed, a learner ten times slower, and messages lost, all in one run."""
        directory = tmp_path_factory.mktemp("trouble")
        start = Patient(directory)
        with within(280):
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
        _, syncer, tape = trouble
        start = Start(STEPS, **SETTINGS)
        same_weights(replayed(tape, start.learner, start.syncer())[0].state(), syncer.state())

    def test_nothing_is_merged_twice(self, trouble):
        versions = [(line["fragment"], line["version"]) for line in trouble[2] if line["event"] == "merged"]
        assert len(versions) == len(set(versions))
        for place in range(3):
            own = [version for fragment, version in versions if fragment == place]
            assert own == list(range(1, len(own) + 1))

    def test_who_was_killed_counts_again(self, trouble):
        assert counts_again(trouble[2])

    def test_lines_of_a_learner_are_in_order(self, trouble):
        lines = [line for line in trouble[2] if line.get("sender") == "0.0"]
        assert all(after["number"] == before["number"] + 1 for before, after in pairwise(lines))

    def test_a_loss_that_is_no_number_ends_the_run_in_one_line_and_everybody(self, ray, tmp_path, monkeypatch):
        made, original = [], module._Run
        monkeypatch.setattr(module, "_Run", lambda *arguments: made.append(original(*arguments)) or made[0])
        with within(120), pytest.raises(TrainingError, match="expected a loss that is a number"):
            module.run(Diverging(24, SECONDS, learners=1), tmp_path, QUIET, 0)
        assert len(made[0].actors) == 2
        for actor in made[0].actors.values():
            with within(60), pytest.raises(ray.exceptions.RayActorError):
                while True:
                    with suppress(EOFError):  # which it is for somebody who still lives
                        ray.get(actor.hear.remote(b""))

    def test_bytes_are_counted_as_they_are_sent(self, trouble):
        """The toy's fragments have about 30 numbers: what stands beside them counts, too."""
        merges = [line for line in trouble[2] if line["event"] == "merged"]
        assert 0 < merges[0]["up"] <= merges[-1]["up"] and 0 < merges[0]["down"] < merges[-1]["down"]
        sent = sum(line["event"] == "answered" for line in trouble[2])
        assert merges[-1]["up"] > 100 * sent

    def test_a_hundred_times_fewer_bytes_than_data_parallelism_in_both_directions(self, ray, tmp_path):
        """Which would send a float32 gradient of every number, and get one back, in each step of each learner."""
        numbers, steps, learners, gradient = 24 * 64 * 128, 96, 4, 4 * 24 * 64 * 128
        shapes = {f"layers.{place}": (64, 128) for place in range(24)}
        start = Start(steps, SECONDS, shapes, learners=learners, fragments=24, inner_steps=24)
        with within(280):
            syncer = module.run(start, tmp_path, QUIET, 0)
        merges = [line for line in lines_of(tmp_path / "tape.jsonl") if line["event"] == "merged"]
        assert len(merges) >= steps and min(syncer.versions) >= 4
        for key in ("up", "down"):
            sent = merges[-1][key] / (learners * steps)
            assert 0.5 * numbers / 24 < sent < gradient / 100  # four bits of each number of a fragment at least

    def test_an_address_where_nothing_is_is_refused(self, tmp_path):
        with pytest.raises(BackendError, match="ray: expected processes at"):
            module.run(Start(), tmp_path, QUIET, 0, "127.0.0.1:1")
