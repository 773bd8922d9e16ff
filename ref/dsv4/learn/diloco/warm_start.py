"""Before learners part: some steps of all as one, whose gradient is that of the batches of all."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from dsv4.errors import TrainingError
from dsv4.learn.recipe import Recipe
from dsv4.learn.run_directory import RunDirectory
from dsv4.learn.snapshots import keep
from dsv4.learn.texts.feed import TextFeed
from dsv4.learn.trainer import Trainer
from dsv4.ops.types import Ints


def together(recipe: Recipe, learners: int) -> Recipe:
    """The recipe of so many learners as one: their batches side by side."""
    return replace(recipe, stages=tuple(replace(stage, batch=stage.batch * learners) for stage in recipe.stages))


def warmed_up(
    directory: RunDirectory, trainer: Trainer, learners: int, steps: int, documents: Mapping[str, Sequence[Ints]]
) -> Trainer:
    """The trainer after so many steps of the run, with the optimiser that it has then.

    directory: of the run, which takes states and log as of `dsv4 train`, so that it can be resumed; trainer: of a
    learner's recipe, at the newest state; documents: the texts, as of `TextFeed`. Raises TrainingError for a loss that
    is no number.
    """
    whole = together(trainer.recipe, learners)
    one = Trainer(whole, trainer.weights, TextFeed(whole, documents))
    one.load_state(trainer.state())
    while one.step < steps:
        start = time.perf_counter()
        report = one.advance()
        if report.verdict != "go on":
            raise TrainingError(f"step {report.step}: expected a loss that is a number, found {report.loss:.4g}")
        seconds = round(time.perf_counter() - start, 3)
        directory.log.append({**report.to_json(), "standing": {}, "seconds": seconds})
        if one.step % whole.checkpoint_interval == 0 or one.step == steps:
            keep(directory, one)
    return one
