"""The pictures of the notebooks: one style, what a readable picture must have, and flows of boxes and arrows.

Importing it sets the style.
"""

import base64
import html
import io
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import display
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path as Curve
from matplotlib.text import Text
from PIL import Image

BLUE, ORANGE, GREEN, RED, PURPLE = "#3b6ea5", "#d98032", "#4f9a5b", "#b5413e", "#7a5c9e"
GREY, LIGHT, DARK = "#9a9a9a", "#e8e8e8", "#333333"

SMALLEST_TEXT = 10.0
"""Points of the smallest text in a picture: what can be read from a projector."""
SHORTEST_ALT = 60
"""Characters that an alternative text has at least: a title is none."""
PIXELS = 96
"""Of a browser, per inch: a text of 10 points in a picture is as large as one of 10 points beside it."""
SHARPNESS = 2
"""Pixels of a stored picture for each pixel of the page."""

plt.rcParams.update(
    {
        "figure.dpi": PIXELS,
        "figure.figsize": (9, 3.4),
        "figure.facecolor": "white",
        "figure.constrained_layout.use": True,
        "font.size": 10.5,
        "figure.labelsize": 10.5,
        "axes.titlesize": 11,
        "axes.titlelocation": "left",
        "axes.prop_cycle": plt.cycler(color=[BLUE, ORANGE, GREEN, RED, PURPLE, GREY]),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": GREY,
        "axes.labelcolor": DARK,
        "xtick.color": DARK,
        "ytick.color": DARK,
        "text.color": DARK,
        "legend.frameon": False,
        "lines.linewidth": 1.8,
        "image.cmap": "Blues",
        "image.interpolation": "nearest",
        "savefig.bbox": "tight",
        "savefig.pad_inches": 0.05,
        "svg.hashsalt": "dsv4",  # the same names in the file each time
    }
)


def picture(figure: Figure, alt: str) -> None:
    """Show a figure, and close it.

    alt: what the picture shows, in a sentence or two, for readers who cannot see it.
    It is shown as SVG, or as PNG of twice the resolution where that is smaller, in an HTML image: of all the ways to
    show a picture in a notebook this one keeps the alternative text in JupyterLab, in nbconvert and on the web.
    Raises ValueError for a picture that cannot be read well, and says why: see `faults`.
    """
    figure.canvas.draw()  # places the labels of ticks
    plt.close(figure)
    if found := faults(figure, alt):
        raise ValueError("picture: " + "; ".join(found))
    source, width = _stored(figure)
    image = f'<img alt="{html.escape(alt)}" width="{width}" src="{source}">'
    display({"text/html": image, "text/plain": alt}, raw=True)


def faults(figure: Figure, alt: str) -> list[str]:
    """What keeps a drawn figure from being read well: small text, axes without a label, lines without a legend."""
    found = []
    if len(alt) < SHORTEST_ALT or not alt.endswith("."):
        found.append(f"expected an alt text of at least {SHORTEST_ALT} characters, in sentences, found {alt!r}")
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip() and text.get_fontsize() < SMALLEST_TEXT:
            found.append(f"expected text of at least {SMALLEST_TEXT:g} points, found {text.get_text()!r} smaller")
    for number, axes in enumerate(figure.axes):
        if axes.axison:
            found += [f"expected a label of the {name} axis of axes {number}" for name in _without_label(figure, axes)]
        if _needs_legend(figure, axes):
            found.append(f"expected a legend for the lines of axes {number}")
    return found


def heatmap(axes: plt.Axes, values: np.ndarray, label: str, **style: Any) -> None:
    """A matrix [rows, columns] as a picture with a colour bar."""
    image = axes.imshow(values, aspect="auto", **style)
    bar = axes.figure.colorbar(image, ax=axes, label=label, pad=0.02)
    bar.outline.set_visible(False)
    axes.spines[:].set_visible(False)


class Box(NamedTuple):
    """A box of a flow: its name, what stands below it (a shape or words), and its place; rows count downwards."""

    name: str
    below: tuple[int, ...] | str
    colour: str
    column: float
    row: float


