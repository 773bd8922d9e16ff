"""The recipe of a training run: one small file that says everything but the text (report §4.2, with V3's §4.2).

`dsv4.learn.schedule` says what holds at a step of it. What no run needs to change, such as the constants of the
optimisers, stands beside its equation and not here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from dsv4.arguments import flag, integer, number
from dsv4.checkpoint import config_as_json, config_from_json, read_config
from dsv4.checkpoint.input_files import read_json
from dsv4.config import Config
from dsv4.errors import SettingError, quoted
from dsv4.learn.anticipatory import SpikeRule
from dsv4.learn.sections import LARGEST, check_numbers, section
from dsv4.ops.quantise import FP4_BLOCK
from dsv4.parameters import parameters

Kind = Literal["dense", "indexer", "sparse", "decay"]
"""What a stage trains, in the order of the stages: all but the indexer, with attention to all visible entries; the
indexer alone, likewise; everything, with the indexer's choice; the same with a falling learning rate, as it will be
stored."""

MOST_STEPS = 10**7
"""Of a stage: the rows before each step are counted when a run starts."""

MAY_BE_ZERO = ("warmup_steps", "ramp_steps", "seed", "mtp_weight", "final_mtp_weight", "balance_weight", "bias_speed")
"""All other numbers must be positive."""


@dataclass(frozen=True)
class Stage:
    """A number of steps of one kind, with sequences of one length."""

    kind: Kind
    steps: int
    length: int
    """Tokens of a sequence; the report goes from 4K over 16K and 64K to 1M."""
    batch: int
    """Sequences of a step."""
    shares: Mapping[str, float] | None = None
    """How many of the sequences come from each text, by its file's name: numbers of any sum, 0 for a name that is not
    here. None: each piece of every text comes equally often."""


@dataclass(frozen=True)
class Recipe:
    """Everything that a training run is made by, beside the text. Defaults are the report's and V3's values.

    A Recipe that exists is consistent: the constructor raises SettingError that names the key. `source` is what the
    messages call it; it does not take part in comparison.
    """

    model: Config
    """Of the model to be made."""
    stages: tuple[Stage, ...]
    """In the order in which they are trained."""
    learning_rate: float
    """η at its highest, after the warm-up, of Muon and AdamW."""
    final_learning_rate: float
    """η at the end of the decay; the report has a tenth."""
    warmup_steps: int
    """Steps over which η rises from 0; the report has 2,000."""
    checkpoint_interval: int
    """Steps between two checkpoints."""
    indexer_learning_rate: float = 1e-3
    """η while the indexer learns alone."""
    first_batch: int = 1
    """Sequences of the first step."""
    ramp_steps: int = 0
    """Steps over which the batch grows from there to that of its stage."""
    clip_norm: float = 1.0
    """The largest norm of all gradients together."""
    mtp_weight: float = 0.3
    """Of the MTP loss."""
    final_mtp_weight: float = 0.1
    """Of the MTP loss from the start of the decay."""
    balance_weight: float = 1e-4
    """α, of the sequence-wise balance loss."""
    indexer_weight: float = 1.0
    """Of the indexer's loss. It shares the clip norm with the others; not in the report."""
    hc_scale: float = 0.01
    """What the gating factors of the hyper-connections start at."""
    bias_speed: float = 1e-3
    """γ, by which the routing bias moves after a step."""
    quantise: bool = True
    """Whether the decay computes with weights as they will be stored."""
    seed: int = 0
    """Of the first weights and of the order of the text."""
    spikes: SpikeRule | None = None
    """When to roll back and route by older weights; None: never."""
    source: str = field(default="recipe", compare=False, repr=False)

    def __post_init__(self) -> None:
        _require(isinstance(self.model, Config), self, "model", "a Config")
        if self.model.dspark is not None:
            place = f"{self.source}: model: dspark_block_size"
            raise SettingError(f"{place}: expected none (no loss trains DSpark), found {self.model.dspark.block_size}")
        _require(isinstance(self.spikes, SpikeRule | None), self, "spikes", "a SpikeRule or None")
        flag(f"{self.source}: quantise", self.quantise)
        check_numbers(self, self.source, "", MAY_BE_ZERO)
        check_numbers(self.spikes, self.source, "spikes.", MAY_BE_ZERO)
        _check_stages(self)
        _require(self.final_learning_rate <= self.learning_rate, self, "final_learning_rate", "at most learning_rate")
        if self.quantise and any(stage.kind == "decay" for stage in self.stages):
            _check_can_be_stored(self)

    @property
    def steps(self) -> int:
        """Of all stages together."""
        return sum(stage.steps for stage in self.stages)


