"""The recipe of post-training.

Its stages start from a checkpoint, or from what an earlier stage has made.

    {"stages": [
      {"kind": "sft",  "name": "start",   "start": "runs/base/model", "worlds": ["sums", "strings"], …},
      {"kind": "grpo", "name": "sums",    "start": "start",           "worlds": ["sums"], …},
      {"kind": "grpo", "name": "strings", "start": "start",           "worlds": ["strings"], …},
      {"kind": "opd",  "name": "student", "start": "start",
       "teachers": [{"start": "sums", "worlds": ["sums"]}, {"start": "strings", "worlds": ["strings"]}], …}]}
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from dsv4.arguments import flag, integer
from dsv4.checkpoint import config_as_json, config_from_json, read_config
from dsv4.checkpoint.input_files import read_json
from dsv4.config import Config
from dsv4.errors import SettingError, quoted
from dsv4.learn.post.efforts import Effort
from dsv4.learn.post.worlds import WORLDS
from dsv4.learn.sections import check_numbers, section

NEW = "new"
"""As a start: a model with random weights, of the recipe's configuration, with the worlds' tokenizer."""

FRONTS = ("student", "teacher")

MAY_BE_ZERO = ("seed", "warmup_steps", "decay_steps", "final_learning_rate", "beta", "indexer_weight", "weight")


@dataclass(frozen=True)
class Stage:
    """What every stage says. Its constructor raises SettingError that names the key."""

    name: str
    """Of its directory, and for later stages to start from."""
    start: str
    """The name of an earlier stage, "new", or the directory of a checkpoint."""
    worlds: tuple[str, ...]
    """Where the tasks come from, in turn."""
    steps: int
    learning_rate: float
    """η between the warm-up and the decay."""
    checkpoint_interval: int
    """Steps between two checkpoints."""
    efforts: tuple[Effort, ...] = (Effort.named("non-think"),)
    """The modes of the prompts, in turn: those that name the task's world, or where none does, those that name none."""
    warmup_steps: int = 0
    """Steps at the beginning in which η rises linearly."""
    decay_steps: int = 0
    """Steps at the end in which η falls along a cosine. The report prints no schedule of these stages."""
    final_learning_rate: float = 0.0
    """η of the last step of the decay."""
    clip_norm: float = 1.0
    indexer_weight: float = 1.0
    """Of the indexer's own loss: the others do not move it."""
    quantise: bool = False
    """Whether to draw and to compute with weights as they will be released: FP4 experts, FP8 and bf16."""
    part: int = 16
    """Rows that are computed at once, which bounds the memory that a step takes. The loss is that of the whole step,
    but for the indexer's, of which the parts' means are taken."""
    seed: int = 0

    kind: ClassVar[str]

    def efforts_of(self, world: str) -> tuple[Effort, ...]:
        """The modes of the questions of one of its worlds, in turn."""
        own = tuple(effort for effort in self.efforts if world in effort.worlds)
        return own or tuple(effort for effort in self.efforts if not effort.worlds)

    def __post_init__(self) -> None:
        name = f"stage {self.name}"
        if not isinstance(self.name, str) or not self.name.isidentifier() or self.name == NEW:
            raise SettingError(f"stage: name: expected letters and digits, found {quoted(self.name)}")
        if not isinstance(self.start, str) or not self.start:
            raise SettingError(f"{name}: start: expected a stage, {NEW} or a checkpoint, found {quoted(self.start)}")
        flag(f"{name}: quantise", self.quantise)
        check_numbers(self, name, "", MAY_BE_ZERO)
        check_worlds(self.worlds, f"{name}: worlds")
        if self.warmup_steps + self.decay_steps > self.steps:
            both = f"{self.warmup_steps} and {self.decay_steps}"
            most = f"{self.steps} together or less"
            raise SettingError(f"{name}: warmup_steps, decay_steps: expected {most}, found {both}")
        if self.final_learning_rate > self.learning_rate:
            most, found = f"at most the learning rate, {self.learning_rate}", self.final_learning_rate
            raise SettingError(f"{name}: final_learning_rate: expected {most}, found {found}")
        if not self.efforts or not all(isinstance(effort, Effort) for effort in self.efforts):
            raise SettingError(f"{name}: efforts: expected at least one Effort, found {quoted(self.efforts)}")
        for effort in self.efforts:
            if effort.worlds:
                check_worlds(effort.worlds, f"{name}: efforts: worlds")
        for world in self.worlds:
            if not self.efforts_of(world):
                raise SettingError(f"{name}: efforts: expected one for {world}, found none")


@dataclass(frozen=True)
class SFT(Stage):
    """Supervised fine-tuning on the good answers of the worlds' tasks."""

    kind = "sft"

    batch: int = 16
    """Conversations of a step."""


