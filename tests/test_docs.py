"""The documentation keeps its word: the equations' index is complete, examples give what they show, links lead on."""

import ast
import doctest
import importlib.util
import json
import re
import sys
import warnings
from pathlib import Path

import pytest

from dsv4.checkpoint import read_config
from dsv4.parameters import parameters
from dsv4.presets import preset

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
GLOSSARY = (DOCS / "glossary.md").read_text(encoding="utf-8")
TERMS = (
    *("entry", "window", "sink", "stream", "latent", "compressor", "indexer", "comb", "pre", "post", "draft", "mtp"),
    *("dspark", "ring", "markov-head", "confidence-head"),
    *("golden", "roof", "verdict", "mutant", "oracle", "stage", "shard", "fake-quantisation", "kv-cache", "perplexity"),
)
EXAMPLES = [page for page in PAGES if "```pycon\n" in page.read_text(encoding="utf-8")]


def load(name):
    """A module of docs/, by itself: nothing is left on the path."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where its dataclasses look for it
    spec.loader.exec_module(module)
    return module


links = load("links")


@pytest.fixture(scope="module")
def equations():
    return load("equations")


@pytest.fixture(scope="module")
def functions(equations):
    return equations.index()


@pytest.mark.parametrize("number", range(1, 29))
def test_every_equation_has_a_function_and_a_test_that_fails_without_it(equations, functions, number):
    citing = [function for function in functions if number in function.equations]
    assert citing, f"no docstring of a public function cites equation {number}"
    proven = [test for function in citing for test, fails in function.tests.items() if fails]
    assert proven, f"no mutant of a function that cites equation {number} is killed by a test"


@pytest.mark.parametrize("section", ["§2.3.1", "§2.3.2", "§2.4.1", "§2.4.2", "§2.4.4"])
def test_every_section_of_v41s_report_has_a_function_and_a_test_that_fails_without_it(equations, functions, section):
    assert section in equations.SECTIONS_41
    citing = [function for function in functions if section in function.sections]
    assert citing, f"no docstring of a public function cites V4.1's report {section}"
    proven = [test for function in citing for test, fails in function.tests.items() if fails]
    assert proven, f"no mutant of a function that cites V4.1's report {section} is killed by a test"


def test_the_stored_index_is_that_of_the_code(equations, functions):
    assert equations.PAGE.read_text(encoding="utf-8") == equations.page(functions), "run: python docs/equations.py"


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


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("Source: V4.1's report §2.4.2; code: Engram", ["§2.4.2"]),
        ("Source: V4.1's\n    report §2.3.2, §2.3.1; code", ["§2.3.1", "§2.3.2"]),
        ("Source: report §2.3.1; V4.1's report §2.1", []),
    ],
)
def test_citations_of_v41s_report_are_read(equations, docstring, expected):
    assert equations.cited_41(docstring) == expected


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
        name for name in modules if not name.startswith(("dsv4_accel.bench", "dsv4.cli", "dsv4.__main__"))
    } == shown - packages


def undocumented(node, name):
    """The public functions, classes and methods in a part of a module that have no docstring; overloads have none."""
    for part in node.body:
        if isinstance(part, ast.FunctionDef) and "overload" in map(ast.unparse, part.decorator_list):
            continue
        if isinstance(part, ast.FunctionDef | ast.ClassDef) and not part.name.startswith("_"):
            if not ast.get_docstring(part):
                yield f"{name}.{part.name}"
            yield from undocumented(part, f"{name}.{part.name}") if isinstance(part, ast.ClassDef) else ()


def test_whatever_is_public_has_a_docstring():
    """The API's pages leave out the others."""
    modules = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "ref/dsv4").rglob("*.py"))}
    assert [name for path, module in modules.items() for name in undocumented(module, path.stem)] == []


def test_every_module_of_the_api_leads_to_its_file():
    """For readers of the repository, where the directive shows nothing."""
    text = "\n".join(page.read_text("utf-8") for page in sorted((DOCS / "api").glob("*.md")))
    led = re.findall(r"^## (\S+)\n\n\[`(ref/\S+)`\]\(../../(\S+)\)$", text, re.MULTILINE)
    assert [module for module, *_ in led] == re.findall(r"^::: (\S+)$", text, re.MULTILINE)
    for module, name, file in led:
        assert name == file
        assert module.replace(".", "/") == file.removeprefix("ref/").removesuffix(".py").removesuffix("/__init__")


