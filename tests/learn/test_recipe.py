"""Recipes in and out of JSON, and every way in which one can be wrong."""

import json
from dataclasses import fields, replace
from types import MappingProxyType

import numpy as np
import pytest

import tiny
from dsv4.checkpoint import config_as_json
from dsv4.errors import ConfigError, SettingError
from dsv4.learn.anticipatory import SpikeRule
from dsv4.learn.recipe import Recipe, Stage, read_recipe, recipe_as_json, recipe_from_json
from tiny_checkpoint import tiny_config

CONFIG = tiny_config()
STAGE = {"kind": "dense", "steps": 10, "length": 64, "batch": 4}
SPIKES = {"window": 20, "deviations": 4, "rollback": 5, "period": 30, "delay": 3}
SETTINGS = {
    "model": config_as_json(CONFIG),
    "stages": [STAGE, STAGE | {"kind": "sparse", "length": 128}],
    "learning_rate": 6e-3,
    "final_learning_rate": 6e-4,
    "warmup_steps": 0,
    "checkpoint_interval": 5,
}


def test_a_recipe_is_read():
    recipe = recipe_from_json(SETTINGS | {"spikes": SPIKES, "seed": 3})
    assert recipe.model == CONFIG
    assert recipe.stages == (Stage("dense", 10, 64, 4), Stage("sparse", 10, 128, 4))
    assert recipe.spikes == SpikeRule(20, 4.0, 5, 30, 3)
    assert (recipe.learning_rate, recipe.seed, recipe.steps) == (6e-3, 3, 20)


def test_defaults_are_those_of_the_reports():
    recipe = recipe_from_json(SETTINGS)
    assert (recipe.clip_norm, recipe.mtp_weight, recipe.final_mtp_weight) == (1.0, 0.3, 0.1)
    assert (recipe.balance_weight, recipe.bias_speed, recipe.indexer_learning_rate) == (1e-4, 1e-3, 1e-3)
    assert recipe.spikes is None


@pytest.mark.parametrize("spikes", [None, SPIKES])
def test_what_is_written_is_read_back(tmp_path, spikes):
    recipe = recipe_from_json(SETTINGS | {"spikes": spikes, "quantise": False})
    (tmp_path / "recipe.json").write_text(json.dumps(recipe_as_json(recipe)))
    again = read_recipe(tmp_path / "recipe.json")
    assert again == recipe
    assert recipe_as_json(again) == recipe_as_json(recipe)


