"""What the notebooks share: the source of a function, one style of picture, experiments and exercises.

Importing it sets the style of the pictures.
"""

import inspect
import textwrap
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Markdown, display
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path as Curve

import dsv4
from dsv4.learn.texts.plays import scenes
from dsv4.learn.texts.recall import RecallDocument, evaluation_plan, recall_documents

ROOT = Path(__file__).parents[1]
BLUE, ORANGE, GREEN, RED, PURPLE = "#3b6ea5", "#d98032", "#4f9a5b", "#b5413e", "#7a5c9e"
GREY, LIGHT, DARK = "#9a9a9a", "#e8e8e8", "#333333"

plt.rcParams.update(
    {
        "figure.dpi": 80,
        "figure.figsize": (9, 3.4),
        "figure.facecolor": "white",
        "figure.constrained_layout.use": True,
        "font.size": 10.5,
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
    }
)


def source(*things: Any) -> None:
    """Show the project's own code of functions, methods or classes, and the file that it stands in."""
    for thing in map(inspect.unwrap, things):  # of a decorated function, its own code
        file = Path(inspect.getsourcefile(thing)).relative_to(ROOT).as_posix()
        _display_code(file, textwrap.dedent(inspect.getsource(thing)))


def listing(file: str, start: str, stop: str | None = None) -> None:
    """Show a file of the repository from the line that begins with `start` to before the next that begins with `stop`.

    stop: None for the end of the file. Raises ValueError where there is no such line.
    """
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    first = _line(lines, start, 0)
    last = _line(lines, stop, first + 1) if stop else len(lines)
    _display_code(file, "\n".join(lines[first:last]))


