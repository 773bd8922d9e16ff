"""Recipes of post-training as JSON, read and written. `dsv4.learn.post.recipe` says what may be in them."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from dsv4.checkpoint import config_as_json, config_from_json, read_config
from dsv4.checkpoint.input_files import read_json
from dsv4.errors import SettingError, quoted
from dsv4.learn.post.efforts import Effort
from dsv4.learn.post.recipe import KINDS, PostRecipe, Stage, Teacher
from dsv4.learn.sections import section


def read_post_recipe(path: str | Path, seed: int | None = None) -> PostRecipe:
    """Read a recipe from a JSON file. "model" is an object as in config.json, or its path from the recipe's place.

    seed: of every stage, in place of those in the file. Raises SettingError, which names file and key, for what is
    wrong in it, and ConfigError for what is wrong in the model's configuration.
    """
    path = Path(path)
    source = str(path)
    values = section(read_json(path, SettingError, "a recipe"), PostRecipe, source, "")
    if not isinstance(values["stages"], list):
        raise SettingError(f"{source}: stages: expected a list, found {quoted(values['stages'])}")
    stages = tuple(
        stage_from_json(one, f"{source}: stages[{place}]", seed) for place, one in enumerate(values["stages"])
    )
    model = values.get("model")
    if isinstance(model, str):
        model = read_config(path.parent / model)
    elif model is not None:
        model = config_from_json(model, source=f"{source}: model")
    return PostRecipe(stages, model, source)


def stage_from_json(raw: Any, source: str, seed: int | None = None) -> Stage:
    """A stage from its JSON object; `stage_as_json` is the way back. Raises SettingError that names the key."""
    if not isinstance(raw, dict) or raw.get("kind") not in KINDS:
        found = quoted(raw.get("kind") if isinstance(raw, dict) else raw)
        raise SettingError(f"{source}: kind: expected one of {', '.join(KINDS)}, found {found}")
    kind = KINDS[raw["kind"]]
    values = section({key: value for key, value in raw.items() if key != "kind"}, kind, source, "")
    if seed is not None:
        values["seed"] = seed
    values["worlds"] = _tuple(values["worlds"], f"{source}: worlds")
    if "efforts" in values:
        values["efforts"] = _efforts(values["efforts"], f"{source}: efforts")
    if "teachers" in values:
        teachers = enumerate(_tuple(values["teachers"], f"{source}: teachers"))
        values["teachers"] = tuple(_teacher(one, source, f"teachers[{place}].") for place, one in teachers)
    return kind(**values)


def stage_as_json(stage: Stage) -> dict[str, Any]:
    """A stage as a JSON object with every key."""
    return {"kind": stage.kind, **{entry.name: _plain(getattr(stage, entry.name)) for entry in fields(stage)}}


def recipe_as_json(recipe: PostRecipe) -> dict[str, Any]:
    """A recipe as a JSON object with every key."""
    model = None if recipe.model is None else config_as_json(recipe.model)
    return {"stages": [stage_as_json(stage) for stage in recipe.stages], "model": model}


def _teacher(raw: Any, source: str, before: str) -> Teacher:
    values = section(raw, Teacher, source, before)
    values["worlds"] = _tuple(values["worlds"], f"{source}: {before}worlds")
    values["efforts"] = _efforts(values.get("efforts", []), f"{source}: {before}efforts")
    return Teacher(**values)


def _efforts(raw: Any, source: str) -> tuple[Effort, ...]:
    return tuple(_effort(one, f"{source}[{place}]") for place, one in enumerate(_tuple(raw, source)))


def _effort(raw: Any, source: str) -> Effort:
    """The default of a mode's name, or an object."""
    if isinstance(raw, str):
        return Effort.named(raw)
    values = section(raw, Effort, source, "")
    values["worlds"] = _tuple(values.get("worlds", []), f"{source}.worlds")
    return Effort(**values)


def _tuple(raw: Any, source: str) -> tuple[Any, ...]:
    if not isinstance(raw, list):
        raise SettingError(f"{source}: expected a list, found {quoted(raw)}")
    return tuple(raw)


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    match value:
        case Effort() | Teacher():
            return {entry.name: _plain(getattr(value, entry.name)) for entry in fields(value)}
        case tuple():
            return [_plain(one) for one in value]
    return value
