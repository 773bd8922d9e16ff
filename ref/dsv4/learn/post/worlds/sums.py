"""Sums of two numbers below 100, and which of two numbers is larger."""

import numpy as np

from dsv4.learn.post.worlds.world import Task, World, asked, says

SLIPS = 0.2
"""Of the sums, those in which the example of mode "max" has a wrong result on paper, which its doubt then corrects:
from examples without a mistake one learns to say everything twice, and not to look again."""


def _draw(generator: np.random.Generator) -> Task:
    a, b = (int(one) for one in generator.integers(0, 100, 2))
    if generator.random() < 0.7 or a == b:
        wrong = generator.random(2) < SLIPS / 2
        return _sum(a, b, *(int(one) for one in wrong * generator.choice((-1, 1), 2)))
    return _comparison(a, b)


def _sum(a: int, b: int, slip_of_units: int, slip_of_tens: int) -> Task:
    """Thinks as it is done on paper: units first, then tens with what was carried. Doubts in smaller steps, the
    numbers exchanged. The slips are by how much the results on paper are wrong where they are to be."""
    (tens_of_a, units_of_a), (tens_of_b, units_of_b) = divmod(a, 10), divmod(b, 10)
    units, tens = units_of_a + units_of_b, tens_of_a + tens_of_b
    carried = units // 10

    def on_paper(wrong_units: int, wrong_tens: int) -> str:
        first = f"{units_of_a}+{units_of_b}={max(0, units + wrong_units)}"
        carry = "+1" if carried else ""
        return f"{first}, {tens_of_a}+{tens_of_b}{carry}={max(0, tens + carried + wrong_tens)}"

    again = f"; {units_of_b}+{units_of_a}={units}, {tens_of_b}+{tens_of_a}={tens}"
    doubt = again + (f", {tens}+1={tens + 1}" if carried else "")
    return Task(
        asked(f"What is {a}+{b}?"), str(a + b), on_paper(0, 0), doubt, slip=on_paper(slip_of_units, slip_of_tens)
    )


def _comparison(a: int, b: int) -> Task:
    sign = "<" if a < b else ">"
    other = ">" if a < b else "<"
    return Task(asked(f"Which is larger, {a} or {b}?"), str(max(a, b)), f"{a}{sign}{b}", f"; {b}{other}{a}")


SUMS = World("sums", _draw, says)
