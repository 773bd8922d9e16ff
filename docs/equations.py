"""The index of the report's equations: equation → function → test, and back. Of V4.1's report it is one of sections.

Nothing here is a list of functions or tests. Which function computes an equation is what its docstring says
("Source: report eq. 16", "Source: V4.1's report §2.4.2"). Which tests hold it is found in the tests themselves: they
call it by name, or the catalogue of mutants says that they fail when a mistake is made inside it.

    python docs/equations.py    # writes docs/equations.md
"""

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "equations.md"
SOURCE = ROOT / "ref"
TESTS = ROOT / "tests"

EQUATIONS = {
    1: ("§2.2", "X′ = B X + C F(A X): a sub-layer F inside its hyper-connection"),
    2: ("§2.2", "B is doubly stochastic: no entry below 0, each row and each column sums to 1"),
    3: ("§2.2", "the raw input mapping: a scale times the projected, normalised streams, plus a base"),
    4: ("§2.2", "the raw residual mapping, likewise"),
    5: ("§2.2", "the raw output mapping, likewise"),
    6: ("§2.2", "A = σ(raw A); here `pre`"),
    7: ("§2.2", "C = 2σ(raw C); here `post`"),
    8: ("§2.2", "B by Sinkhorn: columns and rows of exp(raw B) normalised in turn; here `comb`"),
    9: ("§2.3.1", "Cᵃ, Cᵇ = H W: two series of candidate entries"),
    10: ("§2.3.1", "Zᵃ, Zᵇ = H W: two series of scores"),
    11: ("§2.3.1", "S: a softmax over the 2m slots of an entry, channel by channel, of scores plus position bias"),
    12: ("§2.3.1", "an entry of CSA: Σ S ⊙ C over its 2m slots"),
    13: ("§2.3.1", "the latent of the queries, c = h W"),
    14: ("§2.3.1", "the indexer's queries from that latent"),
    15: ("§2.3.1", "the indexer's weight of each head"),
    16: ("§2.3.1", "index score: Σ_h weight_h · ReLU(query_h · key)"),
    17: ("§2.3.1", "the top-k entries by index score"),
    18: ("§2.3.1", "attention's queries from the latent"),
    19: ("§2.3.1", "attention over the chosen entries, which are keys and values"),
    20: ("§2.3.2", "C = H W: the candidate entries of HCA"),
    21: ("§2.3.2", "Z = H W: their scores"),
    22: ("§2.3.2", "S: a softmax over the m′ slots of an entry, channel by channel, of scores plus position bias"),
    23: ("§2.3.2", "an entry of HCA: Σ S ⊙ C over its m′ slots"),
    24: ("§2.3.2", "the latent of the queries in HCA"),
    25: ("§2.3.2", "the queries of HCA from that latent"),
    26: ("§2.3.2", "attention over all visible entries"),
    27: ("§2.3.3", "the sink: exp(sink_h) joins the denominator of the softmax"),
    28: ("§2.4", "Newton–Schulz: X ← aX + b(XXᵀ)X + c(XXᵀ)²X, the heart of Muon"),
}
"""Section and content of each numbered equation of the report's architecture, in this project's words."""

SECTIONS_41 = {
    "§2.3.1": "entries and index keys that layers share, and a choice that they share: Full, Reindex, Reuse",
    "§2.3.2": "the pool: blocks of entries that one layer finds, and later ones choose in",
    "§2.4.1": "X′ = B X + C F(A X) with A of the sub-layer before: single-pass hyper-connections, equation 6 there",
    "§2.4.2": "Engram: rows of a table that the last tokens name, mixed into the streams",
    "§2.4.4": "entries in FP4 with scales in E4M3, after their rotation",
}
"""What the sections of V4.1's report that change the model are about, in this project's words."""

_CITED_41 = re.compile(r"\bV4\.1's report (§\d+(?:\.\d+)*(?:, §\d+(?:\.\d+)*)*)")

_CITED = re.compile(r"\beq\.\s+(\d+(?:–\d+)?(?:,\s+\d+(?:–\d+)?)*)")


