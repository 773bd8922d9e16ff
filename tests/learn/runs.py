"""Small training runs: a recipe of all stages, texts for it, and what a run leaves."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

import tiny
from dsv4.learn import Trainable
from dsv4.learn.recipe import Recipe, Stage
from dsv4.learn.run_directory import RunDirectory
from dsv4.learn.texts.batches import Batch
from dsv4.learn.trainer import Trainer

MODEL = tiny.config(
    vocab_size=300, max_position_embeddings=256, hidden_size=32, moe_intermediate_size=32, quantised=True
)
"""The tiny model with a vocabulary for a tokenizer, control tokens, bytes and a few merges, and widths for FP4."""

WORDS = ["rose", "thorn", "crown", "sword", "night", "storm", "friend", "letter", "duke", "queen", "ghost", "raven"]

RECIPE = Recipe(
    model=MODEL,
    stages=(
        Stage("dense", 4, 16, 4),
        Stage("indexer", 2, 32, 2),
        Stage("sparse", 3, 32, 3),
        Stage("decay", 3, 48, 2),
    ),
    learning_rate=0.01,
    final_learning_rate=0.001,
    warmup_steps=2,
    checkpoint_interval=2,
    bias_speed=0.01,
)


def trainable(seed=0, **changes):
    """A tiny model's weights in float64."""
    return Trainable.of(tiny.checkpoint(seed, **changes), np.float64)


def recipe(**changes) -> Recipe:
    return replace(RECIPE, **changes)


def short(steps: int = 2, **changes) -> Recipe:
    """Of the quickest stage alone."""
    return recipe(stages=(Stage("dense", steps, 16, 2),), **changes)


def write_texts(directory):
    """Two text files of drawn words, the same each time."""
    paths = []
    for seed, name in enumerate(("plays.txt", "letters.txt")):
        words = np.random.default_rng(seed).choice(WORDS, 300)
        (directory / name).write_text(" ".join(words) + ".\n", encoding="utf-8")
        paths.append(directory / name)
    return paths


class KilledError(Exception):
    """Stands for a process that ends without another word."""


def killed(*_, **__):
    raise KilledError


def killed_after(step: int, seen: list[int] | None = None):
    """A watcher that ends the run after a step; seen: takes the steps that it was called for."""

    def watch(report, seconds):
        if seen is not None:
            seen.append(report.step)
        if report.step == step:
            raise KilledError

    return watch


def final(directory: Path) -> dict[str, np.ndarray]:
    """The last state of a run, everything that changes, and how many lines its log had."""
    run = RunDirectory(directory)
    state, lines = run.load_state(run.newest())
    return state | {"lines": np.array(lines)}


def same_bits(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def model_bytes(directory: Path) -> dict[str, bytes]:
    """The files of a run's model."""
    return {file.name: file.read_bytes() for file in (directory / "model").iterdir() if not file.name.startswith(".")}


def log_of(directory: Path) -> list[dict]:
    """Without the times."""
    return [
        {key: value for key, value in json.loads(line).items() if key != "seconds"}
        for line in (directory / "log.jsonl").read_text().splitlines()
    ]


def assert_same_run(found: Path, expected: Path) -> None:
    """States, log and model."""
    same_bits(final(found), final(expected))
    assert log_of(found) == log_of(expected)
    assert RunDirectory(found).steps() == RunDirectory(expected).steps()
    assert model_bytes(found) == model_bytes(expected)


def leap(monkeypatch, loss_of) -> None:
    """Let the loss leap. loss_of: a function of the trainer and the step: the loss in place of the found one, or None.

    It must be a function of the trainer's state, so that a resumed run meets the same leaps.
    """
    original = Trainer._gradients

    def leaping(self, now, number):
        found, loss = original(self, now, number), loss_of(self, number)
        return found if loss is None else found._replace(losses=found.losses | {"next_token": loss})

    monkeypatch.setattr(Trainer, "_gradients", leaping)


class Drawn:
    """A feed of short sequences in which each token says what the next one is, but for one in five."""

    def __init__(self, batch=4, length=24, vocab=40, shuffled=False):
        self.batch_size, self.length, self.vocab, self.shuffled = batch, length, vocab, shuffled

    def batch(self, step):
        g = np.random.default_rng(step)
        ids = np.empty((self.batch_size, self.length), np.int64)
        ids[:, 0] = g.integers(0, self.vocab, self.batch_size)
        for place in range(1, self.length):
            surprise = g.random(self.batch_size) < 0.2
            drawn = g.integers(0, self.vocab, self.batch_size)
            ids[:, place] = np.where(surprise, drawn, (5 * ids[:, place - 1] + 3) % self.vocab)
        if self.shuffled:
            ids = g.permuted(ids, axis=1)
        return Batch(ids, np.ones_like(ids, bool))
