"""What follows a loss that suddenly leaps: a few steps back, or an end with the last good model (report §4.2.3)."""

import math

from dsv4.errors import TrainingError
from dsv4.learn.learner import Learner
from dsv4.learn.run_directory import RunDirectory
from dsv4.learn.snapshots import keep, load, write_model
from dsv4.learn.trainer import Report, Trainer


def go_back(directory: RunDirectory, trainer: Trainer, report: Report) -> None:
    """After a spike: to a state that is old enough, and on with older weights choosing the experts.

    The states of the steps that are given up are deleted before training goes on, and the one that it goes on from is
    replaced by what it is now: a run that is killed afterwards goes on in the repair, and one that is killed before
    meets the same spike again. Raises TrainingError where the verdict is to stop, as `ended` says.
    """
    spikes = trainer.recipe.spikes
    if report.verdict == "stop" or spikes is None:
        raise ended(directory, trainer, f"step {report.step}: {_found(report)}")
    step = directory.newest(at_most=max(0, report.step - spikes.rollback))
    load(directory, trainer, step)
    directory.forget_after(step)
    trainer.begin_anticipatory(report.step)
    keep(directory, trainer)


def ended(directory: RunDirectory, trainer: Learner, found: str) -> TrainingError:
    """The end of a run that cannot go on: what was found, and which model is the last good one.

    The state before a bad step has made it bad, so the last good one is older than that: newer ones are deleted, and
    the model is written anew.
    """
    step = directory.newest(at_most=max(0, trainer.step - 1))
    load(directory, trainer, step)
    directory.forget_after(step)
    write_model(directory, trainer)
    return TrainingError(f"{found}; {directory.model} is the model after {step} steps")


def _found(report: Report) -> str:
    if math.isfinite(report.loss) and not math.isfinite(report.gradient_norm):
        return f"expected gradients with a finite norm, found {report.gradient_norm:.4g}"
    return f"expected a loss like those before, found {report.loss:.4g}"
