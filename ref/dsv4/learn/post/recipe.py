"""The recipe of post-training.

Its stages start from a checkpoint, or from what an earlier stage has made.

    {"stages": [
      {"kind": "sft",  "name": "start",   "start": "runs/base/model", "worlds": ["sums", "strings"], …},
      {"kind": "grpo", "name": "sums",    "start": "start",           "worlds": ["sums"], …},
      {"kind": "grpo", "name": "strings", "start": "start",           "worlds": ["strings"], …},
      {"kind": "opd",  "name": "student", "start": "start",
       "teachers": [{"start": "sums", "worlds": ["sums"]}, {"start": "strings", "worlds": ["strings"]}], …}]}
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from dsv4.arguments import flag, integer
from dsv4.config import Config
from dsv4.errors import SettingError, quoted
from dsv4.learn.post.efforts import Effort
from dsv4.learn.post.worlds import WORLDS
from dsv4.learn.sections import check_numbers

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
    """Where the tasks come from, in turn. A world that is named twice gives twice as many."""
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


def check_worlds(worlds: Any, name: str) -> None:
    """Raise SettingError unless these are names of worlds, at least one."""
    if not isinstance(worlds, tuple) or not worlds or not all(world in WORLDS for world in worlds):
        raise SettingError(f"{name}: expected some of {', '.join(WORLDS)}, found {quoted(worlds)}")
