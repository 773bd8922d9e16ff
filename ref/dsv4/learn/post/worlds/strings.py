"""Letters to be reversed or sorted. They stand apart, so that each is a token."""

import numpy as np

from dsv4.learn.post.worlds.world import Task, World, asked, says

LETTERS = "abcdefgh"


def _draw(generator: np.random.Generator) -> Task:
    letters = [LETTERS[one] for one in generator.integers(0, len(LETTERS), generator.integers(3, 6))]
    text = " ".join(letters)
    if generator.random() < 0.5:
        steps = ", ".join(f"last {one}" for one in letters[::-1])
        return Task(asked(f"Reverse: {text}"), " ".join(letters[::-1]), steps, f"; first {letters[0]}")
    steps = ", ".join(f"{one} {letters.count(one)}" for one in sorted(set(letters)))
    return Task(asked(f"Sort: {text}"), " ".join(sorted(letters)), steps, f"; all {len(letters)}")


STRINGS = World("strings", _draw, says)
