"""A few seconds of the long run: mixed load on `dsv4 serve`, which is stopped, killed and started again meanwhile."""

import sys

import pytest

import serve.needed  # noqa: F401
from serve.soak.run import LIVES, Plan, flatness, soak

SECONDS = 20


@pytest.mark.skipif(sys.platform != "linux", reason="the run reads /proc")
def test_every_reply_is_the_one_that_is_computed_alone(tmp_path):
    found = soak(Plan(SECONDS / 60, share=2.0), tmp_path / "soak.json")
    assert found["faults"] == [] and found["failures"] == []
    assert found["left"] == {"running": 0, "waiting": 0, "more_files": 0}
    assert len(found["lives"]) == len(LIVES) and found["passed"]
    assert found["counts"]["answered"] > 0


def test_memory_that_grows_is_not_flat():
    """10 % more over the three quarters of a life that are looked at; the lives before it are left alone."""
    other = [{"life": 1, "seconds": second, "own_memory": 10.0} for second in range(50)]
    growing = [{"life": 2, "seconds": 50 + second, "own_memory": 1000.0 + second / 3} for second in range(400)]
    found = flatness(other + growing)
    assert found["minutes"] == round(399 / 60, 2)
    assert found["farthest"] > 0.03 and found["growth"] > 0.06
    level = [sample | {"own_memory": 1000.0 + sample["seconds"] % 2} for sample in growing]
    assert flatness(other + level)["farthest"] < 0.002
