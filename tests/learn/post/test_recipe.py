"""Recipes of post-training: there and back, and every mistake named by its key."""

import json
from pathlib import Path

import pytest

from dsv4.checkpoint import config_as_json
from dsv4.errors import SettingError
from dsv4.learn import post
from dsv4.learn.post.efforts import Effort
from dsv4.learn.post.questions import questions
from dsv4.learn.post.recipe_json import read_post_recipe, recipe_as_json, stage_as_json, stage_from_json
from dsv4.parameters import parameters
from learn.post.stages import FINE, IMITATING, MODEL, RECIPE, REWARDED, TAUGHT


@pytest.mark.parametrize("stage", [FINE, REWARDED, TAUGHT, IMITATING], ids=lambda stage: stage.kind)
def test_there_and_back(stage):
    assert stage_from_json(json.loads(json.dumps(stage_as_json(stage))), "here") == stage


def test_a_file(tmp_path):
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps(recipe_as_json(RECIPE)))
    assert read_post_recipe(file).stages == RECIPE.stages
    assert [stage.seed for stage in read_post_recipe(file, seed=7).stages] == [7, 7, 7]
    (tmp_path / "config.json").write_text(json.dumps(config_as_json(MODEL)))
    file.write_text(json.dumps(recipe_as_json(RECIPE) | {"model": "config.json"}))
    assert read_post_recipe(file).model == MODEL


def test_an_effort_may_be_a_word():
    raw = stage_as_json(FINE) | {"efforts": ["max", {"mode": "high", "window": 9, "penalty": 0}]}
    assert stage_from_json(raw, "here").efforts == (Effort.named("max"), Effort("high", 9, 0))


def changed(stage, **changes):
    return lambda: stage_from_json(stage_as_json(stage) | changes, "here")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (changed(FINE, kind="rl"), r"^here: kind: expected one of sft, grpo, opd, imitation, found 'rl'$"),
        (changed(FINE, name="a/b"), r"^stage: name: expected letters and digits, found 'a/b'$"),
        (changed(FINE, worlds=["chess"]), r"^stage tuned: worlds: expected some of sums, .*, found \('chess',\)$"),
        (changed(FINE, worlds="sums"), r"^here: worlds: expected a list, found 'sums'$"),
        (changed(FINE, worlds=[]), r"^stage tuned: worlds: expected some of sums, .*, found \(\)$"),
        (changed(FINE, steps=0), r"^stage tuned: steps: expected an integer from 1 to \d+, found 0$"),
        (changed(FINE, batch="many"), r"^stage tuned: batch: expected an integer from 1 to \d+, found 'many'$"),
        (changed(FINE, group=3), r"^here: expected the keys name, .*, found 'group'$"),
        (changed(FINE, efforts=[]), r"^stage tuned: efforts: expected at least one Effort, found \(\)$"),
        (changed(FINE, warmup_steps=2, decay_steps=2),
         r"^stage tuned: warmup_steps, decay_steps: expected 3 together or less, found 2 and 2$"),
        (changed(FINE, final_learning_rate=0.1),
         r"^stage tuned: final_learning_rate: expected at most the learning rate, 0\.003, found 0\.1$"),
        (changed(FINE, efforts=[{"mode": "high", "window": 9, "penalty": 0, "worlds": ["chess"]}]),
         r"^stage tuned: efforts: worlds: expected some of sums, .*, found \('chess',\)$"),
        (changed(FINE, efforts=[{"mode": "high", "window": 9, "penalty": 0, "worlds": ["sums"]}]),
         r"^stage tuned: efforts: expected one for strings, found none$"),
        (changed(REWARDED, group=0), r"^stage rewarded: group: expected an integer from 1 to \d+, found 0$"),
        (changed(REWARDED, group=1), r"^stage rewarded: group: expected an integer of at least 2, found 1$"),
        (changed(REWARDED, updates=4), r"^stage rewarded: updates: .* that divides the 6 answers, found 4$"),
        (changed(REWARDED, top_p=0), r"^stage rewarded: top_p: expected a positive number, found 0$"),
        (changed(REWARDED, top_p=1.5), r"^stage rewarded: top_p: expected a number above 0 and at most 1, found 1\.5$"),
        (changed(REWARDED, temperature=0), r"^stage rewarded: temperature: expected a positive number, found 0$"),
        (changed(TAUGHT, front="both"), r"^stage student: front: expected student or teacher, found 'both'$"),
        (changed(TAUGHT, teachers=[]), r"^stage student: teachers: expected one for sums, found none$"),
        (changed(TAUGHT, teachers=[{"start": "a", "worlds": ["sums", "strings"]}, {"start": "b", "worlds": ["sums"]}]),
         r"^stage student: teachers: expected one for sums, found a, b$"),
    ],
)  # fmt: skip
def test_mistakes(make, message):
    with pytest.raises(SettingError, match=message):
        make()