def flow(axes: plt.Axes, title: str, boxes: dict[str, Box], paths: Iterable[str]) -> None:
    """Boxes with arrows between them, from left to right.

    boxes: by key; paths: keys with arrows between them, such as "x → q → attention". What comes from one box branches,
    what leads to one box joins; an arrow that two paths share is drawn once.
    """
    columns, rows = ([place[axis] for place in boxes.values()] for axis in (3, 4))
    axes.set(xlim=(min(columns) - 0.5, max(columns) + 0.5), ylim=(max(rows) + 0.65, min(rows) - 0.4))
    axes.set_title(title)
    axes.axis("off")
    for box in boxes.values():
        _draw_box(axes, box)
    steps = (path.split(" → ") for path in paths)
    for start, end in sorted({step for keys in steps for step in pairwise(keys)}):
        _draw_arrow(axes, boxes[start], boxes[end])


_HALF_WIDTH, _HALF_HEIGHT = 0.4, 0.29
"""Of a box, in columns and rows."""


def _draw_box(axes: plt.Axes, box: Box) -> None:
    corner = box.column - _HALF_WIDTH, box.row - _HALF_HEIGHT
    style = {"boxstyle": "round,pad=0,rounding_size=0.07", "facecolor": box.colour, "edgecolor": "none"}
    axes.add_patch(FancyBboxPatch(corner, 2 * _HALF_WIDTH, 2 * _HALF_HEIGHT, **style))
    axes.text(box.column, box.row, box.name, ha="center", va="center", color="white", fontsize=10, linespacing=1.1)
    below = box.below if isinstance(box.below, str) else "\N{THIN SPACE}×\N{THIN SPACE}".join(map(str, box.below))
    axes.text(box.column, box.row + _HALF_HEIGHT + 0.05, below, ha="center", va="top", fontsize=10)


def _draw_arrow(axes: plt.Axes, start: Box, end: Box) -> None:
    """From the right side of one box to the left side of another; it leaves and arrives level."""
    left, right = start.column + _HALF_WIDTH, end.column - _HALF_WIDTH
    bend = min((right - left) / 2, 0.6)
    points = [(left, start.row), (left + bend, start.row), (right - bend, end.row), (right, end.row)]
    curve = Curve(points, [Curve.MOVETO, Curve.CURVE4, Curve.CURVE4, Curve.CURVE4])
    axes.add_patch(FancyArrowPatch(path=curve, arrowstyle="-|>", mutation_scale=9, color=GREY, linewidth=1.3, zorder=0))


def _without_label(figure: Figure, axes: plt.Axes) -> list[str]:
    """The axes, "x" or "y", whose ticks have labels, and which say nowhere what they count."""
    shared = {"x": figure.get_supxlabel(), "y": figure.get_supylabel()}
    return [
        name
        for name, axis in (("x", axes.xaxis), ("y", axes.yaxis))
        if any(tick.get_text() for tick in axis.get_ticklabels()) and not (axis.get_label_text() or shared[name])
    ]


def _needs_legend(figure: Figure, axes: plt.Axes) -> bool:
    """Whether there are several named things, or lines of several colours, and no legend or words that explain them."""
    if figure.legends or any(other.get_legend() for other in figure.axes):
        return False
    names = set(axes.get_legend_handles_labels()[1])
    colours = {str(line.get_color()) for line in axes.lines if len(line.get_xdata()) > 2}
    return len(names) > 1 or (not names and len(colours) > 1 and not axes.texts)


def _stored(figure: Figure) -> tuple[str, int]:
    """The picture as a data URL, and its width in pixels of a page."""
    svg, png = io.BytesIO(), io.BytesIO()
    figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    figure.savefig(png, format="png", dpi=SHARPNESS * PIXELS)
    image = Image.open(png).convert("RGB")
    image.quantize(256, dither=Image.Dither.NONE).save(small := io.BytesIO(), "png", optimize=True)
    kind, stored = min((("svg+xml", svg.getvalue()), ("png", small.getvalue())), key=lambda one: len(one[1]))
    return f"data:image/{kind};base64,{base64.b64encode(stored).decode()}", image.width // SHARPNESS
