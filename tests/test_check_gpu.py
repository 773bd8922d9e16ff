"""The check for a machine with a GPU names what exists, ends in time, and measures on what stands for a GPU.

No GPU runs here, so the steps that need one are called with what CuPy would be.
"""

import importlib
import inspect
import json
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from cuda.host_build import compiler
from dsv4.ops import Ops

ROOT = Path(__file__).parents[1]
SCRIPT = (ROOT / "accel" / "check_gpu.sh").read_text(encoding="utf-8")
LIMIT_SECONDS = 480

PROBES = re.findall(r"^ *probe (\w+) (\d+)$", SCRIPT, re.MULTILINE)
TESTS = re.findall(r"\btests (\w+) (\d+) (\d+) ([\w/. ]+)", SCRIPT)
SANITIZERS = re.findall(r"^ *sanitize (\w+)$", SCRIPT, re.MULTILINE)
LIMITS_OF_OTHERS = re.findall(r"step \S+ (\d+) (?:nvidia-smi|compute-sanitizer)", SCRIPT)


@pytest.fixture
def check(monkeypatch, tmp_path):
    """The module of the probes, whose findings go to a directory of the test."""
    monkeypatch.setenv("OUT", str(tmp_path))
    monkeypatch.syspath_prepend(str(ROOT / "accel"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    return importlib.import_module("check_gpu")


def test_every_step_exists(check):
    assert [name for name, _ in PROBES] == list(check.STEPS)
    assert SANITIZERS == ["memcheck", "racecheck"]
    assert len(TESTS) == 2
    for _, _, least, paths in TESTS:
        assert int(least) > 0
        assert all((ROOT / "tests" in (ROOT / path).parents and (ROOT / path).exists()) for path in paths.split())
    for path in re.findall(r"accel/\w+\.\w+", SCRIPT):
        assert (ROOT / path).exists(), path


def test_all_limits_together_are_eight_minutes_at_most():
    smi, sanitizer = map(int, LIMITS_OF_OTHERS)
    own = [int(found[1]) for found in (*PROBES, *TESTS)]
    assert smi + len(SANITIZERS) * sanitizer + sum(own) <= LIMIT_SECONDS


@pytest.mark.skipif(compiler() is None, reason="no C++ compiler is installed")
def test_the_probes_measure_on_what_stands_for_a_gpu(check, tmp_path):
    assert check.main("host", "machine", "examples") == 0
    lines = [json.loads(line) for line in (tmp_path / "probe.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["name"] for line in lines] == ["machine", *(f"example {name}" for name in check.CALLS)]
    assert all(line["worst"] < 1e-5 for line in lines[1:])
    assert lines[0]["numpy"] == np.__version__


@pytest.mark.skipif(compiler() is None, reason="no C++ compiler is installed")
def test_a_wrong_result_and_an_error_are_failures(check, monkeypatch, tmp_path):
    def fail(*arguments):
        raise RuntimeError("launch failed")

    wrong = check.CALLS["rms_scale"]
    monkeypatch.setattr(check, "CALLS", {"rms_scale": wrong})
    for broken in (lambda self, *arguments: Ops.rms_scale(*arguments) * np.float32(1.01), fail):
        monkeypatch.setattr(check.Caller, "rms_scale", broken, raising=False)
        assert check.main("host", "examples") == 1
    lines = [json.loads(line) for line in (tmp_path / "probe.jsonl").read_text(encoding="utf-8").splitlines()]
    assert lines[0]["worst"] > 1e-3
    assert lines[1]["error"] == "RuntimeError: launch failed"


class Recorder:
    """Takes every operation with arguments that the reference would take, and computes nothing."""

    def __init__(self):
        self.called = set()

    def __getattr__(self, name):
        signature = inspect.signature(getattr(Ops, name))

        def operation(*arguments):
            signature.bind(*([self] if "self" in signature.parameters else []), *arguments)
            self.called.add(name)

        return operation


def test_every_time_is_measured(check, monkeypatch):
    """With CuPy's arrays never filled, and its events in milliseconds."""
    event = types.SimpleNamespace(record=lambda: None, synchronize=lambda: None)
    cuda = types.SimpleNamespace(Event=lambda: event, Device=lambda: event, get_elapsed_time=lambda start, end: 2.0)
    cupy = types.ModuleType("cupy")
    cupy.cuda, cupy.RawKernel, cupy.copyto = cuda, lambda text, name: lambda *launch: None, lambda *arrays: None
    cupy.asarray, cupy.zeros = np.asarray, lambda shape, dtype: None
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    timing = importlib.import_module("check_gpu_timing")
    monkeypatch.setattr(timing.Inputs, "numbers", lambda self, *shape: np.empty(shape, np.float32))
    monkeypatch.setattr(timing.Inputs, "bytes", lambda self, low, high, *shape: np.empty(shape, np.uint8))
    ops = Recorder()
    found = {name: measure() for name, measure in timing.timings(ops)}
    assert found["copy of 512 MiB"]["device_us"] == 200
    assert found["copy of 512 MiB"]["GB_per_s"] == round(2**30 / 200e-6 / 1e9, 1)
    assert all(one["device_us"] in (50, 100, 200) for one in found.values())
    measured = {"linear", "experts", "sparse_attention", "index_top_k", "rms_norm"}
    assert ops.called == {*measured, "fake_quant_fp4", "pack_rows"}
