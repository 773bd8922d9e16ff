"""The documentation keeps its word: the index of equations is complete, and its examples give what they show."""

import doctest
import importlib.util
import re
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
EXAMPLES = [page for page in PAGES if "```pycon\n" in page.read_text(encoding="utf-8")]


def load_equations():
    spec = importlib.util.spec_from_file_location("equations", DOCS / "equations.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def equations():
    return load_equations()


@pytest.fixture(scope="module")
def functions(equations):
    return equations.index()


@pytest.mark.parametrize("number", range(1, 29))
def test_every_equation_has_a_function_and_a_test_that_fails_without_it(equations, functions, number):
    citing = [function for function in functions if number in function.equations]
    assert citing, f"no docstring of a public function cites equation {number}"
    proven = [test for function in citing for test, fails in function.tests.items() if fails]
    assert proven, f"no mutant of a function that cites equation {number} is killed by a test"


def test_every_function_that_cites_an_equation_has_a_test(functions):
    assert [function.path for function in functions if not function.tests] == []


def test_no_equation_is_cited_that_is_not_in_the_index(equations, functions):
    assert {number for function in functions for number in function.equations} <= equations.EQUATIONS.keys()


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("Source: report eq. 16; the ReLU", [16]),
        ("Source: report §2.2 eq. 3–5, 8; code: eq", [3, 4, 5, 8]),
        ("eq. 11–12 (CSA), eq. 22–23 (HCA)", [11, 12, 22, 23]),
        ("over a\n    line: eq.\n    1, 27", [1, 27]),
        ("freq. 12, equation 3, section 4", []),
    ],
)
def test_citations_are_read(equations, docstring, expected):
    assert equations.cited(docstring) == expected


def test_a_test_is_found_by_what_it_calls_itself_or_through_a_helper(equations, tmp_path, monkeypatch):
    monkeypatch.setattr(equations, "TESTS", tmp_path)
    path = tmp_path / "test_example.py"
    path.write_text(
        "from dsv4.ops.mhc import sinkhorn\n"
        "def helper(ops):\n    return ops.rope(1)\n"
        "def test_direct(ops):\n    hold(ops, 'top_k', 1)\n"
        "def test_through_a_helper(ops):\n    helper(ops)\n"
        "def test_by_import():\n    sinkhorn(1)\n"
        "def test_of_nothing(other):\n    other.rope('hadamard')\n",
        encoding="utf-8",
    )
    found = {test.name: {name for name in names if name.startswith("dsv4.")} for test, names in equations.calls(path)}
    assert found == {
        "test_direct": {"dsv4.ops.indexer.top_k"},
        "test_through_a_helper": {"dsv4.ops.rope.rope"},
        "test_by_import": {"dsv4.ops.mhc.sinkhorn"},
        "test_of_nothing": set(),
    }


@pytest.mark.parametrize("page", EXAMPLES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_examples_give_what_they_show(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = page.read_text(encoding="utf-8")
    blocks = re.finditer(r"```pycon\n(.*?)```", text, re.DOTALL)
    lines = [""] * text.count("\n")
    for block in blocks:  # each at its own line, so that a failure names it
        first = text[: block.start(1)].count("\n")
        content = block[1].splitlines()
        lines[first : first + len(content)] = content
    test = doctest.DocTestParser().get_doctest("\n".join(lines), {}, page.name, str(page), 0)
    report: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = doctest.DocTestRunner(verbose=False).run(test, out=report.append)
    assert result.attempted > 0
    assert result.failed == 0, "".join(report)


def test_every_module_is_on_a_page_of_the_api():
    """All of the package but its command and its bench, which are no interface of Python."""
    shown = set(re.findall(r"^::: (dsv4\.\S+)$", "\n".join(page.read_text("utf-8") for page in PAGES), re.MULTILINE))
    files = (path.relative_to(ROOT / "ref").with_suffix("") for path in (ROOT / "ref/dsv4").rglob("*.py"))
    parts = [path.parts for path in files]
    packages = {".".join(names[:-1]) for names in parts if names[-1] == "__init__"}
    modules = {".".join(names) for names in parts if names[-1] != "__init__"}
    assert {
        name for name in modules if not name.startswith(("dsv4.bench", "dsv4.cli", "dsv4.__main__"))
    } == shown - packages


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / ".mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    listed = re.findall(r"(\S+\.md)$", navigation, re.MULTILINE)
    assert sorted(listed) == sorted([*(page.relative_to(DOCS).as_posix() for page in PAGES), "equations.md"])