@dataclass(order=True)
class Function:
    """A public function or class whose docstring cites equations, or sections of V4.1's report."""

    path: str
    """Where it can be imported from: dsv4.ops.indexer.index_scores."""
    file: str
    """Below ref/dsv4."""
    lines: set[int]
    """Its lines, and those of the private functions of its file that it uses."""
    equations: list[int]
    sections: list[str]
    """Of V4.1's report."""
    tests: dict["Test", bool] = field(default_factory=dict)
    """The tests that hold it; true for those that are known to fail when it is wrong."""

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]


@dataclass(frozen=True, order=True)
class Test:
    """A test function."""

    file: str
    """Below tests."""
    line: int
    name: str


def index() -> list[Function]:
    """Every function that cites an equation or a section, with the tests that hold it."""
    functions = [function for path in sorted((SOURCE / "dsv4").rglob("*.py")) for function in sorted(citing(path))]
    tests = [test for path in sorted(TESTS.rglob("test_*.py")) for test in calls(path)]
    by_node = {(test.file, test.name): test for test, _ in tests}
    for function in functions:
        proven = {by_node[node] for node in killers(function) if node in by_node}
        named = {test for test, names in tests if function.path in names}
        function.tests = {test: test in proven for test in sorted(proven | named)}
    return functions


def cited(docstring: str) -> list[int]:
    """The numbers in "eq. 3–5, 8"."""
    numbers = []
    for run in _CITED.findall(" ".join(docstring.split())):
        for part in run.split(", "):
            first, _, last = part.partition("–")
            numbers += range(int(first), int(last or first) + 1)
    return sorted(set(numbers))


def cited_41(docstring: str) -> list[str]:
    """The sections in "V4.1's report §2.3.1, §2.4.2" that the index has."""
    sections = [section for run in _CITED_41.findall(" ".join(docstring.split())) for section in run.split(", ")]
    return [section for section in SECTIONS_41 if section in sections]


