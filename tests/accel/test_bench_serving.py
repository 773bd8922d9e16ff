"""The bench's rows about serving: their contestants do the same work, and a second turn reads only what is new."""

import json

import pytest

from dsv4 import DSV4Error
from dsv4.loading import bundled_model
from dsv4.ops import Ops
from dsv4.serve.engine import Engine
from dsv4.serve.job import Job
from dsv4.text.tokenizer import Tokenizer
from dsv4_accel.bench import run as run_module
from dsv4_accel.bench import serving
from dsv4_accel.bench.case import Case, Contest
from dsv4_accel.bench.layer import LargeLayer
from dsv4_accel.bench.models import bundled
from dsv4_accel.bench.peers import Peers
from dsv4_accel.bench.roof import Roof
from dsv4_accel.bench.stage import NUMPY, Stage
from dsv4_accel.bench.timing import QUICK, Contestant


@pytest.fixture
def stage():
    scene = Stage(Ops(), QUICK, Roof(2**20, 1), 1, 1, Peers(wanted=False), LargeLayer())
    with scene.resources:
        yield scene


@pytest.fixture
def engines(monkeypatch):
    """The engines that a row makes."""
    made, make = [], serving._engine
    monkeypatch.setattr(serving, "_engine", lambda *arguments: made.append(make(*arguments)) or made[-1])
    return made


def test_together_and_in_turn_make_the_same_number_of_tokens(stage, engines, monkeypatch):
    monkeypatch.setattr(serving, "TOKENS", 2)
    contest = serving._together(stage)
    [engine] = engines
    for name in (serving.TOGETHER, serving.IN_TURN):
        before = engine.figures()
        contest.contestants[name].run()
        after = engine.figures()
        assert after.tokens - before.tokens == 2 * serving.ANSWERS
        assert after.prompt_tokens - before.prompt_tokens == serving.PROMPT * serving.ANSWERS


def test_a_second_turn_reads_only_what_is_new(stage, engines, monkeypatch):
    monkeypatch.setattr(serving, "KNOWN", 520)
    contest = serving._second_turn(stage)
    knowing, forgetful = engines
    for _ in range(2):  # the second time, nothing more is known
        before = knowing.figures().prompt_tokens
        contest.contestants[serving.SECOND].run()
        assert knowing.figures().prompt_tokens - before == 520 + serving.NEW - 512  # NumPy's passes end at 512
    for times in (1, 2):
        contest.contestants[serving.FIRST].run()
        assert forgetful.figures().prompt_tokens == times * 520


@pytest.mark.parametrize("streams", [False, True])
def test_the_answer_over_http_is_that_of_generate(stage, monkeypatch, streams):
    for package in serving.SERVER:
        pytest.importorskip(package, reason="the extra `serve` is not installed")
    monkeypatch.setattr(serving, "SENT", 5)
    contestants = serving._over_http(stage, streams).contestants
    body = contestants[serving.OVER_HTTP].run().decode()
    chunks = [line[6:] for line in body.split("\n") if line.startswith("data: {")] if streams else [body]
    text = "".join(json.loads(chunk)["choices"][0]["text"] for chunk in chunks)
    tokenizer = Tokenizer.from_file(bundled_model())
    assert text == tokenizer.decode(contestants[serving.GENERATE].run(), skip_special=True)


def test_a_job_that_fails_is_no_measurement():
    class Failing:
        def allowed(self):
            raise ValueError("no rule")

        def accept(self, token):
            pass

    engine = Engine(bundled(Ops(), rounds=False))
    try:
        with pytest.raises(DSV4Error, match="no rule"):
            serving.finish(engine, [Job((1, 2), 2, constraint=Failing())])
    finally:
        engine.stop(finish=False)


def test_a_row_without_its_packages_is_left_out_and_says_so(monkeypatch):
    def prepare(scene: Stage) -> Contest:
        return Contest({NUMPY: Contestant(lambda: None)}, None)

    cases = [Case("there", "", "", prepare, needs=("json",)), Case("not", "", "", prepare, needs=("json", "nosuch"))]
    monkeypatch.setattr(run_module, "all_cases", lambda: cases)
    report = run_module.run("numpy", quick=True)
    assert [row.name for row in report.rows] == ["there"]
    assert report.left_out == {"not": "needs nosuch, which is not installed"}
