"""`dsv4 verify` for a model of V4.1, whose files of results hold several texts."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from dsv4.cli.ending import say
from dsv4.cli.judging import Compared
from dsv4.cli.progress import progress
from dsv4.config41 import Config41
from dsv4.errors import SettingError
from dsv4.loading import load
from dsv4.model41.model import Model41
from dsv4.ops.types import Ints
from dsv4.verify import Results, write_results
from dsv4.verify41 import compare41, differences41, trace41
from dsv4.verify41_file import Text, read_results41


class Models(NamedTuple):
    """The checkpoint, and how to load it."""

    directory: Path
    config: Config41
    backend: str
    against: str | None
    """Another backend to compare with."""
    fake_quant: str

    def load(self, backend: str, token_classes: Ints | None) -> Model41:
        """The model on a backend."""
        model = load(self.directory, backend, self.fake_quant, token_classes=token_classes)
        assert isinstance(model, Model41)
        return model


def verify41(models: Models, texts: list[Text], expected: Path | None, save: Path | None) -> Compared | None:
    """Compare with another backend or with stored results; None where results were saved.

    texts: none with `expected`, which has its own. Raises SettingError for both at once.
    """
    if expected and texts:
        raise SettingError(f"--ids: expected none with --expected for a model of V4.1: {expected} has the texts")
    stored, known = read_results41(expected, models.config) if expected else ({}, texts)
    classes = _classes(models, stored, is_test_case=expected is None)
    loaded = models.load(models.backend, classes)
    with progress("verifying") as report:
        if models.against is not None:
            return Compared(compare41(loaded, models.load(models.against, classes), known, report), loaded.rounds)
        results = trace41(loaded, known, stored, report)
    if save:
        write_results(save, results)
        print(f"wrote {save}: {len(results)} results")
        return None
    return Compared(differences41(results, stored, known, models.config), loaded.rounds)


def _classes(models: Models, stored: Results, is_test_case: bool) -> Ints | None:
    """The classes of the tokens of a model without a tokenizer: the file's, which are then nothing to compare.

    Random weights, as `dsv4 random` writes them, need no tokenizer: any classes will do, and are saved as well.
    """
    engram = models.config.engram
    if engram is None or (models.directory / "tokenizer.json").exists():
        return None
    if is_test_case:
        count = engram.compressed_vocab_size
        say(f"{models.directory}: no tokenizer.json: token classes are made up, each id modulo {count}")
        return np.arange(models.config.vocab_size) % count
    return stored.pop("engram.token_map", None)
