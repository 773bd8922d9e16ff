"""Who reads what, drawn: query × (window tokens | entries | sink) of one layer in a real forward pass."""

from collections.abc import Iterable
from math import sqrt
from typing import NamedTuple

import numpy as np

from dsv4.config import LAYER_KINDS, LayerKind
from dsv4.ops.types import Mask
from dsv4.pictures.shares import Float64, Shares
from dsv4.pictures.svg import WIDTH, Anchor, Drawing, Hue, Theme, one_line, text_width

ROWS = 84
"""At most so many queries are drawn; of a longer text every second, third … one."""

TOP, FULL_HEIGHT = 128, 504
"""Where the rows begin, and how high they are together."""

LEFT, RIGHT = 150, WIDTH - 16
SINK_WIDTH, SUM_WIDTH, GAP = 34, 168, 18

LEVELS, FULL_COLOUR = 8, 0.2
"""Shades of a share: from the fill of a hue, for next to nothing, to its full colour, for this share or more."""

HUES: dict[LayerKind, Hue] = {"SWA": "window", "CSA": "csa", "HCA": "hca"}

FILES: dict[LayerKind, str] = {"SWA": "window", "CSA": "csa", "HCA": "hca"}

NAMES: dict[LayerKind, str] = {"SWA": "window only", "CSA": "CSA", "HCA": "HCA"}

READS: dict[LayerKind, str] = {
    "SWA": "Its layer has no entries: what is further back than the window is not read.",
    "CSA": "Right: entries; each appears when its last token has come, and the indexer chooses among them.",
    "HCA": "Right: entries of 128 tokens; each appears when its last token has come, and all are read.",
}


class Panel(NamedTuple):
    """A part of the picture in which one token of the text is `step` wide."""

    x: float
    width: float
    step: float


def draw_mask(shares: Shares, tokens: list[str], theme: Theme) -> Drawing:
    """What each token of a text reads in one layer, and how much: the mean over the heads.

    tokens: the text of each of the S tokens. The shades have one scale for window, entries and sink; the bars at the
    right are the sums of each row, which fill the whole width.
    """
    length = len(tokens)
    stride = -(-length // ROWS)
    queries = np.arange(stride - 1, length, stride)
    height = FULL_HEIGHT / len(queries)
    title = f"Who reads what in layer {shares.layer} ({NAMES[shares.kind]})"
    drawing = Drawing(f"mask-{FILES[shares.kind]}", theme, 722, title, _description(shares, length))
    window, entries = _panels(shares, length)
    window_share, entry_share = shares.window.mean(axis=1), shares.entries.mean(axis=1)
    sink_share = shares.sink.mean(axis=1)
    rows = [(TOP + number * height, height, int(query)) for number, query in enumerate(queries)]
    _heading(drawing, title, stride, shares.sink.shape[1])
    cells = _Cells(drawing)
    for y, row_height, query in rows:
        reads = np.where(shares.in_window[query], window_share[query], np.nan)
        cells.add_row("window", window, 1, y, row_height, reads)
        if entries is not None:
            reads = np.where(shares.chosen[query], entry_share[query], np.nan)
            cells.add_row(HUES[shares.kind], entries, shares.ratio, y, row_height, reads)
            cells.add_refused(entries, shares.ratio, y, row_height, shares.visible[query] & ~shares.chosen[query])
        cells.add_row("sink", Panel(_sink_x(), SINK_WIDTH, SINK_WIDTH), 1, y, row_height, sink_share[query : query + 1])
    _grounds(drawing, window, entries)
    cells.draw()
    _sums(drawing, rows, window_share.sum(axis=1), entry_share.sum(axis=1), HUES[shares.kind])
    _query_labels(drawing, rows, tokens)
    _columns(drawing, shares, window, entries, length)
    _key(drawing, shares)
    return drawing


class _Cells:
    """The shaded cells of a picture, gathered by colour so that each colour is one shape."""

    def __init__(self, drawing: Drawing) -> None:
        self.drawing = drawing
        self.by_colour: dict[str, list[tuple[float, float, float, float]]] = {}

    def add_row(self, hue: Hue, panel: Panel, width: int, y: float, height: float, shares: Float64) -> None:
        """One row of a panel: a cell for each share, `width` tokens wide; NaN leaves its place empty."""
        levels = [-1 if np.isnan(share) else _level(share) for share in shares]
        start = 0
        for place in range(1, len(levels) + 1):
            if place == len(levels) or levels[place] != levels[start]:  # a run of equal shades is one cell
                if levels[start] >= 0:
                    colour = self.drawing.theme.shade(hue, levels[start] / (LEVELS - 1))
                    x, run = panel.x + start * width * panel.step, (place - start) * width * panel.step
                    self.by_colour.setdefault(colour, []).append((x, y, run, height))
                start = place

    def add_refused(self, panel: Panel, width: int, y: float, height: float, refused: Mask) -> None:
        """The entries of one row that the indexer refused."""
        step = width * panel.step
        cells = [(panel.x + place * step, y, step, height) for place in np.flatnonzero(refused)]
        self.by_colour.setdefault(_refused_colour(self.drawing.theme), []).extend(cells)

    def draw(self) -> None:
        for colour in sorted(self.by_colour):
            self.drawing.cells(self.by_colour[colour], colour)


def _level(share: float) -> int:
    """The shade of a share, by its square root: small shares differ more than large ones."""
    return round(sqrt(min(share / FULL_COLOUR, 1)) * (LEVELS - 1))


def _refused_colour(theme: Theme) -> str:
    return theme.shade("sink", 0.35)


def _sink_x() -> float:
    return RIGHT - SUM_WIDTH - GAP - SINK_WIDTH


def _panels(shares: Shares, length: int) -> tuple[Panel, Panel | None]:
    """The panels of window tokens and of entries; a layer that does not compress has none of the second kind."""
    room = _sink_x() - GAP - LEFT
    if not shares.ratio:
        return Panel(LEFT, room, room / length), None
    width = (room - GAP) / 2
    return Panel(LEFT, width, width / length), Panel(LEFT + width + GAP, width, width / length)


def _heading(drawing: Drawing, title: str, stride: int, heads: int) -> None:
    ordinal = {1: "", 2: "other ", 3: "3rd "}.get(stride, f"{stride}th ")
    drawing.text(16, 38, title, 21, bold=True)
    words = f"Row: every {ordinal}token of a text. Column: what it may read."
    drawing.text(16, 64, f"{words} Stronger: a larger share (mean of {heads} heads).", 15)


def _grounds(drawing: Drawing, window: Panel, entries: Panel | None) -> None:
    for panel in (window, entries, Panel(_sink_x(), SINK_WIDTH, 1), Panel(RIGHT - SUM_WIDTH, SUM_WIDTH, 1)):
        if panel:
            drawing.rect(panel.x, TOP, panel.width, FULL_HEIGHT, drawing.theme.panel)


def _sums(drawing: Drawing, rows: list[tuple[float, float, int]], window: Float64, entries: Float64, hue: Hue) -> None:
    """The sum of each row: window, entries and, up to the whole width, the sink."""
    theme, x = drawing.theme, RIGHT - SUM_WIDTH
    drawing.rect(x, TOP, SUM_WIDTH, FULL_HEIGHT, drawing.hatch)
    drawing.cells([(x, y, SUM_WIDTH * window[query], height) for y, height, query in rows], theme.hues["window"].full)
    if hue != "window":
        cells = [
            (x + SUM_WIDTH * window[query], y, SUM_WIDTH * entries[query], height)
            for y, height, query in rows
            if entries[query] > 0
        ]
        drawing.cells(cells, theme.hues[hue].full)


def _query_labels(drawing: Drawing, rows: list[tuple[float, float, int]], tokens: list[str]) -> None:
    """Position and text of some queries."""
    for y, height, query in _spread(rows, 9):
        drawing.text(LEFT - 10, y + height / 2 + 5, str(query), anchor="end", colour=drawing.theme.faint)
        drawing.text(16, y + height / 2 + 5, one_line(tokens[query], 9), mono=True)


def _spread(rows: list[tuple[float, float, int]], count: int) -> list[tuple[float, float, int]]:
    """So many of the rows at most, at equal distances from the first to the last."""
    places = np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int)
    return [rows[place] for place in places]


