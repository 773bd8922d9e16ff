"""What the notebooks share: the source of a function, pictures, experiments and exercises.

Importing it sets the style of the pictures.
"""

import inspect
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from IPython.display import Markdown, display

import dsv4
from drawing import BLUE, DARK, GREEN, GREY, LIGHT, ORANGE, PURPLE, RED, Box, flow, heatmap, picture
from dsv4.learn.texts.plays import scenes
from dsv4.learn.texts.recall import RecallDocument, evaluation_plan, recall_documents

ROOT = Path(__file__).parents[1]

__all__ = [
    "BLUE",
    "DARK",
    "GREEN",
    "GREY",
    "LIGHT",
    "ORANGE",
    "PURPLE",
    "RED",
    "ROOT",
    "Box",
    "exercise",
    "experiment",
    "flow",
    "heatmap",
    "listing",
    "observe",
    "passage",
    "picture",
    "properties",
    "questions",
    "source",
    "surprise",
    "table",
    "write",
]

Verdict = tuple[bool, str]
"""Whether a function is right, and what was found, in words; the first line alone is the short form."""


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
            _leave_open(hint)
            return
        if not right(answer):
            raise AssertionError(f"Not yet. {hint}")
        print("✓ Right.")

    return check


def write(
    verdict: Callable[[Callable[..., Any]], Verdict], wrong: dict[str, Callable[..., Any]], hint: str
) -> Callable[[Any], None]:
    """A function that the reader writes.

    verdict: of a function, such as `properties` makes one; wrong: likely wrong versions by name, which must be refused:
    the null models; hint: what to say before the first attempt, to those who ask, and after a wrong one.
    Returns a function of the reader's function, which says that the exercise is open where it gets dots.
    Raises ValueError for a wrong version that is taken, or where there is none; the returned function raises
    AssertionError with the hint and the report for a function that is not right.
    """
    if not wrong:
        raise ValueError("expected an exercise with a wrong version, found one with none")
    refused = {name: verdict(function) for name, function in wrong.items()}
    for name, (passed, report) in refused.items():
        if passed:
            raise ValueError(f"expected an exercise that refuses {name}, found one that takes it: {report}")

    def check(function: Any) -> None:
        if function is ...:
            _leave_open(hint)
            return
        passed, report = verdict(function)
        if not passed:
            raise AssertionError(f"Not yet. {hint}\n{report}")
        nulls = [f"A wrong version, {name}: {words.splitlines()[0]}." for name, (_, words) in refused.items()]
        print("\n".join(["✓ Right.", report, "", *nulls]))

    return check


def properties(operation: str) -> Callable[[Callable[..., Any]], Verdict]:
    """The project's own properties of an operation, as a verdict on a function: what `dsv4.check` finds."""

    def verdict(function: Callable[..., Any]) -> Verdict:
        report = dsv4.check(function, operation)
        return report.passed, str(report)

    return verdict


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


def _leave_open(hint: str) -> None:
    """Say that an exercise has no answer yet; the hint is hidden until the reader asks for it."""
    print("Open: put your answer in the place of the dots.")
    display(Markdown(f"<details><summary>Hint</summary>\n\n{hint}\n\n</details>"))


def _display_code(file: str, code: str) -> None:
    """<samp>: pages made by nbconvert give a listing among the outputs the letters of what stands around it."""
    language = "python" if file.endswith(".py") else "cpp"
    listing = f"```{language}\n{code.rstrip()}\n```"
    display(Markdown(f"[`{file}`](../{file})\n\n<samp>\n\n{listing}\n\n</samp>"))


def _line(lines: list[str], beginning: str, after: int) -> int:
    for number in range(after, len(lines)):
        if lines[number].startswith(beginning):
            return number
    raise ValueError(f"expected a line that begins with {beginning!r}, found none after line {after}")


def _row(cells: Iterable[Any]) -> str:
    words = (f"{cell:.4g}" if isinstance(cell, float | np.floating) else str(cell) for cell in cells)
    return "| " + " | ".join(words) + " |"
