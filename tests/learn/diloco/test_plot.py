"""The picture of a run."""

import numpy as np
import pytest

from dsv4.errors import TrainingError
from dsv4.learn.diloco.plot import draw, goodput


def step(learner, time, seconds):
    return {"event": "step", "learner": learner, "time": time, "seconds": seconds, "loss": 1.0}


def test_goodput_by_hand():
    """Two learners: one trains from 0 to 4, the other from 1 to 2."""
    steps = [step(1, 2.0, 1.0), step(0, 4.0, 4.0)]
    np.testing.assert_allclose(goodput(steps, 2, [0, 1, 2, 4, 8], window=4.0), [0, 1 / 2, 3 / 4, 5 / 8, 0])


def test_a_tape_becomes_a_picture(tmp_path):
    pytest.importorskip("matplotlib")
    merged = {"event": "merged", "time": 1.5, "up": 10, "down": 20}
    draw([step(0, 1.0, 1.0), merged, {"event": "killed", "time": 2.0}, step(1, 3.0, 1.0)], 2, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_a_tape_without_a_step_is_refused(tmp_path):
    pytest.importorskip("matplotlib")
    with pytest.raises(TrainingError, match="tape: expected at least one step"):
        draw([], 2, tmp_path / "plot.png")
