"""Brackets to be closed, or to be found closed; and words to be said again by a rule."""

import numpy as np

from dsv4.learn.post.worlds.world import Task, World, asked, pick, says

PAIRS = {"(": ")", "[": "]", "{": "}"}
WORDS = ("red", "blue", "green", "white", "black")


def _draw(generator: np.random.Generator) -> Task:
    kind = generator.integers(3)
    return (_close, _balanced, _without)[kind](generator)


def _close(generator: np.random.Generator) -> Task:
    """An opening run of brackets, some of them closed already; what is open is closed from the inside."""
    text, open_ones = _run(generator)
    while not open_ones:
        text, open_ones = _run(generator)
    closing = " ".join(PAIRS[one] for one in reversed(open_ones))
    return Task(
        asked(f"Close: {' '.join(text)}"), closing, f"open {' '.join(open_ones)}", f"; {len(open_ones)} to close"
    )


def _balanced(generator: np.random.Generator) -> Task:
    text, open_ones = _run(generator)
    text = text + [PAIRS[one] for one in reversed(open_ones)]
    if generator.random() < 0.5:
        place = int(generator.integers(len(text)))
        text = [*text[:place], pick(generator, (*PAIRS, *PAIRS.values())), *text[place + 1 :]]
    answer = "yes" if is_balanced(text) else "no"
    count = f"{sum(one in PAIRS for one in text)} open, {sum(one not in PAIRS for one in text)} close"
    return Task(asked(f"Balanced? {' '.join(text)}"), answer, count, f"; so {answer}")


def _without(generator: np.random.Generator) -> Task:
    words = [pick(generator, WORDS) for _ in range(generator.integers(3, 7))]
    unwanted = words[0]
    left = [one for one in words if one != unwanted]
    answer = " ".join(left) or "nothing"
    steps = f"{len(words) - len(left)} {unwanted}"
    return Task(asked(f"Say without {unwanted}: {' '.join(words)}"), answer, steps, f"; {len(left)} left")


def _run(generator: np.random.Generator) -> tuple[list[str], list[str]]:
    """A few brackets in which none is closed by another kind, and those that are open at the end."""
    text: list[str] = []
    open_ones: list[str] = []
    for _ in range(generator.integers(2, 7)):
        if open_ones and generator.random() < 0.4:
            text.append(PAIRS[open_ones.pop()])
        else:
            open_ones.append(pick(generator, (*PAIRS,)))
            text.append(open_ones[-1])
    return text, open_ones


def is_balanced(text: list[str]) -> bool:
    """Whether each bracket is closed by its own kind, the inner ones first."""
    waiting: list[str] = []
    for one in text:
        if one in PAIRS:
            waiting.append(PAIRS[one])
        elif not waiting or waiting.pop() != one:
            return False
    return not waiting


RULES = World("rules", _draw, says)
