"""What the notebooks share: the source of a function, one style of picture, experiments and exercises.

Importing it sets the style of the pictures.
"""

import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Markdown, display

import dsv4
from dsv4.tokenizer import Tokenizer

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
    """Show the project's own code of functions, methods or classes, and where it stands."""
    for thing in things:
        lines, first = inspect.getsourcelines(thing)
        file = Path(inspect.getsourcefile(thing)).relative_to(ROOT)
        code = inspect.cleandoc("".join(lines))
        display(Markdown(f"`{file}`, line {first}\n```python\n{code}\n```"))


def listing(file: str, start: str, stop: str | None = None) -> None:
    """Show a file of the repository from the line that begins with `start` to before the next that begins with `stop`.

    stop: None for the end of the file. Raises ValueError where there is no such line.
    """
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    first = _line(lines, start, 0)
    last = _line(lines, stop, first + 1) if stop else len(lines)
    code = "\n".join(lines[first:last]).rstrip()
    language = "python" if file.endswith(".py") else "cpp"
    display(Markdown(f"`{file}`, line {first + 1}\n```{language}\n{code}\n```"))


def table(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """Show rows under a header; numbers with four digits."""
    lines = [_row(header), _row("---" for _ in header), *map(_row, rows)]
    display(Markdown("\n".join(lines)))


def experiment(expected: str, holds: bool, found: str) -> None:
    """Say what was expected and what was found. Raises AssertionError where the expectation does not hold."""
    if not holds:
        raise AssertionError(f"expected: {expected}; found: {found}")
    display(Markdown(f"**Expected:** {expected}.  \n**Found:** {found}. It holds."))


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
    ids = Tokenizer.from_file(dsv4.bundled_model()).encode(text)
    return np.array([ids[start : start + length]])


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


def flow(axes: plt.Axes, title: str, steps: Iterable[tuple[str, Any, str]]) -> None:
    """Boxes from left to right with arrows between them: (name, what stands below it, colour)."""
    steps = list(steps)
    axes.set(xlim=(-0.5, len(steps) - 0.5), ylim=(-0.8, 0.6))
    axes.set_title(title)
    axes.axis("off")
    for place, (name, below, colour) in enumerate(steps):
        box = {"boxstyle": "round,pad=0.45", "facecolor": colour, "edgecolor": "none"}
        axes.text(place, 0.1, name, ha="center", va="center", color="white", bbox=box, fontsize=10)
        axes.text(place, -0.5, below, ha="center", va="center", fontsize=9.5)
        if place:
            arrow = {"arrowstyle": "->", "color": GREY, "linewidth": 1.4}
            axes.annotate("", (place - 0.36, 0.1), (place - 0.64, 0.1), arrowprops=arrow)


def _line(lines: list[str], beginning: str, after: int) -> int:
    for number in range(after, len(lines)):
        if lines[number].startswith(beginning):
            return number
    raise ValueError(f"expected a line that begins with {beginning!r}, found none after line {after}")


def _row(cells: Iterable[Any]) -> str:
    words = (f"{cell:.4g}" if isinstance(cell, float | np.floating) else str(cell) for cell in cells)
    return "| " + " | ".join(words) + " |"