def read_recipe(path: str | Path) -> Recipe:
    """Read a recipe from a JSON file. "model" is an object as in config.json, or its path from the recipe's place.

    Raises SettingError where the file is missing or no JSON, and as `recipe_from_json` does.
    """
    path = Path(path)
    return recipe_from_json(read_json(path, SettingError, "a recipe"), source=str(path), directory=path.parent)


def recipe_from_json(raw: Any, source: str = "recipe", directory: Path | None = None) -> Recipe:
    """The recipe in a parsed JSON file. directory: where a path of the model's configuration starts from.

    Raises SettingError, with `source` as the file's name, for a missing or unknown key and for a wrong value, and
    ConfigError for what is wrong in the model's configuration.
    """
    values = section(raw, Recipe, source, "")
    if not isinstance(values["stages"], list):
        raise SettingError(f"{source}: stages: expected a list, found {quoted(values['stages'])}")
    stages = [section(stage, Stage, source, f"stages[{place}].") for place, stage in enumerate(values["stages"])]
    values["stages"] = tuple(Stage(**stage) for stage in stages)
    if values.get("spikes") is not None:
        values["spikes"] = SpikeRule(**section(values["spikes"], SpikeRule, source, "spikes."))
    values["model"] = _model(values["model"], source, directory or Path())
    return Recipe(**values, source=source)


def recipe_as_json(recipe: Recipe) -> dict[str, Any]:
    """The recipe as a JSON object with every key, the model's configuration inside: `recipe_from_json` reads it."""
    return {name: _plain(value) for name, value in _values(recipe).items() if name != "source"}


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    match value:
        case Config():
            return config_as_json(value)
        case Stage() | SpikeRule():
            return {name: _plain(one) for name, one in _values(value).items()}
        case tuple():
            return [_plain(one) for one in value]
        case Mapping():
            return {name: _plain(one) for name, one in value.items()}
        case np.generic():
            return value.item()
    return value


def _values(section: Recipe | Stage | SpikeRule) -> dict[str, Any]:
    return {entry.name: getattr(section, entry.name) for entry in fields(section)}


def _model(raw: Any, source: str, directory: Path) -> Config:
    return read_config(directory / raw) if isinstance(raw, str) else config_from_json(raw, source=f"{source}: model")


def _check_stages(recipe: Recipe) -> None:
    """Each stage by itself, and their order."""
    stages = recipe.stages
    are_stages = isinstance(stages, tuple) and len(stages) > 0 and all(isinstance(stage, Stage) for stage in stages)
    _require(are_stages, recipe, "stages", "a tuple of at least one Stage")
    kinds = get_args(Kind)
    for place, stage in enumerate(stages):
        prefix = f"stages[{place}]."
        name = f"{recipe.source}: {prefix}"
        if stage.kind not in kinds:
            raise SettingError(f"{name}kind: expected one of {', '.join(kinds)}, found {quoted(stage.kind)}")
        check_numbers(stage, recipe.source, prefix, MAY_BE_ZERO)
        _check_shares(stage.shares, f"{name}shares")
        integer(f"{name}steps", stage.steps, least=1, most=MOST_STEPS)
        integer(f"{name}length", stage.length, least=2, most=recipe.model.max_position_embeddings)
    order = [kinds.index(stage.kind) for stage in stages]
    _require(order == sorted(order), recipe, "stages", f"kinds in the order {', '.join(kinds)}")


def _check_can_be_stored(recipe: Recipe) -> None:
    """FP4 has a scale for each 32 columns, and can hold no matrix of another width."""
    for name, parameter in parameters(recipe.model).items():
        if parameter.format == "fp4" and parameter.shape[-1] % FP4_BLOCK:
            width = f"experts of widths that are multiples of {FP4_BLOCK}, or quantise false, as the decay stores FP4"
            raise SettingError(f"{recipe.source}: model: expected {width}, found {name} with {parameter.shape[-1]}")


def _check_shares(shares: Any, name: str) -> None:
    """Numbers of at least 0 by names, not all of them 0."""
    if shares is None:
        return
    if not isinstance(shares, Mapping) or not all(isinstance(text, str) for text in shares):
        raise SettingError(f"{name}: expected numbers by the names of texts, found {quoted(shares)}")
    if any(not 0 <= number(f"{name}: {text}", share) <= LARGEST for text, share in shares.items()):
        raise SettingError(f"{name}: expected numbers of at least 0, found {quoted(dict(shares))}")
    if not any(shares.values()):
        raise SettingError(f"{name}: expected a number above 0, found {quoted(dict(shares))}")


def _require(condition: bool, recipe: Recipe, key: str, expected: str) -> None:
    if not condition:
        raise SettingError(f"{recipe.source}: {key}: expected {expected}, found {quoted(getattr(recipe, key))}")