def _columns(drawing: Drawing, shares: Shares, window: Panel, entries: Panel | None, length: int) -> None:
    """What each panel is, above it; and the positions of the text, below it."""
    headings = [(window.x, "window tokens"), (_sink_x(), "sink"), (RIGHT - SUM_WIDTH, "the whole: 100 %")]
    if entries:
        headings.insert(1, (entries.x, f"{shares.kind} entries"))
    for x, words in headings:
        drawing.text(x, TOP - 12, words, 15, bold=True)
    y = TOP + FULL_HEIGHT
    for panel in (window, entries):
        if panel:
            for position in _ticks(length, panel.width):
                x = panel.x + position * panel.step
                drawing.path(f"M{x:.2f} {y}v5", drawing.theme.faint, 1)
                anchor: Anchor = "start" if position == 0 else "middle"
                drawing.text(x, y + 21, str(position), anchor=anchor, colour=drawing.theme.faint)
    drawing.text(LEFT - 10, y + 21, "position", anchor="end", colour=drawing.theme.faint)


def _ticks(length: int, width: float) -> Iterable[int]:
    """Round positions, far enough from each other and from the right end."""
    step = next(step for step in (10, 20, 40, 50, 100, 200, 500, 1000, 10**9) if step / length * width >= 55)
    return range(0, int(length * (1 - 18 / width)), step)


def _key(drawing: Drawing, shares: Shares) -> None:
    """The shades with what they stand for, and the grey of entries that the indexer refused."""
    theme, y = drawing.theme, 696
    x: float = 52
    hues: tuple[Hue, ...] = ("window",) if shares.kind == "SWA" else ("window", HUES[shares.kind])
    drawing.text(16, y, "0 %")
    for hue in hues:
        for level in range(LEVELS):
            drawing.rect(x + 15 * level, y - 13, 15.5, 16, theme.shade(hue, level / (LEVELS - 1)))
        x += 15 * LEVELS + 8
    words = f"{100 * FULL_COLOUR:.0f} % or more"
    drawing.text(x, y, words)
    drawing.rect(RIGHT - SUM_WIDTH, y - 13, 20, 16, drawing.hatch)
    drawing.text(RIGHT - SUM_WIDTH + 28, y, "the sink's share")
    if (shares.visible & ~shares.chosen).any():
        x += text_width(words, 15) + 40
        drawing.rect(x, y - 13, 20, 16, _refused_colour(theme))
        drawing.text(x + 28, y, "refused by the indexer")


def _description(shares: Shares, length: int) -> str:
    """What is to be seen, with the sums of this pass."""
    reading = {name: 100 * float(share.mean(axis=1).sum(axis=-1).mean()) for name, share in _parts(shares)}
    sums = ", ".join(f"{share:.1f} % to {name}" for name, share in reading.items())
    return (
        f"A forward pass over {length} tokens. Left: the window, a band that moves on with the query. "
        f"{READS[shares.kind]} On average {sums} and {100 * float(shares.sink.mean()):.1f} % to the sink."
    )


def _parts(shares: Shares) -> Iterable[tuple[str, Float64]]:
    yield "the window", shares.window
    if LAYER_KINDS[shares.ratio] != "SWA":
        yield "entries", shares.entries
