"""How a training run begins, and how it is found again: its directory is there whole or not at all."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dsv4.checkpoint import Checkpoint
from dsv4.checkpoint.atomic import replacing
from dsv4.checkpoint.input_files import regular_size
from dsv4.checkpoint.target import built_beside
from dsv4.errors import SettingError, TextError, TrainingError, quoted, reason
from dsv4.learn.recipe import Recipe, recipe_as_json, recipe_from_json
from dsv4.learn.run_directory import RunDirectory
from dsv4.learn.snapshots import TOKENIZER_FILES, keep, restore
from dsv4.learn.texts.documents import read_documents, read_texts
from dsv4.learn.texts.feed import TextFeed
from dsv4.learn.texts.train_tokenizer import train_tokenizer
from dsv4.learn.trainable import Trainable, new_model
from dsv4.learn.trainer import Trainer
from dsv4.parameters import parameters
from dsv4.text.tokenizer import Tokenizer

Files = dict[str, Path]
"""Text files by name, in the order of their names."""


def text_files(texts: Sequence[str | Path]) -> Files:
    """The text files of a run: the order in which they are given does not matter.

    Raises TextError for none, and for two of one name.
    """
    files: Files = {}
    for path in map(Path, texts):
        if path.name in files:
            raise TextError(f"texts: expected files of different names, found {path.name} twice")
        files[path.name] = path
    if not files:
        raise TextError("texts: expected at least one file, found none")
    return dict(sorted(files.items()))


def begin(
    out: str | Path, recipe: Recipe, files: Files, init: str | Path | None, tokenizer: str | Path | None = None
) -> Trainer:
    """Make the directory of a run with all that it begins with, its first state and model included; its trainer.

    The tokenizer is the one that is given, else that of `init`, else a new one, trained on the texts.

    The directory is built under a hidden name beside its place: what is wrong with texts, recipe or checkpoint leaves
    nothing, and what a process leaves that was killed meanwhile is cleared by the next one. Raises TrainingError for
    another run that is there, CheckpointError for anything else that is in the way, and as `pretrain` says.
    """
    if RunDirectory(out).exists:
        raise TrainingError(f"{out}: expected a new or empty directory, found a run; resume continues it")
    weights = _first_weights(recipe, init)
    with built_beside(Path(out), overwrite=False) as partial:
        directory = RunDirectory(partial)
        directory.write_json("recipe.json", recipe_as_json(recipe))
        directory.write_json("texts.json", _hashes(files))
        given = init if tokenizer is None else tokenizer
        if given is None:
            texts = [text for path in files.values() for text in read_texts(path)]
            train_tokenizer(texts, directory.tokenizer, recipe.model.vocab_size, recipe.model.max_position_embeddings)
        else:
            copy_tokenizer(Path(given), directory.tokenizer)
        trainer = Trainer(recipe, weights, _feed(directory, recipe, files))
        keep(directory, trainer)
    return trainer


def reopen(directory: RunDirectory, recipe: Recipe, files: Files) -> Trainer:
    """The trainer of a run that has begun, at its newest state.

    Raises TrainingError unless the directory holds a run of this recipe with these texts, and for a damaged one.
    """
    _check_same(directory, recipe, files)
    weights = new_model(recipe.model, recipe.seed, recipe.hc_scale).weights
    trainer = Trainer(recipe, weights, _feed(directory, recipe, files))
    restore(directory, trainer)
    return trainer


def _feed(directory: RunDirectory, recipe: Recipe, files: Files) -> TextFeed:
    tokenizer = Tokenizer.from_file(directory.tokenizer)
    if tokenizer.vocab_size > recipe.model.vocab_size:
        expected = f"at most vocab_size = {recipe.model.vocab_size} tokens"
        raise SettingError(f"tokenizer: expected {expected}, found {tokenizer.vocab_size}")
    return TextFeed(recipe, {name: read_documents(path, tokenizer) for name, path in files.items()})


def copy_tokenizer(source: Path, directory: Path) -> None:
    """Copy the files of a tokenizer from a directory to another. Raises TokenizerError for what is no tokenizer."""
    Tokenizer.from_file(source)  # what is wrong with it is said of its own place
    for name in TOKENIZER_FILES:
        if (source / name).exists():
            with replacing(directory / name) as temporary:
                temporary.write_bytes((source / name).read_bytes())


def _first_weights(recipe: Recipe, init: str | Path | None) -> Trainable:
    """Random ones, or those of a checkpoint, which must have the recipe's parameters."""
    if init is None:
        return new_model(recipe.model, recipe.seed, recipe.hc_scale).weights
    arrays = dict(Trainable.of(Checkpoint.open(init), np.float32).items())
    expected = {name: parameter.shape for name, parameter in parameters(recipe.model).items()}
    found: dict[str, Any] = {name: array.shape for name, array in arrays.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            shapes = f"shape {expected.get(name, 'none')}, found {found.get(name, 'none')}"
            raise TrainingError(f"{init}: tensor {quoted(name)}: expected the recipe's {shapes}")
    return Trainable.from_arrays(recipe.model, arrays)


def _hashes(files: Files) -> dict[str, str]:
    found = {}
    for name, path in files.items():
        regular_size(path, TextError, "a text file")
        try:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise TextError(f"{path}: expected a text file, found: {reason(error)}") from error
    return found


def _check_same(directory: RunDirectory, recipe: Recipe, files: Files) -> None:
    """Raise TrainingError unless the directory holds a run of this recipe with these texts."""
    place = directory.path / "recipe.json"
    begun = recipe_as_json(recipe_from_json(directory.read_json(place.name), str(place)))
    for key, value in recipe_as_json(recipe).items():
        if begun[key] != value:
            raise TrainingError(f"{directory.path}: expected a run with the same {key}, found {quoted(begun[key])}")
    known, found = directory.read_json("texts.json"), _hashes(files)
    if not isinstance(known, dict):
        file = directory.path / "texts.json"
        raise TrainingError(f"{file}: expected the hashes of texts by name, found {quoted(known)}")
    for name in sorted(known.keys() | found.keys()):
        if known.get(name) != found.get(name):
            what = "another text" if name in found else "no such file given"
            what = what if name in known else "a file that the run has not read"
            raise TrainingError(f"{directory.path}: expected the run's texts, found {what}: {quoted(name)}")
