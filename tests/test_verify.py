"""Holding one backend against another: what is compared with what, and what is no comparison."""

import json
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from command import runner
from dsv4 import SettingError, backends, load
from dsv4.backends import GROUP, VARIABLE
from dsv4.ops import Ops
from dsv4.verify import compare
from dsv4.verify_dspark import SETTINGS
from dsv4_accel.bench.stage import NUMPY, OURS, Stage

SMALL = Path(__file__).parent / "data" / "golden" / "small"


@pytest.fixture
def dsv4(monkeypatch, capfd):
    monkeypatch.setenv(VARIABLE, "numpy")
    return runner(monkeypatch, capfd)


class SlightlyWrong(Ops):
    """A backend that forgot its name, too."""

    @staticmethod
    def rms_norm(x, weight, eps):
        return Ops.rms_norm(x, weight, eps) * np.float32(1.01)


@pytest.fixture
def more_backends(monkeypatch):
    """Two more: NumPy's by another name, and one that computes something else."""
    values = {"alias": "dsv4.ops:Ops", "wrong": f"{__name__}:SlightlyWrong"}
    points = {name: EntryPoint(name, value, GROUP) for name, value in values.items()}
    known = backends.installed(backends.GROUP, backends.OURS)
    monkeypatch.setattr(backends, "installed", lambda *_: known | points)


@pytest.mark.parametrize(
    "arguments",
    [
        "--against numpy",
        "--against auto",
        "--against alias",
        "--backend numpy --against numpy",
        "--backend auto --against numpy",
        "--backend alias --against auto",
    ],
)
def test_verify_compares_no_backend_with_itself(dsv4, more_backends, arguments) -> None:
    status, out, err = dsv4("verify", SMALL, "--length", 3, *arguments.split())
    assert (status, out) == (2, "")
    assert err == "dsv4: verify: expected two different backends to compare, found numpy on both sides\n"


def test_verify_compares_with_the_reference_where_no_other_backend_is_named(dsv4, more_backends, monkeypatch) -> None:
    monkeypatch.setenv(VARIABLE, "wrong")
    status, out, _ = dsv4("verify", SMALL, "--length", 3, "--against", "wrong")
    assert status == 1
    assert "too far" in out
    assert dsv4("verify", SMALL, "--length", 3, "--against", "auto", "-b", "wrong")[0] == 2
    assert dsv4("verify", SMALL, "--length", 3, "--against", "auto")[0] == 1


def test_models_that_cannot_differ_are_not_compared() -> None:
    ids = np.arange(6)[None]
    model, twin = load(SMALL, "numpy"), load(SMALL, "numpy")
    with pytest.raises(SettingError, match="found numpy on both sides"):
        compare(model, twin, ids, 4)
    found = compare(model, load(SMALL, "numpy", dtype=np.float64), ids, 4)
    assert 0 < max(difference.relative for difference in found) < 1e-5


def test_bench_compares_a_backend_without_a_name_with_the_reference() -> None:
    def contestants(ops):
        return [name for name, _ in Stage.all_ops.fget(SimpleNamespace(ops=ops)).items()]

    assert contestants(SlightlyWrong()) == [OURS, NUMPY]
    assert contestants(Ops()) == [NUMPY]


@pytest.mark.parametrize("tolerance", ["nan", "inf", "-1"])
def test_verify_refuses_a_tolerance_that_everything_or_nothing_meets(dsv4, tolerance) -> None:
    status, _, err = dsv4("verify", SMALL, "--against", "numpy", f"--tolerance={tolerance}")
    assert (status, err) == (
        2,
        f"dsv4: --tolerance: expected a finite number of at least 0, found {float(tolerance)}\n",
    )


def test_verify_writes_json_also_of_what_is_no_number(dsv4, tmp_path) -> None:
    saved = tmp_path / "saved.safetensors"
    assert dsv4("verify", SMALL, "--save", saved, "--length", 30)[0] == 0
    results = load_file(saved)
    results["mtp.logits"][0, 0, 0] = np.inf
    save_file(results, saved)
    status, out, _ = dsv4("verify", SMALL, "--expected", saved, "--json")
    assert status == 1
    rows = {row["name"]: row for row in json.loads(out, parse_constant=pytest.fail)}
    assert rows["mtp.logits"]["relative"] is None
    assert rows["prefill.logits"]["relative"] < 1e-5


def test_verify_agrees_with_the_drafts_that_it_has_saved_and_notices_a_wrong_one(dsv4, tmp_path) -> None:
    """Each result is listed; that of a draft is judged by the drafter alone, which reads the stored states."""
    saved, model = tmp_path / "saved.safetensors", SMALL.parent / "dspark_float"
    assert dsv4("verify", model, "--save", saved, "--length", 30)[0] == 0
    results = load_file(saved)
    status, out, _ = dsv4("verify", model, "--expected", saved, "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    drafts = {"draft.ids", "draft.logits", "draft.confidence", "draft.stages.out", "decode.rings", "decode.main_hidden"}
    assert status == 0 and drafts <= rows.keys()
    assert rows.keys() == results.keys() - {"input_ids", *SETTINGS}
    results["draft.ids"][0, 2, 3] += 1
    save_file(results, saved)
    status, out, _ = dsv4("verify", model, "--expected", saved, "--json")
    assert status == 1
    assert [row["name"] for row in json.loads(out) if row["relative"] > row["allowed"]] == ["draft.ids"]