def test_the_table_of_cache_sizes_is_that_of_the_code():
    sizes = load("cache_sizes")
    assert sizes.PAGE.read_text(encoding="utf-8") == sizes.page(), "run: python docs/cache_sizes.py"
    assert set(sizes.CONTEXTS.values()) == {4096, 16384, 65536, 200_000, 2**20}
    assert sizes.table().count("\n") == 1 + len(sizes.CONTEXTS)


SEARCHED = {
    "perplexity": ["glossary.md", "verification.md"],
    "inverse RoPE": ["concepts/rope-windows-sinks.md", "glossary.md"],
    "200k": ["cost.md"],
    "quantization error": ["concepts/number-formats.md", "glossary.md"],
    "KV cache size": ["cost.md", "concepts/cache.md"],
}
"""What people type into the site's search, and the pages that should come up: the search goes by a page's words."""


@pytest.mark.parametrize("words", SEARCHED)
def test_what_people_search_for_is_on_the_page_that_answers(words):
    for page in SEARCHED[words]:
        text = " ".join((DOCS / page).read_text(encoding="utf-8").split())
        assert words.lower() in re.sub(r"\[(.*?)\]\(.*?\)", r"\1", text).lower(), page


def test_the_glossary_names_tensors_that_exist():
    rows = [line.split(" | ") for line in GLOSSARY.splitlines() if line.startswith("| <span")]
    cells = [row[3] for row in rows if len(row) == 5]
    named = {name for cell in cells for name in re.findall(r"`([a-z]\w*(?:\.\w+)*)`", cell)}
    with_dspark = read_config(ROOT / "tests/data/configs/deepseek-v4-pro-0813.json")
    tensors = parameters(preset("pro")) | parameters(with_dspark)
    known = [f".{name}".removesuffix(".weight") for name in tensors]
    assert len(named) > 20
    assert [name for name in named if not any(one.endswith(f".{name.removesuffix('.weight')}") for one in known)] == []


@pytest.mark.parametrize("term", TERMS)
def test_the_glossary_has_the_words_of_the_pages(term):
    assert f'<span id="{term}"></span>' in GLOSSARY


@pytest.mark.parametrize("page", sorted((DOCS / "concepts").glob("*.md")), ids=lambda page: page.stem)
def test_each_concept_leads_to_the_glossary(page):
    assert page.stem == "chat-format" or "../glossary.md#" in page.read_text(encoding="utf-8")


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / ".mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    listed = re.findall(r"(\S+\.md)$", navigation, re.MULTILINE)
    assert sorted(listed) == [page.relative_to(DOCS).as_posix() for page in PAGES]


