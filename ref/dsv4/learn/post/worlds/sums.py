"""Sums of two numbers below 100, and which of two numbers is larger."""

import numpy as np

from dsv4.learn.post.worlds.world import Task, World, asked, says


def _draw(generator: np.random.Generator) -> Task:
    a, b = (int(one) for one in generator.integers(0, 100, 2))
    return _sum(a, b) if generator.random() < 0.7 or a == b else _comparison(a, b)


def _sum(a: int, b: int) -> Task:
    """Thinks as it is done on paper: units first, then tens with what was carried."""
    units = a % 10 + b % 10
    carried = f"+{units // 10}" if units > 9 else ""
    tens = a // 10 + b // 10 + units // 10
    on_paper = f"{a % 10}+{b % 10}={units}, {a // 10}+{b // 10}{carried}={tens}"
    return Task(asked(f"What is {a}+{b}?"), str(a + b), on_paper, f"; {a + b}-{b}={a}")


def _comparison(a: int, b: int) -> Task:
    sign = "<" if a < b else ">"
    other = ">" if a < b else "<"
    return Task(asked(f"Which is larger, {a} or {b}?"), str(max(a, b)), f"{a}{sign}{b}", f"; {b}{other}{a}")


SUMS = World("sums", _draw, says)
