"""Small training runs: a recipe of all stages, and texts for it."""

from dataclasses import replace

import numpy as np

import tiny
from dsv4.learn import Trainable
from dsv4.learn.recipe import Recipe, Stage
from dsv4.learn.texts.batches import Batch

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


def write_texts(directory):
    """Two text files of drawn words, the same each time."""
    paths = []
    for seed, name in enumerate(("plays.txt", "letters.txt")):
        words = np.random.default_rng(seed).choice(WORDS, 300)
        (directory / name).write_text(" ".join(words) + ".\n", encoding="utf-8")
        paths.append(directory / name)
    return paths


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
