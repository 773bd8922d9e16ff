"""The notebooks: each runs from its source, and its .ipynb is that source with outputs (pytest -m notebooks)."""

import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.notebooks
pytest.importorskip("jupytext", reason="the extra `notebooks` is not installed")
pytest.importorskip("nbclient", reason="the extra `notebooks` is not installed")

import jupytext  # noqa: E402
import nbformat  # noqa: E402

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
sys.path.insert(0, str(NOTEBOOKS))

import execute  # noqa: E402
import show  # noqa: E402

LARGEST = 300_000
"""Bytes that a notebook may have with its outputs."""

SOURCES = execute.sources()
each = pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)


def outputs(notebook):
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def printed(notebook):
    """What the cells printed, as one text."""
    return "".join(output.get("text", "") for output in outputs(notebook))


def pictures(notebook):
    return [output for output in outputs(notebook) if "image/png" in output.get("data", {})]


def stored(source):
    return nbformat.read(source.with_suffix(".ipynb"), as_version=4)


def test_there_are_twelve_numbered_from_one():
    assert [int(source.name[:2]) for source in SOURCES] == list(range(1, 13))


@each
def test_it_runs(source):
    start = time.perf_counter()
    notebook = execute.execute(source)  # raises where a cell fails
    assert time.perf_counter() - start < execute.TIME_LIMIT
    assert len(pictures(notebook)) == len(pictures(stored(source)))
    assert printed(notebook).count("✓ Right.") == printed(stored(source)).count("✓ Right.")


@each
def test_the_stored_notebook_is_its_source(source):
    written = [(cell.cell_type, cell.source) for cell in jupytext.read(source).cells]
    assert [(cell.cell_type, cell.source) for cell in stored(source).cells] == written


@each
def test_the_stored_notebook_has_outputs_without_errors_and_is_small(source):
    notebook = stored(source)
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    assert not [output for output in outputs(notebook) if output.output_type == "error"]
    assert pictures(notebook)
    assert source.with_suffix(".ipynb").stat().st_size < LARGEST


@each
def test_it_has_an_equation_a_source_an_experiment_and_exercises_solved_and_open(source):
    notebook = stored(source)
    prose = "".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    shown = "".join(output.get("data", {}).get("text/markdown", "") for output in outputs(notebook))
    exercises = sum(cell.source.count("= show.exercise(") for cell in notebook.cells)
    assert "$$" in prose
    assert "`ref/dsv4/" in shown
    assert "**Expected:**" in shown
    assert exercises >= 2
    assert printed(notebook).count("Open:") == printed(notebook).count("✓ Right.") == exercises


def test_an_exercise_takes_right_answers_only(capsys):
    check = show.exercise(lambda answer: answer == 4, mistake=5, hint="Count again.")
    check(...)
    check(4)
    assert capsys.readouterr().out == "Open: put your answer in the place of the dots.\n✓ Right.\n"
    with pytest.raises(AssertionError, match="Count again"):
        check(3)


def test_an_exercise_that_takes_a_mistake_is_refused():
    with pytest.raises(ValueError, match="refuses 5"):
        show.exercise(lambda answer: answer > 3, mistake=5, hint="")


def test_an_experiment_that_fails_says_what_was_found():
    with pytest.raises(AssertionError, match="expected: more; found: less"):
        show.experiment("more", False, "less")