def test_the_recipe_that_comes_with_the_worlds(tokenizer):
    """Its model is small, reads the worlds' tokens, and good answers fit in the windows."""
    recipe = read_post_recipe(Path(post.__file__).with_name("recipe.json"))
    assert sum(parameter.size for parameter in parameters(recipe.model).values()) < 1_000_000
    assert tokenizer.vocab_size <= recipe.model.vocab_size
    for stage in recipe.stages:
        for one in questions(stage, 0, 60):
            prompt, whole = (
                len(tokenizer.encode_pieces(part))
                for part in (one.task.prompt(one.effort.mode), one.task.conversation(one.effort.mode))
            )
            assert prompt + one.effort.window <= recipe.model.max_position_embeddings
            assert stage.kind == "sft" or whole - prompt <= one.effort.window


def test_a_new_model_needs_a_configuration(tmp_path):
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps(recipe_as_json(RECIPE) | {"model": None}))
    with pytest.raises(
        SettingError, match=r"recipe\.json: model: expected the configuration of a new model, found none$"
    ):
        read_post_recipe(file)
    file.write_text(json.dumps({"stages": []}))
    with pytest.raises(SettingError, match=r"recipe\.json: stages: expected at least one, with names of their own"):
        read_post_recipe(file)


def test_worlds_and_efforts_come_in_turn():
    stage = stage_from_json(stage_as_json(REWARDED) | {"worlds": ["sums", "rules"], "efforts": ["high", "max"]}, "here")
    found = questions(stage, 0, 8)
    assert [(one.world.name, one.effort.mode) for one in found] == [
        *(("sums", "high"), ("rules", "high"), ("sums", "max"), ("rules", "max")),
        *(("sums", "high"), ("rules", "high"), ("sums", "max"), ("rules", "max")),
    ]
    assert found[3:5] == questions(stage, 3, 2)
    assert found[0].task != found[2].task


def test_a_world_that_is_named_twice_is_asked_twice_as_often_and_never_the_same():
    raw = stage_as_json(REWARDED) | {"worlds": ["sums", "rules", "sums"], "efforts": ["high", "max"]}
    stage = stage_from_json(raw, "here")
    found = questions(stage, 0, 12)
    assert [one.world.name for one in found] == ["sums", "rules", "sums"] * 4
    sums, rules = ([one for one in found if one.world.name == name] for name in ("sums", "rules"))
    assert [one.task for one in sums] == [sums[0].world.task("train", number) for number in range(8)]
    assert [one.task for one in rules] == [rules[0].world.task("train", number) for number in range(4)]
    assert [one.effort.mode for one in sums] == ["high", "max"] * 4
    assert found[4:7] == questions(stage, 4, 3)


def test_a_world_may_have_modes_of_its_own():
    """Those that name it; the others have those that name no world."""
    own = {"mode": "high", "window": 9, "penalty": 0, "worlds": ["sums"]}
    raw = stage_as_json(REWARDED) | {"worlds": ["sums", "rules"], "efforts": ["non-think", own, "max"]}
    stage = stage_from_json(json.loads(json.dumps(raw)), "here")
    assert stage_from_json(stage_as_json(stage), "here") == stage
    high = Effort("high", 9, 0, ("sums",))
    assert [(one.world.name, one.effort) for one in questions(stage, 0, 4)] == [
        *(("sums", high), ("rules", Effort.named("non-think")), ("sums", high), ("rules", Effort.named("max"))),
    ]


def test_a_teacher_is_asked_in_its_own_modes():
    """Here the first one has two of its own, and the second one has those of the stage."""
    raw = stage_as_json(TAUGHT)
    raw["teachers"][0]["efforts"] = ["high", {"mode": "max", "window": 9, "penalty": 0}]
    stage = stage_from_json(json.loads(json.dumps(raw)), "here")
    assert stage_from_json(stage_as_json(stage), "here") == stage
    high, highest, short = Effort.named("high"), Effort("max", 9, 0), TAUGHT.efforts[0]
    assert [(one.world.name, one.effort) for one in questions(stage, 0, 4)] == [
        *(("sums", high), ("strings", short), ("sums", highest), ("strings", short)),
    ]