MARKDOWN = [
    *sorted(ROOT.glob("*.md")),
    *(page for top in ("docs", "notebooks", "ref", "accel", "tests") for page in sorted((ROOT / top).rglob("*.md"))),
]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def prose(page):
    """What a reader of the repository sees of a page, as Markdown: of a notebook, its text and what cells displayed."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".md":
        return text
    cells = json.loads(text)["cells"]
    shown = [
        output["data"].get("text/markdown", "")
        for cell in cells
        for output in cell.get("outputs", [])
        if "data" in output
    ]
    return "\n\n".join(
        ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"] + ["".join(one) for one in shown]
    )


@pytest.mark.parametrize("page", [*MARKDOWN, *NOTEBOOKS], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_to_something_to_read(page):
    for link in links.links(prose(page)):
        if link.is_relative:
            links.resolve(page, link)


QUESTIONS = {
    "Where is the visibility rule, and its code?": ("docs/concepts/csa.md", "visible to query", "Span.visible"),
    "Why is the output rotated back?": ("docs/concepts/rope-windows-sinks.md", "rotated back", "absolute positions"),
    "Which file has Sinkhorn, with how many rounds?": ("docs/concepts/hyper-connections.md", "20 rounds", "ops/mhc.py"),
    "How do I check a CUDA kernel?": ("docs/check-your-kernel.md", "CUDA", "dsv4.check("),
    "How do I load safetensors?": ("docs/checkpoints.md", "safetensors", "Checkpoint.open("),
    "What does FP4 cost in quality?": ("docs/concepts/number-formats.md", "FP4", "perplexity", "0.5 %"),
    "How large is Flash's cache at 200k tokens?": ("docs/cost.md", "| 200k |", "711 MB"),
    "How is a tool call encoded?": ("docs/chat.md#tools", "tool_calls", "｜DSML｜invoke"),
    "How do I add a backend?": ("docs/extending.md#a-backend", "class FastOps(Ops)", "dsv4.ops"),
    "How do I write logits for comparison?": ("docs/porting.md#logits", "dsv4 logits MODEL"),
}
"""What people ask, the page that answers, and words of it: one click from where readers begin, and two to the code."""


def answer(target):
    """What stands at a path#heading: the section, or the whole page."""
    path, _, anchor = target.partition("#")
    text = (ROOT / path).read_text(encoding="utf-8")
    if not anchor:
        return text
    sections = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    return next(section for section in sections if anchor in links.headings(section))


@pytest.mark.parametrize("start", ["README.md", "docs/index.md"])
@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_is_answered_one_click_from_where_readers_begin(question, start):
    target, *words = QUESTIONS[question]
    led = [link for link in links.links(prose(ROOT / start)) if link.is_relative]
    files = [(links.resolve(ROOT / start, link).relative_to(ROOT).as_posix(), link.anchor) for link in led]
    assert target in {one for file, anchor in files for one in (file, file + anchor)}
    assert [word for word in words if word not in answer(target)] == []


@pytest.mark.parametrize(
    ("page", "file", "name"),
    [
        ("docs/concepts/csa.md", "ref/dsv4/model/span.py", "Span.visible"),
        ("docs/concepts/rope-windows-sinks.md", "ref/dsv4/ops/rope.py", "rope"),
        ("docs/concepts/hyper-connections.md", "ref/dsv4/ops/mhc.py", "sinkhorn"),
        ("docs/concepts/number-formats.md", "ref/dsv4/ops/quantise.py", "fake_quant_fp4"),
        ("docs/extending.md", "ref/dsv4/ops/interface.py", "Ops"),
    ],
)
def test_the_code_is_one_more_click_away(page, file, name):
    found = [link for link in links.links(prose(ROOT / page)) if link.name == name]
    assert {links.resolve(ROOT / page, link).relative_to(ROOT).as_posix() for link in found} == {file}


def test_a_notebook_is_rendered_as_it_is_read(tmp_path):
    pytest.importorskip("latex2mathml", reason="the documentation's packages are not installed (extra docs)")
    rendered = load("rendered")
    text = ["# A\n", "\n", "$a_1 * b$ and `$c$`\n", "\n", "$$\\frac{1}{2}$$"]
    drawn = {"output_type": "display_data", "data": {"text/html": ["<img>"], "text/plain": ["<Figure>"]}}
    listing = ["<samp>\n", "\n", "```python\n", "x = '$'\n", "```\n", "\n", "</samp>"]
    shown = {"output_type": "display_data", "data": {"text/markdown": listing, "text/plain": ["<Markdown>"]}}
    printed = {"output_type": "stream", "text": ["1\n", "2\n"]}
    cells = [
        {"cell_type": "markdown", "source": text},
        {"cell_type": "code", "source": ["draw()"], "metadata": {"tags": ["hide-input"]}, "outputs": [drawn]},
        {"cell_type": "code", "source": ["print(1)"], "metadata": {}, "outputs": [printed, shown]},
    ]
    (tmp_path / "a.ipynb").write_text(json.dumps({"cells": cells}), encoding="utf-8")
    found = rendered.rendered(tmp_path / "a.ipynb")
    assert found.count("<math") == 2
    assert "<span><math" in found
    assert "`$c$`" in found
    assert "<mfrac>" in found
    assert "_1" not in found
    assert '<details markdown="1"><summary>Code</summary>\n\n~~~~~~ python\ndraw()\n~~~~~~\n\n</details>' in found
    assert "<div><img></div>" in found
    assert "~~~~~~ text\n1\n2\n~~~~~~" in found
    assert found.endswith("```python\nx = '$'\n```\n\n\n\n</div>")
    assert '\n\n<div class="output" markdown="1">\n\n' in found


