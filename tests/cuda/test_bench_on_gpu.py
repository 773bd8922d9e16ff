"""The bench of a GPU, on what stands for one: its own copies are the roof, and no time ends before the work does."""

import numpy as np

from dsv4.ops import Ops
from dsv4_accel.bench import run as run_module
from dsv4_accel.bench.case import ROOF, Goal
from dsv4_accel.bench.gpu import GOALS, gpu_cases
from dsv4_accel.bench.peer_cupy import CUPY, CUPY_HALF
from dsv4_accel.bench.roof import DeviceRoof
from dsv4_accel.bench.stage import NUMPY, OURS, lives_elsewhere
from dsv4_accel.bench.timing import Contestant, Pace, alternate


def test_the_roof_copies_its_whole_buffer(hasty) -> None:
    roof = DeviceRoof(hasty, 4096)
    roof._source[...] = 3
    roof.read()
    assert roof.nbytes == 2 * 4096
    np.testing.assert_array_equal(hasty.to_numpy(roof._target), np.full(1024, 3, np.float32))


def test_whose_arrays_live_elsewhere(hasty) -> None:
    assert lives_elsewhere(hasty)
    assert not lives_elsewhere(Ops())


def test_a_batch_ends_when_its_work_does() -> None:
    """What was begun is waited for before the clock is read, also behind the call that is not timed."""
    happened = []

    def clock() -> float:
        happened.append("clock")
        return float(len(happened))

    contestant = Contestant(lambda: happened.append("call"), finish=lambda: happened.append("wait"), period=2)
    alternate({"one": contestant}, Pace(0, 0, 0, 1), clock, lambda seconds: None)
    assert happened[-7:] == ["call", "wait", "clock", "call", "call", "wait", "clock"]


def test_rows_have_the_goals_of_a_gpu() -> None:
    cases = {case.name: case for case in gpu_cases(run_module.all_cases())}
    assert GOALS.keys() <= cases.keys()
    assert cases["fp4.matvec"].goals == (Goal(0.8, ROOF),)
    assert not cases["fp8.matmat.64"].goals
    assert "fp4.matvec.one-thread" not in cases
    assert cases["attention.decode.64"].goals == (Goal(3, CUPY),)
    assert cases["fp4.matmat.4096.rounded"].goals == (Goal(0.5, CUPY_HALF),)


def test_a_run_takes_the_devices_roof(hasty, monkeypatch) -> None:
    monkeypatch.setattr(run_module, "backend_named", lambda name: hasty)
    report = run_module.run("cuda", ["rms_norm"], quick=True, peers=False)
    assert (report.backend, report.roof_reader) == ("cuda", DeviceRoof.reader)
    [row] = report.rows
    assert set(row.seconds) == {OURS, NUMPY, ROOF}
