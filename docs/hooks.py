"""What the build of the site adds: the page of the equations, and a page for each source file that a page links to.

Pages link to sources as they lie in the repository ([test_mhc.py](../tests/ops/test_mhc.py)), so that the links work
where the pages are read as files. On the site each such link leads to a page that shows the file. A link to a file that
is not there fails the build.
"""

import os
import posixpath
import re
import sys
from pathlib import Path

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path.insert(0, str(DOCS))

import equations  # noqa: E402

PAGE = "equations.md"
_CODE_LINE = re.compile(r'id="(__codelineno-\d+-\d+)"')
_LINK = re.compile(r"(?<=\]\()(?P<target>\.\./[^)#\s]*)(?P<anchor>#[^)\s]*)?(?=\))")


def on_files(files, config):
    """Add the generated pages to those that lie in docs/."""
    files.append(File.generated(config, PAGE, content=equations_page()))
    shown = {path for file in files.documentation_pages() for path in _linked(file.src_uri, file.content_string)}
    while shown:
        path = shown.pop()
        uri = _uri(path)
        if uri not in files.src_uris:
            content, more = _source_page(path)
            files.append(File.generated(config, uri, content=content))
            shown |= more
    return files


def on_page_markdown(markdown, page, **_):
    """Lead links to sources to the pages that show them."""

    def lead(match):
        path = _outside(page.file.src_uri, match["target"])
        if path is None:
            return match[0]
        return _relative(page.file.src_uri, path) + (match["anchor"] or "")

    return _LINK.sub(lead, markdown)


def on_page_content(html, page, **_):
    """Let the build know of the anchors of code lines, so that it can check the links to them."""
    page.present_anchor_ids |= set(_CODE_LINE.findall(html))
    return html


def equations_page() -> str:
    """The index of the equations as a page: one table by number, then one section for each function."""
    functions = equations.index()
    rows = ["| eq. | report | what it says | computed by |", "|---:|---|---|---|"]
    for number, (section, content) in equations.EQUATIONS.items():
        found = ", ".join(f"[`{one.name}`](#{_anchor(one)})" for one in functions if number in one.equations)
        rows.append(f'| <span id="eq-{number}">{number}</span> | {section} | {content} | {found} |')
    sections = [_section(one) for one in sorted(functions, key=lambda one: (one.equations, one.path))]
    return "\n\n".join([INTRODUCTION, "\n".join(rows), "## By function", *sections]) + "\n"


INTRODUCTION = """# Equations

The numbered equations of the report's architecture, the functions that compute them, and the tests that hold these
functions. Each number leads to the functions, each function back to its numbers and on to its tests.

This page is made from the code at each build: a function computes what its docstring cites; a test holds what it calls
by name. A test marked ● is known to fail when a mistake is put into the function or its private helpers: the
[mutants](mutants.md) do that. CI fails when an equation has no function, or no test marked ●. What the numbers say is
given in this project's words and letters; where the released code differs from an equation, the function follows the
code, and [Report and code](report-and-code.md) says how."""


def _section(function: equations.Function) -> str:
    numbers = ", ".join(f"[{number}](#eq-{number})" for number in function.equations)
    lines = [f"### {function.name} {{#{_anchor(function)}}}", f"[`{function.path}`][{function.path}] · eq. {numbers}"]
    tests = []
    for test, proven in function.tests.items():
        target = f"../tests/{test.file}#__codelineno-0-{test.line}"
        tests.append(f"- [`{test.name}`]({target}) in `tests/{test.file}`{' ●' if proven else ''}")
    return "\n\n".join([*lines, "\n".join(tests)])


def _anchor(function: equations.Function) -> str:
    return function.path.replace(".", "-")


def _linked(uri: str, markdown: str) -> set[Path]:
    """The files outside docs/ that a page links to."""
    return {path for match in _LINK.finditer(markdown) if (path := _outside(uri, match["target"]))}


def _outside(uri: str, target: str) -> Path | None:
    """The file outside docs/ that a link means, below the repository; None for a page of docs/."""
    path = Path(os.path.normpath(DOCS / posixpath.dirname(uri) / target))
    if path.is_relative_to(DOCS):
        return None
    if not path.exists() or not path.is_relative_to(ROOT):
        raise PluginError(f"{uri}: the link {target} leads to nothing")
    return path.relative_to(ROOT)


def _uri(path: Path) -> str:
    return f"source/{path.as_posix()}{'/index' if (ROOT / path).is_dir() else ''}.md"


def _relative(uri: str, path: Path) -> str:
    return posixpath.relpath(_uri(path), posixpath.dirname(uri))


def _source_page(path: Path) -> tuple[str, set[Path]]:
    """The page that shows a file or the content of a directory, and the files that it links to."""
    head = f"---\nsearch:\n  exclude: true\nhide: [navigation, toc]\n---\n# `{path.as_posix()}`\n\n"
    if (ROOT / path).is_dir():
        inside = sorted(one.relative_to(ROOT) for one in (ROOT / path).glob("*.py"))
        links = [f"- [`{one.name}`]({_relative(_uri(path), one)})" for one in inside]
        return head + "\n".join(links) + "\n", set(inside)
    language = {".py": "python", ".md": "markdown", ".toml": "toml"}.get(path.suffix, "text")
    text = (ROOT / path).read_text(encoding="utf-8")
    return f'{head}~~~~~~ {{.{language} linenums="1"}}\n{text}~~~~~~\n', set()