@dataclass(frozen=True)
class Sampled(Stage):
    """What the stages say that learn from answers of the model's own."""

    questions: int = 32
    """Tasks whose answers are drawn together."""
    temperature: float = 1.0
    top_p: float = 1.0
    updates: int = 1
    """Steps that learn from the same answers, each from its part of them: but for the first, off-policy."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.top_p <= 1:
            raise SettingError(f"stage {self.name}: top_p: expected a number above 0 and at most 1, found {self.top_p}")


@dataclass(frozen=True)
class GRPO(Sampled):
    """Reinforcement from rewards. Defaults are R1's values, but for δ, which is not printed."""

    kind = "grpo"

    group: int = 16
    """G: answers to each question."""
    epsilon: float = 10.0
    """ε of the clip."""
    beta: float = 0.001
    """β of the divergence from the reference."""
    delta: float = 0.1
    """δ: answers with a negative advantage that are further from the policy than this are left out."""
    reference_interval: int = 400
    """Steps after which the model of then becomes the reference."""

    def __post_init__(self) -> None:
        super().__post_init__()
        integer(f"stage {self.name}: group", self.group, least=2)
        if (self.questions * self.group) % self.updates:
            expected = f"a number that divides the {self.questions * self.group} answers"
            raise SettingError(f"stage {self.name}: updates: expected {expected}, found {self.updates}")


@dataclass(frozen=True)
class Teacher:
    """One of the models that a student learns from, and for which tasks."""

    start: str
    """The name of an earlier stage, or the directory of a checkpoint."""
    worlds: tuple[str, ...]
    """The worlds whose answers it judges."""
    weight: float = 1.0
    """w_i."""
    efforts: tuple[Effort, ...] = ()
    """The modes that it was trained in, and is asked in; the stage's where it names none."""

    def __post_init__(self) -> None:
        check_numbers(self, f"teacher {self.start}", "", MAY_BE_ZERO)
        check_worlds(self.worlds, f"teacher {self.start}: worlds")


@dataclass(frozen=True)
class Taught(Sampled):
    """What the stages say in which a student has several teachers."""

    teachers: tuple[Teacher, ...] = ()

    def efforts_of(self, world: str) -> tuple[Effort, ...]:
        """Those of the world's teacher, if it names any."""
        of_teacher = [teacher.efforts for teacher in self.teachers if world in teacher.worlds]
        return (of_teacher and of_teacher[0]) or super().efforts_of(world)

    def __post_init__(self) -> None:
        super().__post_init__()
        for world in self.worlds:
            found = [teacher.start for teacher in self.teachers if world in teacher.worlds]
            if len(found) != 1:
                names = ", ".join(found) or "none"
                raise SettingError(f"stage {self.name}: teachers: expected one for {world}, found {names}")
        if self.questions % self.updates:
            expected = f"a number that divides the {self.questions} answers"
            raise SettingError(f"stage {self.name}: updates: expected {expected}, found {self.updates}")


@dataclass(frozen=True)
class OPD(Taught):
    """On-policy distillation: the student answers, and learns from what its teachers would have said."""

    kind = "opd"

    front: str = "student"
    """Who stands in front in the divergence: "student", KL(π_θ ‖ π_E) as in the report, or "teacher", KL(π_E ‖ π_θ)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.front not in FRONTS:
            expected = " or ".join(FRONTS)
            raise SettingError(f"stage {self.name}: front: expected {expected}, found {quoted(self.front)}")


@dataclass(frozen=True)
class Imitation(Taught):
    """Fine-tuning on what the teachers answer: not in the report, which has OPD in its place."""

    kind = "imitation"


KINDS: dict[str, type[Stage]] = {kind.kind: kind for kind in (SFT, GRPO, OPD, Imitation)}


@dataclass(frozen=True)
class PostRecipe:
    """The stages of a run, in order, and the configuration of a new model where one starts from none."""

    stages: tuple[Stage, ...]
    model: Config | None = None
    source: str = "recipe"

    def __post_init__(self) -> None:
        names = [stage.name for stage in self.stages]
        if not names or len(set(names)) < len(names):
            raise SettingError(f"{self.source}: stages: expected at least one, with names of their own, found {names}")
        if self.model is None and any(stage.start == NEW for stage in self.stages):
            raise SettingError(f"{self.source}: model: expected the configuration of a new model, found none")


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


def check_worlds(worlds: Any, name: str) -> None:
    """Raise SettingError unless these are names of worlds, at least one."""
    if not isinstance(worlds, tuple) or not worlds or not all(world in WORLDS for world in worlds):
        raise SettingError(f"{name}: expected some of {', '.join(WORLDS)}, found {quoted(worlds)}")


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