def citing(path: Path) -> Iterator[Function]:
    """The public functions and classes of a source file whose docstrings cite equations or sections."""
    module = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
    nodes = ast.parse(path.read_text(encoding="utf-8")).body
    parts = {node.name: node for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    private = {name: set(_called(node, {})) for name, node in parts.items() if name.startswith("_")}
    for name in parts.keys() - private.keys():
        docstring = ast.get_docstring(parts[name]) or ""
        equations, sections = cited(docstring), cited_41(docstring)
        if equations or sections:
            used = _reached(name, private | {name: set(_called(parts[name], {}))})
            lines = {line for one in used for line in range(parts[one].lineno, (parts[one].end_lineno or 0) + 1)}
            file = path.relative_to(SOURCE / "dsv4").as_posix()
            yield Function(f"{module}.{name}", file, lines, equations, sections)


def calls(path: Path) -> list[tuple[Test, set[str]]]:
    """Each test of a file, and the import paths of what it calls, itself or through functions of the same file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    imported = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dsv4"):
            imported |= {name.asname or name.name: f"{node.module}.{name.name}" for name in node.names}
    names = {name: set(_called(node, imported)) for name, node in functions.items()}
    file = path.relative_to(TESTS).as_posix()
    return [
        (Test(file, node.lineno, name), set().union(*(names[one] for one in _reached(name, names))))
        for name, node in functions.items()
        if name.startswith("test_")
    ]


def killers(function: Function) -> Iterator[tuple[str, str]]:
    """The tests, as (file, name), that fail when a mutant makes its mistake inside this function."""
    for mutant in _mutants():
        if (mutant.package, mutant.file) == ("dsv4", function.file):
            source = (SOURCE / "dsv4" / function.file).read_text(encoding="utf-8")
            line = source[: source.index(mutant.old) + len(mutant.old) - len(mutant.old.lstrip())].count("\n") + 1
            if line in function.lines:
                yield from (tuple(node.partition("[")[0].split("::")) for node in mutant.tests if "::" in node)


def _called(node: ast.AST, imported: dict[str, str]) -> Iterator[str]:
    """What a function calls: `ops.name(…)`, `hold(ops, "name", …)`, or a name that it imports from dsv4."""
    for child in ast.walk(node):
        match child:
            case ast.Attribute(value=ast.Name(id="ops" | "Ops"), attr=name):
                yield _OPERATIONS.get(name, name)
            case ast.Call(func=ast.Name(id="hold"), args=[_, ast.Constant(value=str(name)), *_]):
                yield _OPERATIONS.get(name, name)
            case ast.Name(id=name):
                yield imported.get(name, name)


def _reached(name: str, names: dict[str, set[str]]) -> set[str]:
    """A function and those that it calls, directly or through each other; names: what each of them calls."""
    reached, waiting = {name}, [name]
    while waiting:
        new = (names[waiting.pop()] & names.keys()) - reached
        reached |= new
        waiting += new
    return reached


def _operations() -> dict[str, str]:
    """The import path of each operation of `Ops`, by its name: what the interface imports, that of V4.1 included."""
    files = (SOURCE / "dsv4" / "ops" / f"{name}.py" for name in ("interface", "interface41"))
    bodies = [ast.parse(file.read_text(encoding="utf-8")).body for file in files]
    modules = [node for body in bodies for node in body if isinstance(node, ast.ImportFrom)]
    return {name.name: f"{node.module}.{name.name}" for node in modules for name in node.names}


def _mutants():
    """The catalogue of mutants, which lies among the tests."""
    if str(TESTS) not in sys.path:
        sys.path.append(str(TESTS))
    from mutants.catalogue import MUTANTS

    return MUTANTS


_OPERATIONS = _operations()


def page(functions: list[Function]) -> str:
    """The index as a page: a table by number, one by section of V4.1's report, then a part for each function."""
    rows = ["| eq. | report | what it says | computed by |", "|---:|---|---|---|"]
    for number, (section, content) in EQUATIONS.items():
        found = ", ".join(f"[`{one.name}`](#{one.name.lower()})" for one in functions if number in one.equations)
        rows.append(f'| <span id="eq-{number}">{number}</span> | {section} | {content} | {found} |')
    rows41 = ["| section | what it is about | computed by |", "|---|---|---|"]
    for section, content in SECTIONS_41.items():
        found = ", ".join(f"[`{one.name}`](#{one.name.lower()})" for one in functions if section in one.sections)
        rows41.append(f'| <span id="{_anchor(section)}">{section}</span> | {content} | {found} |')
    by_number = sorted(functions, key=lambda one: (not one.equations, one.equations, one.sections, one.path))
    tables = [INTRODUCTION, "\n".join(rows), INTRODUCTION_41, "\n".join(rows41)]
    return "\n\n".join([*tables, "## By function", *map(_section, by_number)]) + "\n"


INTRODUCTION = """# Equations

The numbered equations of the report's architecture, the functions that compute them, and the tests that check these
functions. Each number leads to the functions, and each function leads back to its numbers and on to its tests.

This page is made from the code (`python docs/equations.py`). A function belongs to the equations that its docstring
cites, and a test to the functions that it calls by name. A test marked ● is known to fail when a mistake is made in the
function or its private helpers: the [mutants](mutants.md) do that. CI fails if an equation has no function, or no test
marked ●. The equations are paraphrased here. Where the released code differs from an equation, the function follows the
code, and [Report and code](report-and-code.md) says how."""


INTRODUCTION_41 = """## V4.1's report

The report of V4.1 (arXiv 2609.19969) counts its equations anew. Here it goes by section, for what V4.1 changed in the
model; the rest is V4's, and so are its numbers above."""


def _anchor(section: str) -> str:
    return f"v41-{section[1:].replace('.', '-')}"


def _section(function: Function) -> str:
    numbers = ", ".join(f"[{number}](#eq-{number})" for number in function.equations)
    of_v41 = ", ".join(f"[{section}](#{_anchor(section)})" for section in function.sections)
    cites = [f"eq. {numbers}"] * bool(numbers) + [f"V4.1's report {of_v41}"] * bool(of_v41)
    source = f"[`{function.name}`](../ref/dsv4/{function.file}) in `ref/dsv4/{function.file}`"
    tests = [
        f"- [`{test.name}`](../tests/{test.file}) in `tests/{test.file}`{' ●' if proven else ''}"
        for test, proven in function.tests.items()
    ]
    return "\n\n".join([f"### {function.name}", " · ".join([source, *cites]), "\n".join(tests)])


if __name__ == "__main__":
    PAGE.write_text(page(index()), encoding="utf-8")
