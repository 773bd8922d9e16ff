"""What stale index keys make a layer of V4.1 read, drawn: the released decode loop beside what own keys choose."""

from typing import NamedTuple

from dsv4.ops.types import Ints
from dsv4.pictures.svg import WIDTH, Drawing, Theme

LEFT, RIGHT = 120, 780
"""Where the entries begin and end."""

TOP, ROW = 348, 19
"""Where the first step stands, and how high a step is."""

TOKENS, EXAMPLE = 12, 4
"""So many tokens show what keys stand for, and the number of the key that is an example of it."""


class Choices(NamedTuple):
    """Which entries a source chose in the steps of one decoded text, with its own keys and with stale ones."""

    layer: int
    """The source, whose entry j is made of tokens j·ratio … j·ratio + ratio − 1."""
    last: int
    """The last source, of ratio 1, whose keys it finds where it has completed no entry."""
    ratio: int
    first: int
    """The position of the first step's token."""
    own: Ints
    """[steps, k] entry numbers, −1 for none."""
    released: Ints
    """[steps, k] of the released loop."""


def draw_stale_keys(choices: Choices, theme: Theme) -> Drawing:
    """What a key stands for in two sources; below it each step's choice, right, left out, or made by stale keys."""
    layer, last, steps = choices.layer, choices.last, len(choices.own)
    title = f"Layer {layer} chooses entries by the keys of layer {last}"
    found = _found(choices)
    description = (
        f"Top: {TOKENS} tokens, the keys of layer {layer} above them, one for {choices.ratio} tokens, and the keys of "
        f"layer {last} below, one for each. Bottom: {steps} steps of decoding. Every second step completes an entry, "
        f"scores its own keys and reads what it must; the steps between score the keys of layer {last}. {found}"
    )
    drawing = Drawing("stale-keys", theme, TOP + steps * ROW + 96, title, description)
    drawing.text(16, 38, title, 21, bold=True)
    words = "In the released decode loop, where a token completes no entry. A prompt is scored rightly."
    drawing.text(16, 64, words, 15)
    _meaning(drawing, choices)
    _steps(drawing, choices)
    _key(drawing, choices, found)
    return drawing


def _is_fresh(choices: Choices, step: int) -> bool:
    """Whether the step's token completes an entry, so that the source hands its own keys on."""
    return (choices.first + step + 1) % choices.ratio == 0


def _sets(choices: Choices, step: int) -> tuple[set[int], set[int]]:
    """The entries that a step must read, and those that the released loop reads."""
    own, released = (set(one[step].tolist()) - {-1} for one in (choices.own, choices.released))
    return own, released


def _found(choices: Choices) -> str:
    """How many entries are chosen rightly: the fewest of a step with own keys, and the mean with stale ones."""
    right = [len(set.intersection(*_sets(choices, step))) for step in range(len(choices.own))]
    fresh = [count for step, count in enumerate(right) if _is_fresh(choices, step)]
    stale = [count for step, count in enumerate(right) if not _is_fresh(choices, step)]
    k, mean = choices.own.shape[1], sum(stale) / len(stale)
    return f"Own keys: {min(fresh)} of {k} as they must be. Stale keys: {mean:.1f} of {k} on average."


def _meaning(drawing: Drawing, choices: Choices) -> None:
    """Tokens between the keys of both sources; one key of each, of the same number, stands out."""
    step = (WIDTH - LEFT - 16) / TOKENS
    rows = [(f"layer {choices.layer}", choices.ratio, "key "), ("tokens", 1, ""), (f"layer {choices.last}", 1, "key ")]
    drawing.text(16, 104, "What key j stands for", 16, bold=True)
    for number, (label, width, word) in enumerate(rows):
        y = 118 + 38 * number
        drawing.text(16, y + 21, label)
        for place in range(TOKENS // width):
            shades = drawing.theme.hues["csa" if word else "plain"]
            fill = drawing.theme.shade("csa", 0.4) if word and place == EXAMPLE else shades.fill
            x = LEFT + place * width * step
            drawing.rect(x + 1.5, y, width * step - 3, 32, fill, shades.line, 4, 1)
            drawing.text(x + width * step / 2, y + 21, f"{word}{place}", anchor="middle")
    tokens = " and ".join(str(EXAMPLE * choices.ratio + place) for place in range(choices.ratio))
    words = f"Key {EXAMPLE} of layer {choices.layer} stands for tokens {tokens}"
    drawing.text(16, 250, f"{words}, key {EXAMPLE} of layer {choices.last} for token {EXAMPLE}:", 15)
    drawing.text(16, 271, "stale keys choose by other tokens, from about half as far back.", 15)


def _steps(drawing: Drawing, choices: Choices) -> None:
    """A row for each step: its token, the entries, and whose keys it scores."""
    theme, steps = drawing.theme, len(choices.own)
    last = choices.first + steps - 1
    width = (RIGHT - LEFT) / ((last + 1) // choices.ratio)
    drawing.text(16, TOP - 40, f"The {choices.own.shape[1]} entries that each step reads", 16, bold=True)
    for x, words in ((16, "step t"), (LEFT, f"entries of layer {choices.layer}"), (RIGHT + 20, "scored keys")):
        drawing.text(x, TOP - 10, words, 15, bold=True)
    colours = _colours(theme)
    cells: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in colours}
    for step in range(steps):
        t, y = choices.first + step, TOP + step * ROW
        own, released = _sets(choices, step)
        drawing.rect(LEFT, y, (t + 1) // choices.ratio * width, ROW - 1, theme.panel)
        for name, entries in (("right", own & released), ("left out", own - released), ("stale", released - own)):
            cells[name] += [(LEFT + entry * width, y, width - 1, ROW - 1) for entry in sorted(entries)]
        keys = f"its own, {(t + 1) // choices.ratio} keys" if _is_fresh(choices, step) else f"of layer {choices.last}"
        drawing.text(16, y + 14, f"t = {t}")
        drawing.text(RIGHT + 20, y + 14, keys, colour=theme.ink if _is_fresh(choices, step) else theme.faint)
    for name, colour in colours.items():
        drawing.cells(cells[name], colour)
    for entry in range(0, (last + 1) // choices.ratio, 10):
        middle = LEFT + (entry + 0.5) * width
        drawing.text(middle, TOP + steps * ROW + 18, str(entry), anchor="middle", colour=theme.faint)


def _colours(theme: Theme) -> dict[str, str]:
    """Of the cells: what is read as it must be, what is left out, and what stale keys made the step read instead."""
    return {"right": theme.hues["csa"].full, "left out": theme.shade("csa", 0.3), "stale": theme.faint}


def _key(drawing: Drawing, choices: Choices, found: str) -> None:
    y = TOP + len(choices.own) * ROW + 46
    words = {"right": "read, as it must be", "left out": "must be read, and is not", "stale": "read instead"}
    x = 16.0
    for name, colour in _colours(drawing.theme).items():
        drawing.rect(x, y - 13, 20, 16, colour)
        drawing.text(x + 28, y, words[name])
        x += 290
    drawing.text(16, y + 28, found, 15)
