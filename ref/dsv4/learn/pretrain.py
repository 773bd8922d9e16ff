"""A training run from texts to a checkpoint: it may be killed at any moment, and is resumed to the same bits."""

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dsv4.arguments import flag
from dsv4.checkpoint import Checkpoint
from dsv4.errors import SettingError, TextError, TrainingError, quoted
from dsv4.learn.blas import one_blas_thread
from dsv4.learn.recipe import Recipe, read_recipe, recipe_as_json, recipe_from_json
from dsv4.learn.run_directory import LOG_LINES, RunDirectory
from dsv4.learn.texts.documents import read_documents, read_texts
from dsv4.learn.texts.feed import TextFeed
from dsv4.learn.texts.train_tokenizer import train_tokenizer
from dsv4.learn.trainable import Trainable, new_model
from dsv4.learn.trainer import Report, Trainer
from dsv4.parameters import parameters
from dsv4.text.tokenizer import Tokenizer

CAPTURE_INTERVAL = 50
"""Steps between two looks at where the indexers stand."""

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")

Watcher = Callable[[Report, float], None]
"""Called after each step, with its report and how many seconds it took."""


def pretrain(
    recipe: Recipe | str | Path,
    texts: Sequence[str | Path],
    out: str | Path,
    resume: bool = False,
    init: str | Path | None = None,
    watch: Watcher = lambda report, seconds: None,
) -> Path:
    """Train a model, and give back the path of its checkpoint: official names, float32, with its tokenizer.

    recipe: a Recipe, or the path of its file; texts: plain text files, each one document, and JSONL files of documents
    and conversations (`dsv4.learn.texts.documents`), of different names; out: the directory of the run, which is made;
    resume: go on with the run that is there, from its newest state; init: a checkpoint to start from, with its
    tokenizer; without it the weights are random, and the tokenizer is trained on the texts. watch: called after each
    step.

    Raises TrainingError where the loss is no number or a spike is beyond repair: the checkpoint is then that of the
    last good state; for a directory that holds something else, and for a run with another recipe or other texts.
    TextError, SettingError and CheckpointError for what is wrong with the texts, the recipe and the checkpoint to
    start from.
    """
    recipe = recipe if isinstance(recipe, Recipe) else read_recipe(recipe)
    files, weights = _files(texts), _first_weights(recipe, init)
    directory = RunDirectory(out)
    if flag("resume", resume):
        _check_same(directory, recipe, files)
    else:
        _begin(directory, recipe, files, init)
    tokenizer = Tokenizer.from_file(directory.tokenizer)
    if tokenizer.vocab_size > recipe.model.vocab_size:
        expected = f"at most vocab_size = {recipe.model.vocab_size} tokens"
        raise SettingError(f"{directory.tokenizer}: expected {expected}, found {tokenizer.vocab_size}")
    feed = TextFeed(recipe, {name: read_documents(path, tokenizer) for name, path in files.items()})
    trainer = Trainer(recipe, weights, feed)
    run = _Run(directory, trainer, watch)
    run.restore(directory.steps()[-1]) if resume and directory.steps() else run.save()
    with one_blas_thread():
        run.train()
    return directory.model


class _Run:
    """A trainer with its directory."""

    def __init__(self, directory: RunDirectory, trainer: Trainer, watch: Watcher) -> None:
        self.directory, self.trainer, self.watch = directory, trainer, watch

    def train(self) -> None:
        """All steps that are left."""
        trainer, recipe = self.trainer, self.trainer.recipe
        while trainer.step < recipe.steps:
            start = time.perf_counter()
            report = trainer.advance()
            looks = report.verdict == "go on" and report.step % CAPTURE_INTERVAL == 0
            captures = trainer.captures(report.step) if looks else {}
            seconds = time.perf_counter() - start
            self.directory.append({**report.to_json(), "standing": captures, "seconds": round(seconds, 3)})
            self.watch(report, seconds)
            if report.verdict != "go on":
                self._go_back(report)
            elif trainer.step % recipe.checkpoint_interval == 0 or trainer.step == recipe.steps:
                self.save()

    def save(self) -> None:
        """Keep the state, and write the model as it is now."""
        spikes = self.trainer.recipe.spikes
        keep_from = self.trainer.step - (spikes.rollback + self.trainer.recipe.checkpoint_interval if spikes else 0)
        self.directory.save_state(self.trainer.step, self.trainer.state(), keep_from)
        copies = [self.directory.tokenizer / name for name in TOKENIZER_FILES]
        self.trainer.weights.save(self.directory.model, overwrite=True, extra_files=copies)

    def restore(self, step: int) -> None:
        """Go on from a state; the log forgets what came after it."""
        state = self.directory.load_state(step)
        self.directory.cut_log(int(state.pop(LOG_LINES)))
        self.trainer.load_state(state)

    def _go_back(self, report: Report) -> None:
        """After a spike: to a state that is old enough, and on with older weights choosing the experts; or stop."""
        loss = next(iter(report.losses.values()))
        last = self.directory.steps()[-1]
        found = f"step {report.step}: expected a loss like those before, found {loss:.4g}"
        if report.verdict == "stop" or self.trainer.recipe.spikes is None:
            raise TrainingError(f"{found}; {self.directory.model} is the model after step {last}")
        target = max(0, report.step - self.trainer.recipe.spikes.rollback)
        step = max((known for known in self.directory.steps() if known <= target), default=self.directory.steps()[0])
        self.trainer.load_state(self.directory.load_state(step))
        self.trainer.begin_anticipatory()


