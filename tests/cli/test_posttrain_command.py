"""`dsv4 posttrain`: a run by a recipe, its picture, and what a model scores."""

import json
from dataclasses import replace
from importlib.util import find_spec

import pytest

from command import is_one_line, runner
from dsv4.backends import VARIABLE
from dsv4.learn.post.recipe import PostRecipe
from dsv4.learn.post.recipe_json import recipe_as_json
from learn.post.stages import FINE, MODEL


@pytest.fixture
def dsv4(monkeypatch, capfd):
    monkeypatch.setenv(VARIABLE, "numpy")
    return runner(monkeypatch, capfd)


@pytest.fixture
def recipe(tmp_path):
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps(recipe_as_json(PostRecipe((replace(FINE, steps=1, batch=2),), MODEL))))
    return file


def test_a_run_its_scores_and_its_picture(dsv4, recipe, tmp_path):
    out = tmp_path / "run"
    status, printed, err = dsv4("posttrain", recipe, "--out", out, "--seed", 5)
    assert (status, printed) == (0, f"{out / 'tuned' / 'model'}\n")
    assert "tuned (sft): loss " in err and "step 1 of 1" in err
    assert json.loads((out / "tuned" / "recipe.json").read_text())["seed"] == 5
    status, printed, _ = dsv4("posttrain", "score", out / "tuned" / "model", "--world", "rules", "--tasks", 2, "--json")
    assert status == 0
    assert json.loads(printed).keys() == {"world", "mode", "seed", "temperature", "score", "tokens", "ended"}
    short = ("--world", "rules", "--tasks", 2, "--window", 1)
    status, printed, _ = dsv4("posttrain", "score", out / "tuned" / "model", *short)
    assert status == 0 and printed.startswith("rules ") and " 1.0 tokens" in printed
    status, printed, err = dsv4("posttrain", "score", out / "tuned" / "model", "--world", "rules", "--temperature", -1)
    assert (status, printed) == (2, "") and "temperature: expected " in err  # it comes to where tokens are drawn
    status, printed, err = dsv4("posttrain", recipe, "--out", out, "--seed", 5, "--resume")
    assert status == 0 and "step" not in err  # all steps are done
    if find_spec("matplotlib"):
        status, printed, _ = dsv4("posttrain", "plot", out / "tuned")
        assert (status, printed) == (0, f"{out / 'tuned' / 'plot.png'}\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no.json", "--out", "x"], "no.json: expected a recipe"),
        (["RECIPE"], "--out: expected one path, found none"),
        (["RECIPE", "other", "--out", "x"], "recipe: expected one path, found"),
        (["plot"], "posttrain plot: expected the directory of one stage, found []"),
        (["score"], "posttrain score: expected the directory of one model, found []"),
        (["score", "x", "--window", "0"], "effort non-think: window: expected an integer from 1"),
        (["RECIPE", "--out", "x", "--resume"], "x: expected a run to resume, found none"),
    ],
)
def test_mistakes_are_one_line(arguments, words, dsv4, recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = dsv4("posttrain", *(str(recipe) if one == "RECIPE" else one for one in arguments))
    assert (status, out) == (2, "") and is_one_line(err) and words in err
