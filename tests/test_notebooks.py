"""The notebooks: each runs from its source, and its .ipynb is that source with outputs (pytest -m notebooks)."""

import ast
import re
import resource
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.notebooks
pytest.importorskip("jupytext", reason="the extra `notebooks` is not installed")
pytest.importorskip("nbclient", reason="the extra `notebooks` is not installed")

import jupytext  # noqa: E402
import matplotlib.pyplot as plt  # noqa: E402
import nbformat  # noqa: E402
import numpy as np  # noqa: E402
from matplotlib.patches import FancyArrowPatch  # noqa: E402

from dsv4.text.tokenizer import Tokenizer  # noqa: E402

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


def markdown(notebook):
    """What the cells displayed as Markdown, as one text."""
    return "\n".join(output.get("data", {}).get("text/markdown", "") for output in outputs(notebook))


def listings(notebook):
    """The displayed listings of the project's code, as (file, language, code)."""
    return re.findall(r"^\[`(\S+)`\]\(\S+\)\n```(\w+)\n(.*?)\n```$", markdown(notebook), re.DOTALL | re.MULTILINE)


def calls(source, name):
    """The calls of show.<name> in a notebook's source."""
    nodes = ast.walk(ast.parse(source.read_text(encoding="utf-8")))
    return [node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func) == f"show.{name}"]


def stored(source):
    return nbformat.read(source.with_suffix(".ipynb"), as_version=4)


def test_they_are_numbered_from_one_and_the_readme_lists_each_in_order():
    listed = re.findall(r"^\| \[(\d+) .*\]\((\S+)\) \|", (NOTEBOOKS / "README.md").read_text("utf-8"), re.MULTILINE)
    assert [int(source.name[:2]) for source in SOURCES] == [int(number) for number, _ in listed]
    assert [source.with_suffix(".ipynb").name for source in SOURCES] == [name for _, name in listed]
    assert [int(number) for number, _ in listed] == list(range(1, len(listed) + 1))
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == {source.stem for source in SOURCES}


