"""`dsv4 diloco` as a user meets it: tables, JSON, and one line for what is wrong."""

import json

import pytest

from command import is_one_line, runner
from dsv4.learn.recipe import recipe_as_json
from learn.runs import short, write_texts


@pytest.fixture
def dsv4(monkeypatch, capfd):
    return runner(monkeypatch, capfd)


class TestGoodput:
    def test_json(self, dsv4):
        status, out, _ = dsv4("diloco", "goodput", "--days", "0.2", "--chips", 1200000, "--learners", 8, "--json")
        rows = json.loads(out)["rows"]
        assert status == 0
        assert [(row["chips"], row["learners"], row["elastic"]) for row in rows] == [
            (1200000, 1, False),
            (1200000, 8, True),
        ]
        assert all(0 < row["goodput"] < 1 for row in rows)
        assert [row["published"] for row in rows] == [0.27, 0.88]

    def test_the_table_says_what_is_published_and_what_is_fitted(self, dsv4):
        status, out, _ = dsv4("diloco", "goodput", "--days", "0.2")
        assert status == 0
        assert "fitted to the published points and not published themselves" in out
        assert len([line for line in out.splitlines() if "%" in line]) == 10

    @pytest.mark.parametrize(
        "arguments",
        [("--days", "0"), ("--chips", "10"), ("--learners", "0"), ("--mtbi", "0"), ("--mtbi", "nan"), ("--seed", "-1")],
    )
    def test_what_cannot_be_is_one_line(self, dsv4, arguments):
        status, out, err = dsv4("diloco", "goodput", *arguments)
        assert (status, out) == (2, "") and is_one_line(err)


class TestBandwidth:
    def test_json(self, dsv4):
        status, out, _ = dsv4("diloco", "bandwidth", "--json", "--sites", 8)
        found = json.loads(out)
        assert status == 0 and len(found["rows"]) == 20
        assert all(abs(row["steps"]) <= 1 for row in found["rows"])
        [pair] = found["pairs"]
        assert pair["ratio"] == pytest.approx(pair["data_parallel"] / pair["decoupled"])
        assert found["blog_ratio"] == pytest.approx(235.7, abs=0.1)

    @pytest.mark.parametrize(
        "arguments", [("--sites", "1"), ("--target", "1"), ("--step", "0"), ("--parameters", "-1")]
    )
    def test_what_cannot_be_is_one_line(self, dsv4, arguments):
        status, out, err = dsv4("diloco", "bandwidth", *arguments)
        assert (status, out) == (2, "") and is_one_line(err)


class TestTrain:
    @pytest.fixture
    def given(self, tmp_path):
        recipe = tmp_path / "recipe.json"
        recipe.write_text(json.dumps(recipe_as_json(short(2))), encoding="utf-8")
        return [recipe, *write_texts(tmp_path), "--out", tmp_path / "run", "--fragments", 2, "--inner-steps", 2]

    def test_a_run(self, dsv4, given, tmp_path):
        status, out, err = dsv4("diloco", "train", *given, "--kill", "1@1+1", "--json")
        found = json.loads(out)
        assert status == 0 and found["merges"] == 2
        assert [row["learner"] for row in found["learners"]] == [0, 1]
        assert found["bytes_up"] > 0 and found["bytes_down"] > 0
        assert (tmp_path / "run/model/config.json").exists()
        assert "learner 0: " in err and "tokens, ages " in err

    def test_the_outer_step_is_as_asked_for(self, dsv4, given, tmp_path):
        assert dsv4("diloco", "train", *given, "--outer-learning-rate", "0.3", "--outer-momentum", "0.25")[0] == 0
        made = json.loads((tmp_path / "run/diloco/run.json").read_text())["settings"]
        assert (made["outer_learning_rate"], made["outer_momentum"]) == (0.3, 0.25)

    def test_a_warm_start(self, dsv4, given, tmp_path):
        status, out, _ = dsv4("diloco", "train", *given, "--warm-start", 1, "--json")
        assert status == 0 and [row["steps"] for row in json.loads(out)["learners"]] == [1, 1]
        assert len((tmp_path / "run/log.jsonl").read_text().splitlines()) == 1

    @pytest.mark.parametrize(
        "arguments",
        [
            ("--kill", "1"),
            ("--kill", "7@1"),
            ("--slow", "1"),
            ("--lose", "1"),
            ("--inner-steps", "3"),
            ("--learners", "0"),
            ("--quorum", "3"),
            ("--outer-learning-rate", "-1"),
            ("--outer-momentum", "2"),
            ("--warm-start", "2"),
            ("--resume",),
        ],
    )
    def test_what_cannot_be_is_one_line_and_leaves_nothing(self, dsv4, given, tmp_path, arguments):
        status, out, err = dsv4("diloco", "train", *given, *arguments)
        assert (status, out) == (2, "") and is_one_line(err)
        assert not (tmp_path / "run").exists()