def test_what_only_the_site_has_stands_at_its_marks():
    site_only = load("site_only")
    marks = f"a\n\n{site_only.SAMPLE_MARK}\n\n{site_only.HOSTED_MARK}\n"
    bare = site_only.put_in(marks, "../", None, ROOT / "notebooks")
    assert bare == "a\n\n[Open the sample page](../sample.html){ .md-button }\n\n\n"
    hosted = site_only.put_in(marks, "", "https://example.org/us/dsv4", ROOT / "notebooks")
    found = re.findall(r"^- \[(.+)\]\((.+)\)$", hosted, re.MULTILINE)
    assert len(found) == len(NOTEBOOKS)
    start = "https://mybinder.org/v2/git/https%3A%2F%2Fexample.org%2Fus%2Fdsv4/HEAD?urlpath=lab/tree/notebooks/"
    assert [link for _, link in found] == [start + notebook.name for notebook in NOTEBOOKS]


def test_the_marks_of_the_site_stand_on_its_pages():
    site_only = load("site_only")
    for mark in (site_only.SAMPLE_MARK, site_only.HOSTED_MARK):
        assert any(mark in page.read_text(encoding="utf-8") for page in PAGES)


@pytest.mark.parametrize("page", [*MARKDOWN, *NOTEBOOKS], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_name_is_read_as_bold_type(page):
    """Outside code, __init__ is shown as a bold "init"."""
    without_code = re.sub(r"```.*?```|`[^`]*`", "", prose(page), flags=re.DOTALL)
    assert re.findall(r"\S*__\w+?__\S*", re.sub(r"\]\(.*?\)", "", without_code)) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_a_list_begins_after_an_empty_line_or_a_heading(page):
    """Elsewhere it is a list for readers of the repository, and a run of hyphens on the site."""
    without_code = re.sub(r"```.*?```", "`code`", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert re.findall(r"^(?!#| |[-*] |\d+\. ).+\n(?:[-*]|\d+\.) .*", without_code, re.MULTILINE) == []


def test_links_are_found_where_there_are_many():
    found = {page: len(list(links.links(prose(page)))) for page in [*MARKDOWN, *NOTEBOOKS]}
    assert found[ROOT / "README.md"] > 20
    assert found[DOCS / "equations.md"] > 100
    assert all(found[page] for page in [*NOTEBOOKS, *(DOCS / "api").glob("*.md"), *(DOCS / "concepts").glob("*.md")])


@pytest.fixture
def page(tmp_path, monkeypatch):
    """A page docs/page.md of a small repository, with what it may link to."""
    monkeypatch.setattr(links, "ROOT", tmp_path)
    monkeypatch.setattr(links, "DOCS", tmp_path / "docs")
    files = {
        "docs/page.md": "# A page\n\nText.",
        "docs/other.md": '# Other\n\n## Both `a` and b_c: α!\n\n<span id="eq-1">1</span>\n\n```\n# no heading\n```\n',
        "docs/api/stub.md": "---\nhide: [toc]\n---\n# Stub\n\n::: dsv4.ops.mhc\n    options:\n      heading_level: 3\n",
        "docs/hooks.py": "def on_files(): ...\n",
        "ref/dsv4/ops/mhc.py": "X = 1\n\n\ndef sinkhorn(): ...\n\n\nclass A:\n    def f(self): ...\n",
        "tests/test_a.py": "def test_a(): ...\n",
        ".hidden.yml": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path / "docs" / "page.md"


@pytest.mark.parametrize(
    ("markdown", "site"),
    [
        ("[other](other.md)", "other.md"),
        ("[other](other.md#both-a-and-b_c-α)", "other.md#both-a-and-b_c-α"),
        ("[1](other.md#eq-1)", "other.md#eq-1"),
        ("[here](#a-page)", "#a-page"),
        ("[`sinkhorn`](../ref/dsv4/ops/mhc.py)", "api/stub.md#dsv4.ops.mhc.sinkhorn"),
        ("[`A.f`](../ref/dsv4/ops/mhc.py)", "api/stub.md#dsv4.ops.mhc.A.f"),
        ("[mhc.py](../ref/dsv4/ops/mhc.py)", "source/ref/dsv4/ops/mhc.py.md"),
        ("[`mhc.py`](../ref/dsv4/ops/mhc.py)", "source/ref/dsv4/ops/mhc.py.md"),
        ("[`test_a`](../tests/test_a.py)", "source/tests/test_a.py.md#__codelineno-0-1"),
        ("[tests](../tests)", "source/tests/index.md"),
        ("[the build](hooks.py)", "source/docs/hooks.py.md"),
        ("[settings](../.hidden.yml)", "source/hidden.yml.md"),
    ],
)
def test_a_link_leads_on_in_the_repository_and_on_the_site(page, markdown, site):
    (link,) = links.links(markdown)
    assert markdown[slice(*link.span)] == link.path + link.anchor
    assert links.on_site(page, link, links.api_pages()) == site


@pytest.mark.parametrize(
    ("markdown", "complaint"),
    [
        ("[gone](gone.md)", "leads to nothing"),
        ("[gone](../ref/gone.py)", "leads to nothing"),
        ("[outside](../../other/README.md)", "leads to nothing"),
        ("[gone](other.md#gone)", "leads to no heading"),
        ("[gone](other.md#no-heading)", "leads to no heading"),
        ("[here](#gone)", "leads to no heading"),
        ("[stub](api/stub.md)", "empty in the repository"),
        ("[`sinkhorn`](api/stub.md#dsv4.ops.mhc.sinkhorn)", "empty in the repository"),
        ("[`gone`](../ref/dsv4/ops/mhc.py)", "does not define gone"),
        ("[`A.gone`](../ref/dsv4/ops/mhc.py)", "does not define A.gone"),
        ("[`sinkhorn`](../ref/dsv4/ops/mhc.py#L4)", "anchor in a file that is no page"),
        ("[`sinkhorn`][dsv4.ops.mhc.sinkhorn]", "is no link in the repository"),
        ('[titled](other.md "a title")', "expected links as"),
        ("[a [nested] one](other.md)", "expected links as"),
    ],
)
def test_a_broken_link_is_refused_in_the_repository_and_on_the_site(page, markdown, complaint):
    for follow in (links.resolve, lambda page, link: links.on_site(page, link, links.api_pages())):
        with pytest.raises(links.BrokenLinkError, match=complaint):
            for link in links.links(markdown):
                follow(page, link)


def test_a_picture_follows_the_scheme_of_the_site():
    picture = (
        '<picture>\n  <source media="(prefers-color-scheme: dark)" srcset="p/a-dark.svg">\n'
        '  <img alt="What is seen." src="p/a-light.svg">\n</picture>'
    )
    light, dark = "![What is seen.](p/a-light.svg#only-light)", "![What is seen.](p/a-dark.svg#only-dark)"
    assert links.pictures_on_site(f"Before.\n\n{picture}\n\nAfter.") == f"Before.\n\n{light}{dark}\n\nAfter."


@pytest.mark.parametrize(
    ("markdown", "found"),
    [
        ("[a](b.md), [`c`](d.py), [`e`](f.py)", ["b.md", "d.py", "f.py"]),
        ("`x[i](y)` and [a](b.md) and ``[`z`](y)``", ["b.md"]),
        ("```python\nx[i](y)\n```\n[a](b.md)\n\n    ~~~~\n    [c](d)\n    ~~~~\n", ["b.md"]),
        ("over [a\nline](b.md)", ["b.md"]),
        ("![a picture](b.png) [far](https://example.org/x)", ["b.png", "https://example.org/x"]),
    ],
)
def test_links_are_told_from_code(markdown, found):
    assert [link.path for link in links.links(markdown)] == found
