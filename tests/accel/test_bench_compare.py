"""Two reports of the bench: what is slower or faster beyond the spread, and the command's exit status."""

import json

import pytest

from dsv4 import SettingError
from dsv4.ops import Ops
from dsv4_accel.bench import run as run_module
from dsv4_accel.bench.case import ROOF, Case, Contest, judge
from dsv4_accel.bench.compare import changes, in_words, read_rows
from dsv4_accel.bench.run import Report
from dsv4_accel.bench.stage import NUMPY, OURS


def row(name: str, ours: list[float], numpy: list[float] | None = None, roof: list[float] | None = None):
    """A row with these times, on the roof if its times are given."""
    times = {OURS: ours, **({NUMPY: numpy} if numpy else {}), **({ROOF: roof} if roof else {})}
    contestants = dict.fromkeys(name for name in times if name != ROOF)
    case = Case(name, "what", "memory", lambda stage: None)
    return judge(case, Contest(contestants, 100 if roof else None), times, roof_bytes=100, threads=1)


@pytest.mark.parametrize(
    ("before", "now", "judgement"),
    [
        ([1.0, 1.1, 1.2], [2.0, 2.1, 2.2], "slower"),
        ([2.0, 2.1, 2.2], [1.0, 1.1, 1.2], "faster"),
        ([1.0, 1.5, 2.0], [1.2, 1.7, 2.2], "the same"),  # the quartiles overlap
    ],
)
def test_a_row_alone_is_judged_by_its_times(before, now, judgement):
    [change] = changes([row("a", before)], [row("a", now)])
    assert (change.judgement, change.yardstick) == (judgement, None)
    assert change.times == pytest.approx(now[1] / before[1])


@pytest.mark.parametrize("beside", ["numpy", "roof"])
def test_a_machine_that_has_become_slower_is_no_slower_row(beside):
    before = row("a", [1.0, 1.1, 1.2], **{beside: [10.0, 11.0, 12.0]})
    [same] = changes([before], [row("a", [2.0, 2.2, 2.4], **{beside: [20.0, 22.0, 24.0]})])
    assert same.judgement == "the same"
    [slower] = changes([before], [row("a", [2.0, 2.2, 2.4], **{beside: [10.0, 11.0, 12.0]})])
    assert slower.judgement == "slower"
    wanted = f"a: slower, 2.00 times as long, also beside {slower.yardstick} (1100 ms before, 2200 ms now)"
    assert in_words(slower) == wanted


def test_rows_that_only_one_report_has_are_left_out():
    assert [change.row for change in changes([row("a", [1]), row("b", [1])], [row("b", [1]), row("c", [1])])] == ["b"]


def report(rows) -> Report:
    return Report("numpy", 1, True, {}, "NumPy", 100, {}, {}, {}, rows)


@pytest.mark.parametrize(("now", "status"), [([2.0, 2.1], 1), ([0.5, 0.6], 0)])
def test_the_command_says_what_changed_and_ends_with_1_for_slower(dsv4, monkeypatch, tmp_path, now, status):
    monkeypatch.setattr("dsv4_accel.bench.roof.thread_count", lambda: 1)
    earlier = tmp_path / "earlier.json"
    earlier.write_text(json.dumps(report([row("a", [1.0, 1.1])]).to_json()))
    monkeypatch.setattr(run_module, "run", lambda *settings: report([row("a", now)]))
    options = "bench", "--backend", "numpy", "--compare", earlier, "--json"
    exit_status, printed, _ = dsv4(*options)
    assert exit_status == status
    [change] = json.loads(printed)["changes"]
    assert (change["row"], change["judgement"]) == ("a", "slower" if status else "faster")
    assert change["now"]["median"] == sum(now) / 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[1]", "expected a report of `dsv4 bench --json`, found other JSON"),
        ("{", "expected a report"),
        (json.dumps(report([]).to_json()), "expected a report of 'numba' with 2 threads, found one of 'numpy' with 1"),
    ],
)
def test_a_file_that_is_no_such_report_is_refused(tmp_path, content, words):
    path = tmp_path / "earlier.json"
    path.write_text(content)
    with pytest.raises(SettingError, match=words):
        read_rows(path, "numba", 2)


def test_reports_are_read_as_they_were_written(tmp_path):
    rows = [row("a", [1.0, 2.0], numpy=[3.0, 4.0], roof=[5.0, 6.0])]
    path = tmp_path / "earlier.json"
    path.write_text(json.dumps(report(rows).to_json()))
    assert read_rows(path, Ops.name, 1) == rows
