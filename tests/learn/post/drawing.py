"""A tiny model that draws answers, and prompts of different lengths for it."""

import numpy as np

import tiny
from dsv4.learn.post.rollouts import Drawing, draw_rollouts
from dsv4.ops import Ops
from learn.runs import KilledError

PROMPTS = [tiny.tokens(seed, length, vocab=40) for seed, length in enumerate((5, 14, 9))]
DRAWING = Drawing(window=24, temperature=0.8, top_p=0.9, seed=3)
"""Long enough for the indexer to have to choose, and for keys to leave the window."""


def model(ops=None, dtype=np.float64, **changes):
    return tiny.model(ops or Ops(), dtype=dtype, **changes)


def draw(file, actor=None, drawing=DRAWING, prompts=PROMPTS, **settings):
    return draw_rollouts(actor or model(), prompts, drawing, file, **settings)


def killed_at(count):
    """A watcher that ends the process, so to speak, once so many tokens are drawn."""

    def watch(tokens):
        if tokens == count:
            raise KilledError

    return watch


def same(found, expected):
    """The same rollouts, to the last bit."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for part in ("prompt", "answer", "log_old"):
            np.testing.assert_array_equal(getattr(one, part), getattr(other, part))
        assert one.kept == other.kept
        for part in ("experts", "entries"):
            ours, theirs = getattr(one.choices, part), getattr(other.choices, part)
            assert ours.keys() == theirs.keys()
            for name, array in theirs.items():
                np.testing.assert_array_equal(ours[name], array)