def _files(texts: Sequence[str | Path]) -> dict[str, Path]:
    """The text files by name. Raises TextError for none, and for two of one name."""
    files: dict[str, Path] = {}
    for path in map(Path, texts):
        if path.name in files:
            raise TextError(f"texts: expected files of different names, found {path.name} twice")
        files[path.name] = path
    if not files:
        raise TextError("texts: expected at least one file, found none")
    return files


def _hashes(files: dict[str, Path]) -> dict[str, str]:
    found = {}
    for name, path in files.items():
        try:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise TextError(f"{path}: expected a text file, found: {error.strerror}") from error
    return found


def _begin(directory: RunDirectory, recipe: Recipe, files: dict[str, Path], init: str | Path | None) -> None:
    """A directory with a tokenizer and what is trained; the recipe comes last, and says that all else is there."""
    texts = [text for path in files.values() for text in read_texts(path)]
    hashes = _hashes(files)
    if init is not None:
        Tokenizer.from_file(init)  # what is wrong with it is said before anything is written
    directory.create()
    if init is None:
        model = recipe.model
        train_tokenizer(texts, directory.tokenizer, model.vocab_size, model.max_position_embeddings)
    else:
        for name in TOKENIZER_FILES:
            (directory.tokenizer / name).write_bytes((Path(init) / name).read_bytes())
    directory.write_json("texts.json", hashes)
    directory.write_json("recipe.json", recipe_as_json(recipe))


def _check_same(directory: RunDirectory, recipe: Recipe, files: dict[str, Path]) -> None:
    """Raise TrainingError unless the directory holds a run of this recipe with these texts."""
    if not directory.exists:
        raise TrainingError(f"{directory.path}: expected a run to resume, found none")
    begun = recipe_from_json(directory.read_json("recipe.json"), str(directory.path / "recipe.json"))
    if begun != recipe:
        ours, theirs = recipe_as_json(recipe), recipe_as_json(begun)
        key = next(key for key in ours if ours[key] != theirs[key])
        raise TrainingError(f"{directory.path}: expected a run with the same {key}, found {quoted(theirs[key])}")
    known, found = directory.read_json("texts.json"), _hashes(files)
    for name in sorted(known.keys() | found.keys()):
        if known.get(name) != found.get(name):
            what = "another text" if name in known.keys() & found.keys() else "no such text on one of the two sides"
            raise TrainingError(f"{directory.path}: expected the run's text {quoted(name)}, found {what}")


def _first_weights(recipe: Recipe, init: str | Path | None) -> Trainable:
    """Random ones, or those of a checkpoint, which must have the recipe's parameters."""
    if init is None:
        return new_model(recipe.model, recipe.seed, recipe.hc_scale).weights
    source = Checkpoint.open(init)
    weights = Trainable.of(source, np.float32)
    expected = {name: parameter.shape for name, parameter in parameters(recipe.model).items()}
    found: dict[str, Any] = {name: array.shape for name, array in weights.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            shapes = f"shape {expected.get(name, 'none')}, found {found.get(name, 'none')}"
            raise TrainingError(f"{init}: tensor {quoted(name)}: expected the recipe's {shapes}")
    return weights