def test_the_model_may_be_a_file_beside_the_recipe(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text(json.dumps(SETTINGS["model"]))
    for path in ("model", "model/config.json", str(tmp_path / "model")):
        (tmp_path / "recipe.json").write_text(json.dumps(SETTINGS | {"model": path}))
        assert read_recipe(tmp_path / "recipe.json").model == CONFIG


BAD = [
    ({"learning_rat": 1}, "expected the keys model, stages, .*, found 'learning_rat'"),
    ({"source": "x"}, "expected the keys model, stages, .*, found 'source'"),
    ({"x" * 10**6: 1}, "expected the keys model, stages"),
    ({"stages": []}, "stages: expected a tuple of at least one Stage, found"),
    ({"stages": STAGE}, "stages: expected a list, found"),
    ({"stages": [STAGE, 3]}, r"stages\[1\]: expected a JSON object, found 3"),
    ({"stages": [STAGE | {"step": 1}]}, r"stages\[0\]: expected the keys kind, .*, shares, found 'step'"),
    ({"stages": [{"kind": "dense"}]}, r"stages\[0\].steps: expected a value, found no such key"),
    ({"stages": [STAGE | {"kind": "dens"}]}, r"stages\[0\].kind: expected one of dense, .*, found 'dens'"),
    ({"stages": [STAGE | {"kind": ["dense"]}]}, r"stages\[0\].kind: expected one of dense"),
    ({"stages": [STAGE | {"steps": 0}]}, r"stages\[0\].steps: expected an integer from 1 to .*, found 0"),
    ({"stages": [STAGE | {"steps": 10**7 + 1}]}, r"stages\[0\].steps: expected an integer from 1 to 10000000, found"),
    ({"stages": [STAGE | {"batch": 1.5}]}, r"stages\[0\].batch: expected an integer from 1 to .*, found 1.5"),
    ({"stages": [STAGE | {"length": 1}]}, r"stages\[0\].length: expected an integer from 2 to 512, found 1"),
    ({"stages": [STAGE | {"length": 513}]}, r"stages\[0\].length: expected an integer from 2 to 512, found 513"),
    (
        {"stages": [STAGE | {"kind": "decay"}, STAGE]},
        "stages: expected kinds in the order dense, indexer, sparse, decay",
    ),
    ({"learning_rate": 0}, "learning_rate: expected a positive number, found 0"),
    ({"learning_rate": "6e-3"}, "learning_rate: expected a finite number, found '6e-3'"),
    ({"learning_rate": 10**400}, "learning_rate: expected a finite number, found"),
    ({"learning_rate": 1e300}, "learning_rate: expected a positive number, found 1e[+]300"),
    ({"final_learning_rate": 1e-2}, "final_learning_rate: expected at most learning_rate, found 0.01"),
    ({"warmup_steps": -1}, "warmup_steps: expected an integer from 0 to .*, found -1"),
    ({"checkpoint_interval": 0}, "checkpoint_interval: expected an integer from 1 to .*, found 0"),
    ({"checkpoint_interval": True}, "checkpoint_interval: expected an integer from 1 to .*, found True"),
    ({"clip_norm": 0}, "clip_norm: expected a positive number, found 0"),
    ({"mtp_weight": -0.1}, "mtp_weight: expected a number from 0, found -0.1"),
    ({"quantise": 1}, "quantise: expected True or False, found 1"),
    ({"seed": 2**50}, "seed: expected an integer from 0 to .*, found"),
    ({"spikes": 3}, "spikes: expected a JSON object, found 3"),
    ({"spikes": SPIKES | {"rollback": 0}}, "spikes.rollback: expected an integer from 1 to .*, found 0"),
    ({"spikes": {"window": 3}}, "spikes.deviations: expected a value, found no such key"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=[str(change)[:40] for change, _ in BAD])
def test_what_is_wrong_is_said_in_one_line(change, message):
    with pytest.raises(SettingError, match=f"^runs/a.json: {message}") as caught:
        recipe_from_json(SETTINGS | change, source="runs/a.json")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize("key", SETTINGS)
def test_what_has_no_default_must_be_there(key):
    with pytest.raises(SettingError, match=f"recipe: {key}: expected a value, found no such key"):
        recipe_from_json({name: value for name, value in SETTINGS.items() if name != key})


def test_a_wrong_model_is_named_within_the_recipe():
    with pytest.raises(ConfigError, match=r"^recipe: model: hidden_size: expected an integer of at least 1, found 0"):
        recipe_from_json(SETTINGS | {"model": SETTINGS["model"] | {"hidden_size": 0}})
    with pytest.raises(ConfigError, match=r"^recipe: model: expected a JSON object, found int"):
        recipe_from_json(SETTINGS | {"model": 3})
    with pytest.raises(ConfigError, match=r"nowhere[\\/]config.json|nowhere: expected"):
        recipe_from_json(SETTINGS | {"model": "nowhere"})


@pytest.mark.parametrize("content", ["", "{", "[]", "3", None])
def test_a_file_that_holds_no_recipe(tmp_path, content):
    path = tmp_path / "recipe.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SettingError, match=r"recipe.json: (recipe: )?expected a (recipe|JSON object), found"):
        read_recipe(path)


NUMBERS = [entry.name for entry in fields(Recipe) if entry.type in (int, float)]


@pytest.mark.parametrize("key", NUMBERS)
@pytest.mark.parametrize("value", [None, "1", -1, float("nan"), 1e300, [1], True])
def test_every_number_is_checked(key, value):
    with pytest.raises(SettingError, match=f"recipe: {key}: expected"):
        recipe_from_json(SETTINGS | {key: value})


def test_a_recipe_that_is_made_or_changed_is_checked_too():
    recipe = recipe_from_json(SETTINGS)
    for change in ({"stages": [Stage("dense", 1, 2, 3)]}, {"stages": (STAGE,)}, {"model": 3}, {"spikes": SPIKES}):
        with pytest.raises(SettingError, match=f"{next(iter(change))}: expected"):
            replace(recipe, **change)


def test_values_of_other_types_are_written_as_json_has_them():
    stage = Stage("dense", np.int64(10), 64, 4, shares=MappingProxyType({"a.txt": np.float32(2)}))
    recipe = replace(recipe_from_json(SETTINGS), stages=(stage,), learning_rate=np.float64(0.5), quantise=np.True_)
    written = json.loads(json.dumps(recipe_as_json(recipe)))
    assert recipe_as_json(recipe_from_json(written)) == written
    assert written["stages"] == [STAGE | {"shares": {"a.txt": 2.0}}]
    assert (written["learning_rate"], written["quantise"]) == (0.5, True)


def test_a_drafter_that_nothing_trains_is_refused():
    with pytest.raises(SettingError, match=r"^recipe: model: dspark_block_size: expected none .*, found 5$"):
        replace(recipe_from_json(SETTINGS), model=tiny.config(**tiny.DSPARK))


def test_a_decay_needs_widths_that_can_be_stored():
    """FP4 has a scale for each 32 columns. That is said before training starts, and not where the decay does."""
    narrow, decay = replace(CONFIG, moe_intermediate_size=48), (Stage("decay", 1, 64, 4),)
    recipe = recipe_from_json(SETTINGS)
    with pytest.raises(
        SettingError, match=r"^recipe: model: expected experts of widths .* found layers.0.ffn.experts.*48$"
    ):
        replace(recipe, model=narrow, stages=decay)
    for changes in (
        {"model": narrow},
        {"model": narrow, "stages": decay, "quantise": False},
        {"model": replace(narrow, expert_dtype="fp8"), "stages": decay},
        {"model": replace(narrow, moe_intermediate_size=64), "stages": decay},
    ):
        replace(recipe, **changes)