def table(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """Show rows under a header; numbers with four digits."""
    lines = [_row(header), _row("---" for _ in header), *map(_row, rows)]
    display(Markdown("\n".join(lines)))


def experiment(
    expected: str, holds: Callable[[Any], bool], measured: Any, nulls: dict[str, Any], say: Callable[[Any], str]
) -> None:
    """Say what was expected and what was found, and that the same is not found in a null model.

    holds: whether a measurement is as expected; measured: that of V4; nulls: the same measurement where nothing of the
    kind should be found, such as with random scores, by name; say: a measurement in words.
    Raises AssertionError where the expectation does not hold, ValueError where it holds for a null model, too, or
    where there is none: such an experiment could not have failed.
    """
    if not nulls:
        raise ValueError("expected an experiment with a null model, found one with none")
    for name, null in nulls.items():
        if holds(null):
            raise ValueError(f"expected an experiment that fails for {name}, found one that holds: {say(null)}")
    if not holds(measured):
        raise AssertionError(f"expected: {expected}; found: {say(measured)}")
    controls = [f"**Null model**, {name}: {say(null)}. There it does not hold." for name, null in nulls.items()]
    display(Markdown("  \n".join([f"**Expected:** {expected}.", f"**Found:** {say(measured)}. It holds.", *controls])))


def exercise(right: Callable[[Any], bool], mistake: Any, hint: str) -> Callable[[Any], None]:
    """A question that checks its answer.

    right: whether an answer is right; mistake: a likely wrong answer, which must be refused; hint: what to say to one.
    Returns a function of the answer: with dots for an answer it says that the exercise is open.
    Raises AssertionError with the hint for a wrong answer.
    """
    if right(mistake):
        raise ValueError(f"expected an exercise that refuses {mistake!r}, found one that takes it")

    def check(answer: Any) -> None:
        if answer is ...:
            print("Open: put your answer in the place of the dots.")
            return
        if not right(answer):
            raise AssertionError(f"Not yet. {hint}")
        print("✓ Right.")

    return check


def passage(length: int, start: int = 0) -> np.ndarray:
    """Tokens [1, length] of The Tempest, a play that the bundled model has not read, from token number `start`."""
    text = (ROOT / "tests" / "data" / "eval" / "eval.txt").read_text(encoding="utf-8")
    ids = dsv4.Tokenizer.from_file(dsv4.bundled_model()).encode(text)
    return np.array([ids[start : start + length]])


def questions(length: int, count: int) -> list[RecallDocument]:
    """Documents of at most `length` tokens in which something said early is asked for late, the answers unheard of.

    Between the two goes on The Tempest, and the bundled model has never read a fact that a document tells of.
    """
    text = (ROOT / "tests" / "data" / "eval" / "eval.txt").read_text(encoding="utf-8")
    speeches = [[speech.text for scene in scenes(text) for speech in scene]]
    tokenizer = dsv4.Tokenizer.from_file(dsv4.bundled_model())
    return list(recall_documents(tokenizer, speeches, evaluation_plan(length), count, seed=0))


def observe(model: dsv4.Model, ids: np.ndarray) -> dict[str, np.ndarray]:
    """Everything that the model computes on the way from ids [B, S] to logits, by name; and the logits."""
    results: dict[str, np.ndarray] = {}
    results["logits"] = model(ids, observe=results.__setitem__)
    return results


def surprise(logits: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """The negative log-likelihood in nats of each token but the first: logits [B, S, vocab], ids [B, S] -> [B, S−1]."""
    scores = logits[:, :-1].astype(np.float64)
    scores -= scores.max(axis=-1, keepdims=True)
    came = np.take_along_axis(scores, ids[:, 1:, None], axis=-1)[..., 0]
    return np.log(np.exp(scores).sum(axis=-1)) - came


def heatmap(axes: plt.Axes, values: np.ndarray, label: str = "", **style: Any) -> None:
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


_HALF_WIDTH, _HALF_HEIGHT = 0.38, 0.27
"""Of a box, in columns and rows."""


def _draw_box(axes: plt.Axes, box: Box) -> None:
    corner = box.column - _HALF_WIDTH, box.row - _HALF_HEIGHT
    style = {"boxstyle": "round,pad=0,rounding_size=0.07", "facecolor": box.colour, "edgecolor": "none"}
    axes.add_patch(FancyBboxPatch(corner, 2 * _HALF_WIDTH, 2 * _HALF_HEIGHT, **style))
    axes.text(box.column, box.row, box.name, ha="center", va="center", color="white", fontsize=9, linespacing=1.1)
    below = box.below if isinstance(box.below, str) else " × ".join(map(str, box.below))
    axes.text(box.column, box.row + _HALF_HEIGHT + 0.05, below, ha="center", va="top", fontsize=8.5)


def _draw_arrow(axes: plt.Axes, start: Box, end: Box) -> None:
    """From the right side of one box to the left side of another; it leaves and arrives level."""
    left, right = start.column + _HALF_WIDTH, end.column - _HALF_WIDTH
    bend = min((right - left) / 2, 0.6)
    points = [(left, start.row), (left + bend, start.row), (right - bend, end.row), (right, end.row)]
    curve = Curve(points, [Curve.MOVETO, Curve.CURVE4, Curve.CURVE4, Curve.CURVE4])
    axes.add_patch(FancyArrowPatch(path=curve, arrowstyle="-|>", mutation_scale=9, color=GREY, linewidth=1.3, zorder=0))


def _display_code(file: str, code: str) -> None:
    language = "python" if file.endswith(".py") else "cpp"
    display(Markdown(f"[`{file}`](../{file})\n```{language}\n{code.rstrip()}\n```"))


def _line(lines: list[str], beginning: str, after: int) -> int:
    for number in range(after, len(lines)):
        if lines[number].startswith(beginning):
            return number
    raise ValueError(f"expected a line that begins with {beginning!r}, found none after line {after}")


def _row(cells: Iterable[Any]) -> str:
    words = (f"{cell:.4g}" if isinstance(cell, float | np.floating) else str(cell) for cell in cells)
    return "| " + " | ".join(words) + " |"
