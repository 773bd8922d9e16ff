"""The notebooks: each runs from its source, and its .ipynb is that source with outputs (pytest -m notebooks)."""

import ast
import base64
import io
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
import nbformat  # noqa: E402
from PIL import Image  # noqa: E402
from traitlets.config import Config  # noqa: E402

from images import images  # noqa: E402

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
sys.path.insert(0, str(NOTEBOOKS))

import drawing  # noqa: E402
import execute  # noqa: E402

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
    """The attributes of the images that cells displayed: alt, width, src."""
    return images("".join(output.get("data", {}).get("text/html", "") for output in outputs(notebook)))


def is_placeholder(node):
    """Whether a call is `exercise_1(...)`, to be answered by the reader."""
    return ast.unparse(node.func).startswith("exercise_") and [ast.unparse(one) for one in node.args] == ["..."]


def should_be_folded(code):
    """Whether a cell draws a picture, makes an exercise or answers one."""
    made = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    names = {ast.unparse(node.func) for node in made}
    answers = any(name.startswith("exercise_") for name in names) and not any(map(is_placeholder, made))
    return bool(names & {"show.picture", "show.exercise", "show.write"}) or answers


def markdown(notebook):
    """What the cells displayed as Markdown, as one text."""
    return "\n".join(output.get("data", {}).get("text/markdown", "") for output in outputs(notebook))


def listings(notebook):
    """The displayed listings of the project's code, as (file, language, code)."""
    listing = r"^\[`(\S+)`\]\(\S+\)\n\n<samp>\n\n```(\w+)\n(.*?)\n```\n\n</samp>$"
    return re.findall(listing, markdown(notebook), re.DOTALL | re.MULTILINE)


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
    written = [(cell.cell_type, cell.source, execute.is_folded(cell)) for cell in jupytext.read(source).cells]
    assert [(cell.cell_type, cell.source, execute.is_folded(cell)) for cell in stored(source).cells] == written


@each
def test_it_begins_with_minutes_what_to_read_before_and_what_to_know(source):
    title, needs = stored(source).cells[0].source.split("\n\n")[:2]
    needs, number = needs.replace("\n", " "), int(source.name[:2])
    found = re.fullmatch(r"\*\*Minutes:\*\* (\d+) · \*\*Read before:\*\* (.+) · \*\*You should know:\*\* (.+)\.", needs)
    assert title.startswith(f"# {number} · ")
    assert found, f"expected a line of minutes, what to read before and what to know, found {needs!r}"
    before = re.findall(r"\[(\d+)\]\((\S+)\)", found[2])
    assert found[2] == ", ".join(f"[{one}]({name})" for one, name in before) or found[2] == "nothing"
    for one, name in before:
        assert int(one) < number
        assert (NOTEBOOKS / name).name.startswith(f"{int(one):02}_")
        assert (NOTEBOOKS / name).exists()


@each
def test_its_minutes_suffice_to_read_it(source):
    """Reading 200 words of text and 25 lines of visible code in a minute, and one minute for each exercise."""
    cells = stored(source).cells
    minutes = int(re.search(r"\*\*Minutes:\*\* (\d+)", cells[0].source)[1])
    texts = [re.sub(r"!\[[^]]*\]\(\S+\)", "", cell.source) for cell in cells if cell.cell_type == "markdown"]
    words = sum(len(text.split()) for text in texts)
    lines = sum(
        cell.source.count("\n") + 1 for cell in cells if cell.cell_type == "code" and not execute.is_folded(cell)
    )
    exercises = len(calls(source, "exercise")) + 3 * len(calls(source, "write"))
    needed = words / 200 + lines / 25 + exercises
    assert needed <= minutes <= 3 * needed


def test_the_first_takes_ten_minutes_and_begins_with_the_architecture():
    first = stored(SOURCES[0]).cells[0].source
    assert "**Minutes:** 10 " in first
    alt, picture = re.search(r"!\[([^]]+)\]\((\S+)\)", first).groups()
    assert len(alt) >= drawing.SHORTEST_ALT
    assert (NOTEBOOKS / picture).resolve() == NOTEBOOKS.parent / "docs" / "pictures" / "architecture-light.svg"