def processor_seconds_of_kernels():
    """What the kernels took that have ended: a busy machine makes a notebook late, and not longer."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime


@each
def test_it_runs(source):
    before = processor_seconds_of_kernels()
    notebook = execute.execute(source)  # raises where a cell fails
    assert 0 < processor_seconds_of_kernels() - before < execute.TIME_LIMIT
    assert len(pictures(notebook)) == len(pictures(stored(source)))
    assert printed(notebook).count("✓ Right.") == printed(stored(source)).count("✓ Right.")
    assert listings(notebook) == listings(stored(source)), "the code has changed: python notebooks/execute.py"


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
def test_every_listing_is_there_and_is_code_of_its_file(source):
    shown = listings(stored(source))
    assert len(shown) == sum(len(call.args) for call in calls(source, "source")) + len(calls(source, "listing")) > 0
    for file, language, code in shown:
        text = (NOTEBOOKS.parent / file).read_text(encoding="utf-8")
        assert textwrap.indent(code, "    ") in text or code in text, f"{file} has changed: python notebooks/execute.py"
        assert language == {".py": "python", ".cu": "cpp"}[Path(file).suffix]
        if language == "python":
            assert ast.parse(code).body


def test_there_are_many_listings():
    python = [file for source in SOURCES for file, language, _ in listings(stored(source)) if language == "python"]
    assert len(python) >= 40


@each
def test_every_experiment_has_a_null_model_and_stands_under_its_heading(source):
    shown, prose = markdown(stored(source)), [cell.source for cell in stored(source).cells]
    made = calls(source, "experiment")
    assert sum(text.count("## Experiment: ") for text in prose) == len(made) > 0
    assert (
        shown.count("**Expected:**")
        == len(re.findall(r"^\*\*Found:\*\* .* It holds\.", shown, re.MULTILINE))
        == len(made)
    )
    assert not re.search(r"It holds\.(?!  \n\*\*Null model\*\*)", shown)


@each
def test_it_has_an_equation_a_source_and_exercises_solved_and_open(source):
    notebook = stored(source)
    prose = "".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    exercises = len(calls(source, "exercise"))
    assert "$$" in prose
    assert any(file.startswith("ref/dsv4/") for file, _, _ in listings(notebook))
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


def experiment(measured, nulls):
    show.experiment("more than 3", lambda found: found > 3, measured, nulls, say=lambda found: f"it is {found}")


def test_an_experiment_says_what_was_found_and_what_a_null_model_gives(monkeypatch):
    shown = []
    monkeypatch.setattr(show, "display", lambda text: shown.append(text.data))
    experiment(4, {"nothing": 0, "noise": 3})
    assert shown == [
        "**Expected:** more than 3.  \n**Found:** it is 4. It holds.  \n"
        "**Null model**, nothing: it is 0. There it does not hold.  \n"
        "**Null model**, noise: it is 3. There it does not hold."
    ]


def test_an_experiment_that_fails_says_what_was_found():
    with pytest.raises(AssertionError, match="expected: more than 3; found: it is 2"):
        experiment(2, {"nothing": 0})


@pytest.mark.parametrize("measured", [4, 2])
def test_an_experiment_that_a_null_model_passes_is_refused(measured):
    with pytest.raises(ValueError, match="fails for noise, found one that holds: it is 5"):
        experiment(measured, {"nothing": 0, "noise": 5})


def test_an_experiment_without_a_null_model_is_refused():
    with pytest.raises(ValueError, match="found one with none"):
        experiment(4, {})


@pytest.fixture
def drawn():
    """A picture of one box that leads to two, which lead to one; and the arrows' ends."""
    figure, axes = plt.subplots()
    boxes = {
        "x": show.Box("x", (2, 3), "k", 0, 1),
        "q": show.Box("q", (5,), "k", 1, 0),
        "kv": show.Box("kv", "words", "k", 1, 2),
        "o": show.Box("o", "", "k", 2, 1),
    }
    show.flow(axes, "a title", boxes, ["x → q → o", "x → kv → o", "x → q"])
    figure.canvas.draw()
    yield axes
    plt.close(figure)


def test_a_flow_branches_and_joins(drawn):
    arrows = [patch for patch in drawn.patches if isinstance(patch, FancyArrowPatch)]
    ends = sorted(tuple(np.round(patch._path_original.vertices[[0, -1]], 6).ravel()) for patch in arrows)
    half = show._HALF_WIDTH
    right_of_x, left_of_o = (half, 1), (2 - half, 1)
    assert ends == sorted(
        [
            (*right_of_x, 1 - half, 0),
            (*right_of_x, 1 - half, 2),
            (1 + half, 0, *left_of_o),
            (1 + half, 2, *left_of_o),
        ]
    )


def test_a_flow_names_its_boxes_and_says_shapes_or_words_below(drawn):
    assert {text.get_text() for text in drawn.texts} == {"x", "2 × 3", "q", "5", "kv", "words", "o", ""}


def test_a_flow_of_a_box_that_is_not_there_is_refused(drawn):
    with pytest.raises(KeyError, match="'v'"):
        show.flow(drawn, "", {"x": show.Box("x", "", "k", 0, 0)}, ["x → v"])


def test_a_listing_of_a_method_is_python_as_it_stands(monkeypatch):
    shown = []
    monkeypatch.setattr(show, "display", lambda text: shown.append(text.data))
    show.source(Tokenizer.encode, Tokenizer)
    method, whole = (text.partition("```python\n")[2].removesuffix("\n```") for text in shown)
    assert ast.parse(method).body[0].name == "encode"
    assert textwrap.indent(method, "    ", lambda line: line.strip()) in whole
    assert shown[0].startswith("[`ref/dsv4/text/tokenizer.py`](../ref/dsv4/text/tokenizer.py)\n")
