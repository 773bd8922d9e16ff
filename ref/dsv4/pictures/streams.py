"""A hyper-connection at work, drawn: how one token's streams feed a sub-layer and take its answer (report §2.2)."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from dsv4.model.model import Model
from dsv4.ops.types import Array
from dsv4.pictures.svg import WIDTH, Drawing, Theme, one_line

TOP, ROW = 152, 64
"""Where the first stream runs, and how far below it the next one."""

READ, MIX, MIXED, WRITE = 118, 318, 556, 604
"""From left to right: where a stream is read, where mixing begins and ends, where the answer is written."""

PER_ONE = 68
"""How long a bar of weight 1 is: `pre` goes up to 1, `post` up to 2."""

WIDEST = 24
"""How thick the line of a share of 1 is."""

SUBLAYERS: tuple[Literal["attn", "ffn"], ...] = ("attn", "ffn")

CELL = 62
"""The width of a number of the matrix."""


@dataclass(frozen=True)
class Mixing:
    """The mixing weights of one token in one hyper-connection."""

    layer: int
    sublayer: Literal["attn", "ffn"]
    position: int
    """Of the token in its text."""
    pre: Array
    """[n]"""
    post: Array
    """[n]"""
    comb: Array
    """[n, n]: comb[j, i] is the share of old stream j in new stream i."""


def strongest_mixing(model: Model, ids: npt.ArrayLike) -> Mixing:
    """Where the streams keep least of themselves in a pass over one text, of all its tokens and all hyper-connections.

    ids [S] integer token ids. Raises PromptError for ids that do not fit the model.
    """
    results: dict[str, Array] = {}
    to_numpy = model.ops.to_numpy
    model.states(np.asarray(ids)[None], observe=lambda name, result: results.update({name: to_numpy(result)[0]}))
    found = []
    for layer in range(model.config.num_hidden_layers):
        for sublayer in SUBLAYERS:
            name = f"layers.{layer}.hc_{sublayer}."
            kept = np.trace(results[f"{name}comb"], axis1=1, axis2=2)  # [S]
            position = int(kept.argmin())
            weights = (results[f"{name}{weight}"][position] for weight in ("pre", "post", "comb"))
            found.append((float(kept[position]), Mixing(layer, sublayer, position, *weights)))
    return min(found, key=lambda one: one[0])[1]


def draw_streams(mixing: Mixing, token: str, theme: Theme) -> Drawing:
    """One token's hyper-connection: what is read from each stream, how they are mixed, what each is given.

    token: its text.
    """
    n = len(mixing.pre)
    below = TOP + ROW * n
    what = {"attn": "attention", "ffn": "the experts"}[mixing.sublayer]
    title = f"A hyper-connection at work: layer {mixing.layer}, around {what}"
    drawing = Drawing("streams", theme, below + max(36 * n + 76, 160), title, _description(mixing, what))
    drawing.text(16, 38, title, 21, bold=True)
    words = f"The weights of token {mixing.position}, “{one_line(token, 12)}”, which it computes from its own streams."
    drawing.text(16, 64, words, 15)
    for x, words in ((READ, "pre: read"), (MIX, "comb: mixed with each other"), (WRITE, "post: written")):
        drawing.text(x, 104, words, 15, bold=True)
    _mix(drawing, mixing.comb)
    for number in range(n):
        _stream(drawing, number, float(mixing.pre[number]), float(mixing.post[number]))
    _sublayer(drawing, n, what)
    _matrix(drawing, mixing.comb, min(WIDTH - 16 - CELL * n, 696), below + 30)
    return drawing


def _stream(drawing: Drawing, number: int, pre: float, post: float) -> None:
    """One stream on its way from left to right, with the bar of what is read above it, and of what is written."""
    theme, y = drawing.theme, TOP + ROW * number
    shades = theme.hues["stream"]
    drawing.text(16, y + 5, f"stream {number}")
    drawing.path(f"M{READ} {y}H{MIX}", shades.line, 4)
    drawing.path(f"M{MIXED} {y}H{WIDTH - 130}", shades.line, 4)
    drawing.text(WIDTH - 118, y + 5, f"stream {number}′")
    for x, weight in ((READ + 10, pre), (WRITE + 10, post)):
        drawing.rect(x, y - 25, max(PER_ONE * weight, 1), 15, shades.full)
        drawing.text(x + PER_ONE * weight + 8, y - 12, f"{weight:.2f}")


def _mix(drawing: Drawing, comb: Array) -> None:
    """A line from each old stream to each new one, as thick as its share is large; the thick ones in front."""
    theme, n = drawing.theme, len(comb)
    lines = sorted((float(comb[j, i]), j, i) for j in range(n) for i in range(n))
    middle = (MIX + MIXED) / 2
    for share, j, i in lines:
        if share * WIDEST >= 0.1:
            start, end = TOP + ROW * j, TOP + ROW * i
            path = f"M{MIX} {start}C{middle} {start} {middle} {end} {MIXED} {end}"
            drawing.path(path, theme.shade("stream", 0.3 + 0.7 * share**0.5), WIDEST * share)


def _sublayer(drawing: Drawing, n: int, what: str) -> None:
    """The sub-layer below the streams, what leads into it, and what it answers."""
    theme = drawing.theme
    last, y = TOP + ROW * (n - 1), TOP + ROW * n + 44
    colour = theme.faint
    drawing.path(f"M{READ} {TOP - 25}V{y - 1}", colour, 1.6, arrow=True)
    drawing.path(f"M296 {y + 28}H{WRITE}V{TOP - 25}", colour, 1.6)
    for number in range(n):
        drawing.path(f"M{WRITE} {TOP + ROW * number - 17}h8", colour, 1.6)
        drawing.path(f"M{READ} {TOP + ROW * number - 17}h8", colour, 1.6)
    plain = theme.hues["plain"]
    drawing.rect(16, y, 280, 56, plain.fill, plain.line, 8)
    drawing.text(28, y + 23, f"F: {what}", 15.5, bold=True)
    drawing.text(28, y + 44, "takes Σ pre · stream", colour=theme.faint)
    drawing.text(16, y + 92, "stream i′ = Σ comb[j, i] · stream j + post[i] · answer", 15)
    drawing.text(308, y + 19, "the answer, weighted")
    drawing.text(READ + 10, last + 36, "their sum, weighted")


def _matrix(drawing: Drawing, comb: Array, x: float, y: float) -> None:
    """The numbers of `comb`: a row for each old stream, a column for each new one."""
    theme, n = drawing.theme, len(comb)
    drawing.text(x, y - 22, "comb: row old, column new", bold=True)
    for i in range(n):
        drawing.text(x + CELL * i + CELL / 2, y + 1, f"{i}′", anchor="middle", colour=theme.faint)
    for j in range(n):
        top = y + 12 + 36 * j
        drawing.text(x - 8, top + 22, str(j), anchor="end", colour=theme.faint)
        for i in range(n):
            share = float(comb[j, i])
            drawing.rect(x + CELL * i, top, CELL - 2, 34, theme.hues["stream"].fill, None, 3)
            drawing.rect(x + CELL * i, top + 29, (CELL - 2) * share, 5, theme.hues["stream"].full)
            drawing.text(x + CELL * i + CELL / 2, top + 22, f"{share:.2f}", anchor="middle")


def _description(mixing: Mixing, what: str) -> str:
    """The weights in words."""
    read = ", ".join(f"{weight:.2f}" for weight in mixing.pre)
    written = ", ".join(f"{weight:.2f}" for weight in mixing.post)
    kept = float(np.diagonal(mixing.comb).mean())
    return (
        f"{len(mixing.pre)} streams run from left to right. What {what} takes is their sum with the weights {read} "
        f"(pre). The answer is added to each stream with the weights {written} (post). The streams are mixed by a "
        f"matrix whose rows and columns sum to 1 (comb); on average each keeps {100 * kept:.0f} % of itself."
    )
