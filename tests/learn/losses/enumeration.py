"""A world of three tokens and three steps, small enough that every answer in it can be gone through.

A policy is a table of logits: a row for each beginning of an answer. Nothing here uses a tape or a loss of the package.
"""

import itertools
from dataclasses import dataclass

import numpy as np

VOCAB, STEPS = 3, 3


@dataclass(frozen=True)
class World:
    """All answers, [N, STEPS] with −1 behind their ends, and the row of the table that each token is drawn from."""

    answers: np.ndarray
    rows: np.ndarray
    beginnings: int

    @property
    def drawn(self):
        return self.answers >= 0


def world(end=None):
    """Answers of three tokens, or of fewer that end with the token `end`."""
    beginnings = {start: number for number, start in enumerate(_beginnings(end))}
    answers = []
    for tokens in itertools.product(range(VOCAB), repeat=STEPS):
        length = tokens.index(end) + 1 if end in tokens else STEPS
        answers.append(tokens[:length])
    answers = sorted(set(answers))
    padded = np.array([answer + (-1,) * (STEPS - len(answer)) for answer in answers])
    rows = [[beginnings[answer[:t]] if t < len(answer) else 0 for t in range(STEPS)] for answer in answers]
    return World(padded, np.array(rows), len(beginnings))


def _beginnings(end):
    for length in range(STEPS):
        for start in itertools.product(range(VOCAB), repeat=length):
            if end not in start:
                yield start


def table(world, seed, scale=1.0):
    """The logits of a policy, [beginnings, VOCAB]."""
    return np.random.default_rng(seed).standard_normal((world.beginnings, VOCAB)) * scale


def log_table(logits):
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def log_tokens(world, logits):
    """log π of each token of each answer, [N, STEPS]; 0 behind the ends."""
    found = log_table(logits)[world.rows, world.answers]
    return np.where(world.drawn, found, 0)


def chances(world, logits):
    """How probable each answer is, [N]: they sum to 1."""
    return np.exp(log_tokens(world, logits).sum(axis=1))


def score(world, logits, answer, step):
    """∇ log π of one token by the table: 1 at the token, less the probabilities, in its row."""
    gradient = np.zeros_like(logits)
    row = world.rows[answer, step]
    gradient[row] = -np.exp(log_table(logits)[row])
    gradient[row, world.answers[answer, step]] += 1
    return gradient
