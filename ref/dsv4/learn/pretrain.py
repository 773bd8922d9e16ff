"""A training run from texts to a checkpoint: it may be killed at any moment, and is resumed to the same bits."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from dsv4.arguments import flag
from dsv4.errors import CheckpointError, SettingError, TrainingError, quoted
from dsv4.learn.begin import begin, reopen, text_files
from dsv4.learn.blas import one_blas_thread
from dsv4.learn.recipe import Recipe, read_recipe
from dsv4.learn.repair import ended, go_back
from dsv4.learn.run_directory import RunDirectory
from dsv4.learn.snapshots import keep
from dsv4.learn.trainer import Report, Trainer

CAPTURE_INTERVAL = 50
"""Steps between two looks at where the indexers stand."""

Watcher = Callable[[Report, float], None]
"""Called after each step, with its report and how many seconds it took."""


def pretrain(
    recipe: Recipe | str | Path,
    texts: Sequence[str | Path],
    out: str | Path,
    resume: bool = False,
    init: str | Path | None = None,
    tokenizer: str | Path | None = None,
    watch: Watcher = lambda report, seconds: None,
) -> Path:
    """Train a model, and give back the path of its checkpoint: official names, float32, with its tokenizer.

    recipe: a Recipe, or the path of its file; texts: plain text files, each one document, and JSONL files of documents
    and conversations (`dsv4.learn.texts.documents`), of different names, in any order; out: the directory of the run,
    which is made; resume: go on with the run that is there, from its newest state; init: a checkpoint to start from,
    with its tokenizer; without it the weights are random; tokenizer: the directory of another tokenizer; without it and
    without `init` one is trained on the texts. watch: called after each step.

    Raises TrainingError where the loss is no number or a spike is beyond repair: the checkpoint is then that of the
    last good state; for a run with another recipe or other texts; and while another process trains there. TextError,
    SettingError and CheckpointError for what is wrong with the texts, the recipe and the checkpoint to start from, and
    CheckpointError for a directory that holds something else.
    """
    recipe = recipe if isinstance(recipe, Recipe) else read_recipe(recipe)
    files, directory = text_files(texts), RunDirectory(out)
    for name, given in ("init", init), ("tokenizer", tokenizer):
        if flag("resume", resume) and given is not None:
            found = f"found {quoted(str(given))}: a run knows what it began with"
            raise SettingError(f"{name}: expected none, since the run is resumed, {found}")
    if resume and not directory.exists:
        raise TrainingError(f"{directory.path}: expected a run to resume, found none")
    begun = None if resume else begin(out, recipe, files, init, tokenizer)
    with directory.locked(), one_blas_thread():
        _train(directory, begun or reopen(directory, recipe, files), watch)
    return directory.model


def _train(directory: RunDirectory, trainer: Trainer, watch: Watcher) -> None:
    """All steps that are left."""
    recipe = trainer.recipe
    while trainer.step < recipe.steps:
        start = time.perf_counter()
        try:
            report = trainer.advance()
            looks = report.verdict == "go on" and report.step % CAPTURE_INTERVAL == 0
            captures = trainer.captures(report.step) if looks else {}
        except CheckpointError as error:  # weights that no model can be made of
            raise ended(directory, trainer, f"step {trainer.step}: {error}") from error
        seconds = time.perf_counter() - start
        directory.log.append({**report.to_json(), "standing": captures, "seconds": round(seconds, 3)})
        watch(report, seconds)
        if report.verdict != "go on":
            go_back(directory, trainer, report)
        elif trainer.step % recipe.checkpoint_interval == 0 or trainer.step == recipe.steps:
            keep(directory, trainer)
