"""Runs of post-training: a stage, or a recipe of several; killed at any moment, they are resumed to the same bits."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from dsv4.arguments import flag
from dsv4.checkpoint import Checkpoint
from dsv4.checkpoint.target import built_beside
from dsv4.config import Config
from dsv4.errors import CheckpointError, SettingError, TrainingError, quoted
from dsv4.learn.begin import copy_tokenizer
from dsv4.learn.blas import one_blas_thread
from dsv4.learn.post.distillation import Distillation
from dsv4.learn.post.fine_tuning import FineTuning
from dsv4.learn.post.imitation import Imitating
from dsv4.learn.post.lesson import Lesson
from dsv4.learn.post.recipe import GRPO, NEW, OPD, SFT, Imitation, PostRecipe, Stage, Taught
from dsv4.learn.post.recipe_json import recipe_as_json, stage_as_json
from dsv4.learn.post.reinforcement import Reinforcement
from dsv4.learn.post.trainer import PostTrainer, Report
from dsv4.learn.post.worlds.vocabulary import world_tokenizer
from dsv4.learn.repair import ended
from dsv4.learn.run_directory import RunDirectory
from dsv4.learn.snapshots import keep, restore
from dsv4.learn.trainable import Trainable, new_model
from dsv4.ops import Ops
from dsv4.text.tokenizer import Tokenizer

ROLLOUTS = "rollouts"
"""Below the directory of a stage: its answers, token by token."""

Watcher = Callable[[Stage, Report, float], None]
"""Called after each step, with its stage, its report and how many seconds it took."""


def posttrain(
    recipe: PostRecipe,
    out: str | Path,
    resume: bool = False,
    ops: Ops | None = None,
    watch: Watcher = lambda stage, report, seconds: None,
) -> Path:
    """Train all stages of a recipe, one after another, and give back the path of the last one's checkpoint.

    out: a directory, made if there is none, in which each stage has one of its name; resume: go on where a run of this
    recipe stopped: stages that are done stay as they are. ops: the backend that draws answers, NumPy's unless said;
    training itself computes on the tape. Raises TrainingError for a run of another recipe, and as `train_stage` does.
    """
    directory = RunDirectory(out)
    if flag("resume", resume):
        if not directory.exists:
            raise TrainingError(f"{directory.path}: expected a run to resume, found none")
        if directory.read_json("recipe.json") != recipe_as_json(recipe):
            raise TrainingError(f"{directory.path}: expected a run of the same recipe, found another")
    else:
        with built_beside(directory.path, overwrite=False) as partial:
            RunDirectory(partial).write_json("recipe.json", recipe_as_json(recipe))
            if recipe.model is not None:
                world_tokenizer(partial, recipe.model.vocab_size, recipe.model.max_position_embeddings)
    done: dict[str, Path] = {}
    for stage in recipe.stages:
        begun = RunDirectory(directory.path / stage.name).exists
        done[stage.name] = train_stage(stage, directory.path / stage.name, resume and begun, ops, watch, done, recipe)
    return done[recipe.stages[-1].name]


def train_stage(
    stage: Stage,
    out: str | Path,
    resume: bool = False,
    ops: Ops | None = None,
    watch: Watcher = lambda stage, report, seconds: None,
    made: Mapping[str, Path] = {},
    recipe: PostRecipe | None = None,
) -> Path:
    """Train one stage, and give back the path of its checkpoint: official names, float32, with its tokenizer.

    stage: an SFT, GRPO, OPD or Imitation; out: the directory of the stage, which is made; resume: go on with the stage
    that is there, from its newest state, and with its answers from the token at which they stopped. ops, watch: as for
    `posttrain`. made: the checkpoints of earlier stages by name; recipe: what a new model is made from.

    Raises TrainingError where a loss or a reward is no number: the checkpoint is then that of the last good state; for
    a stage of other settings, and while another process trains there. SettingError, CheckpointError and PromptError
    for what is wrong with the settings, with the checkpoint to start from, and for a window that does not fit.
    """
    directory, ops = RunDirectory(out), ops or Ops()
    if flag("resume", resume) and not directory.exists:
        raise TrainingError(f"{directory.path}: expected a stage to resume, found none")
    if resume and directory.read_json("recipe.json") != stage_as_json(stage):
        raise TrainingError(f"{directory.path}: expected a stage with the same settings, found others")
    weights, config = _first_weights(stage, made, recipe)
    if not resume:
        _begin(stage, directory, weights, config, _tokenizer_of(stage, directory, made))
    with directory.locked(), one_blas_thread():
        trainer = PostTrainer(stage, config, weights, _lesson(stage, directory, weights, config, made, ops))
        restore(directory, trainer)
        _train(directory, trainer, watch)
    return directory.model


def sft(stage: SFT, out: str | Path, resume: bool = False, ops: Ops | None = None) -> Path:
    """Supervised fine-tuning: `train_stage` of an SFT."""
    return train_stage(_of(stage, SFT), out, resume, ops)


def grpo(stage: GRPO, out: str | Path, resume: bool = False, ops: Ops | None = None) -> Path:
    """Reinforcement from rewards: `train_stage` of a GRPO."""
    return train_stage(_of(stage, GRPO), out, resume, ops)


def imitate(stage: Imitation, out: str | Path, resume: bool = False, ops: Ops | None = None) -> Path:
    """Fine-tuning on the answers of teachers: `train_stage` of an Imitation."""
    return train_stage(_of(stage, Imitation), out, resume, ops)


def distill(stage: OPD, out: str | Path, resume: bool = False, ops: Ops | None = None) -> Path:
    """On-policy distillation from teachers: `train_stage` of an OPD."""
    return train_stage(_of(stage, OPD), out, resume, ops)


def _of(stage: Stage, kind: type[Stage]) -> Stage:
    if not isinstance(stage, kind):
        raise SettingError(f"stage: expected one of the kind {kind.kind}, found {quoted(stage)}")
    return stage


def _train(directory: RunDirectory, trainer: PostTrainer, watch: Watcher) -> None:
    """All steps that are left."""
    stage = trainer.stage
    while trainer.step < stage.steps:
        start = time.perf_counter()
        try:
            report = trainer.advance()
        except CheckpointError as error:  # weights that no model can be made of
            raise ended(directory, trainer, f"step {trainer.step}: {error}") from error
        seconds = time.perf_counter() - start
        directory.log.append({**report.to_json(), "seconds": round(seconds, 3)})
        watch(stage, report, seconds)
        if report.verdict != "go on":
            found = f"loss {report.loss:.4g}, gradient norm {report.gradient_norm:.4g}"
            raise ended(directory, trainer, f"step {report.step}: expected finite numbers, found {found}")
        if trainer.step % stage.checkpoint_interval == 0 or trainer.step == stage.steps:
            keep(directory, trainer)
            trainer.lesson.forget(directory.steps()[0])


def _begin(stage: Stage, directory: RunDirectory, weights: Trainable, config: Config, tokenizer: Path) -> None:
    """Make the directory of a stage with its first state: it is there whole or not at all."""
    if directory.exists:
        raise TrainingError(f"{directory.path}: expected a new or empty directory, found a stage; resume continues it")
    with built_beside(directory.path, overwrite=False) as partial:
        built = RunDirectory(partial)
        built.write_json("recipe.json", stage_as_json(stage))
        copy_tokenizer(tokenizer, built.tokenizer)
        keep(built, PostTrainer(stage, config, weights, _lesson(stage, built, weights, config, None, Ops())))


def _lesson(
    stage: Stage, directory: RunDirectory, weights: Trainable, config: Config, made: Mapping[str, Path] | None, ops: Ops
) -> Lesson:
    """What a stage learns from. made: None while it begins, when no teacher is needed yet."""
    tokenizer, rollouts = Tokenizer.from_file(directory.tokenizer), directory.path / ROLLOUTS
    if isinstance(stage, SFT):
        return FineTuning(stage, tokenizer, config.max_position_embeddings)
    if isinstance(stage, GRPO):
        return Reinforcement(stage, config, weights, tokenizer, rollouts, ops)
    if isinstance(stage, Taught):
        teachers = [] if made is None else [_place(teacher.start, made) for teacher in stage.teachers]
        if isinstance(stage, OPD):
            return Distillation(stage, config, tokenizer, teachers, rollouts, ops)
        if isinstance(stage, Imitation):
            return Imitating(stage, config, tokenizer, teachers, rollouts, ops)
    raise SettingError(f"stage: expected an SFT, a GRPO, an OPD or an Imitation, found {quoted(stage)}")


def _first_weights(stage: Stage, made: Mapping[str, Path], recipe: PostRecipe | None) -> tuple[Trainable, Config]:
    """The weights that a stage starts with, and the configuration that they are to be released in."""
    if stage.start == NEW:
        if recipe is None or recipe.model is None:
            raise SettingError(f"stage {stage.name}: start: expected a recipe with a model for a new one, found none")
        return new_model(recipe.model, stage.seed).weights, recipe.model
    checkpoint = Checkpoint.open(_place(stage.start, made))
    checkpoint.validate()
    weights = Trainable.of(checkpoint, np.float32)
    return weights, weights.config


def _tokenizer_of(stage: Stage, directory: RunDirectory, made: Mapping[str, Path]) -> Path:
    """That of the checkpoint, or of the run, which has made one for a new model."""
    return directory.path.parent if stage.start == NEW else _place(stage.start, made)


def _place(start: str, made: Mapping[str, Path]) -> Path:
    return made[start] if start in made else Path(start)