@each
def test_cells_that_draw_check_or_solve_are_folded_and_those_for_the_reader_are_not(source):
    for cell in stored(source).cells:
        if cell.cell_type != "code":
            continue
        nodes = list(ast.walk(ast.parse(cell.source)))
        assert cell.metadata == (
            {"tags": ["hide-input"], "jupyter": {"source_hidden": True}} if execute.is_folded(cell) else {}
        )
        assert execute.is_folded(cell) or not should_be_folded(cell.source), f"to be folded:\n{cell.source}"
        if any(isinstance(node, ast.Call) and is_placeholder(node) for node in nodes):
            assert not execute.is_folded(cell), f"the reader is to see this:\n{cell.source}"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ('show.picture(figure, "A line.")', True),
        ("exercise_1 = show.exercise(right, 3, 'Think.')", True),
        ("exercise_2 = show.write(show.properties('rope'), {}, '')", True),
        ("exercise_1(4)\nexercise_2(solution)", True),
        ("def f(x): ...\n\n\nexercise_2(...)", False),
        ("picture = 3 * exercises", False),
    ],
)
def test_what_should_be_folded(code, expected):
    assert should_be_folded(code) is expected


@each
def test_as_a_page_it_shows_the_pictures_with_their_texts_and_not_the_folded_code(source):
    unfolded = {"TagRemovePreprocessor": {"enabled": True, "remove_input_tags": {execute.FOLDED}}}
    exporter = pytest.importorskip("nbconvert").HTMLExporter(config=Config(unfolded))
    page, _ = exporter.from_notebook_node(stored(source))
    text = re.sub(r"<[^>]+>", "", page)
    assert "show.picture" not in text
    assert "exercise_1(...)" in text
    fixed_width = re.findall(r'<samp>\s*<div class="highlight"><pre>', page)
    assert len(fixed_width) == len(listings(stored(source))), "listings need the letters of code"
    alts = [image["alt"] for image in images(page) if image["src"].startswith("data:")]
    assert alts == [picture["alt"] for picture in pictures(stored(source))]


@each
def test_its_pictures_are_sharp_and_have_a_text(source):
    notebook = stored(source)
    shown = pictures(notebook)
    assert len(shown) == len(calls(source, "picture")) > 0
    assert not [output for output in outputs(notebook) if any("image/" in kind for kind in output.get("data", {}))]
    assert len({picture["alt"] for picture in shown}) == len(shown)
    for picture in shown:
        assert len(picture["alt"]) >= drawing.SHORTEST_ALT
        kind, data = re.fullmatch(r"data:image/(svg\+xml|png);base64,(\S+)", picture["src"]).groups()
        if kind == "png":
            width = Image.open(io.BytesIO(base64.b64decode(data))).width
            assert width // drawing.SHARPNESS == int(picture["width"])


@each
def test_hints_and_solutions_are_hidden_until_asked_for(source):
    notebook = stored(source)
    hints = re.findall(r"^<details><summary>Hint</summary>\n\n(.+)\n\n</details>$", markdown(notebook), re.MULTILINE)
    assert len(hints) == len(calls(source, "exercise")) + len(calls(source, "write"))
    [solutions] = [cell.source for cell in notebook.cells if "## Solutions" in cell.source]
    assert re.fullmatch(
        r"## Solutions\n<details><summary>Solutions</summary>\n\n.+\n\n</details>", solutions, re.DOTALL
    )


@each
def test_the_reader_writes_a_function_and_wrong_versions_are_refused(source):
    written = calls(source, "write")
    assert written
    notes = [cell.source for cell in stored(source).cells if cell.cell_type == "code"]
    for call in written:
        [name] = [
            note.split(" = show.write")[0].rpartition("\n")[2]
            for note in notes
            if ast.unparse(call) in ast.unparse(ast.parse(note))
        ]
        [given] = [note for note in notes if f"{name}(...)" in note]
        [function] = [node for node in ast.parse(given).body if isinstance(node, ast.FunctionDef)]
        assert ast.get_docstring(function)
        assert len(function.body) == 1, f"expected {function.name} with a docstring alone, for the reader to write"
    wrong = sum(len(keyword.value.keys) for call in written for keyword in call.keywords if keyword.arg == "wrong")
    assert len(re.findall(r"^A wrong version, .+: .+\.$", printed(stored(source)), re.MULTILINE)) == wrong > 0


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
    exercises = len(calls(source, "exercise")) + len(calls(source, "write"))
    assert "$$" in prose
    assert any(file.startswith("ref/dsv4/") for file, _, _ in listings(notebook))
    assert exercises >= 3
    assert printed(notebook).count("Open:") == printed(notebook).count("✓ Right.") == exercises
