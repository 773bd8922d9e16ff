"""The links of the pages: where each leads for a reader of the repository, and where on the site.

Pages link to files as they lie in the repository, so that every link works where the pages are read as files:
[test_mhc.py](../tests/ops/test_mhc.py), or with the name of what is meant, [`sinkhorn`](../ref/dsv4/ops/mhc.py). On the
site a name leads to its description on a page of the API, or to its line on the page that shows the file.
"""

import ast
import os
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent

_CODE_BLOCK = re.compile(r"^( *)(```+|~~~+).*?^\1\2`*~* *$", re.MULTILINE | re.DOTALL)
_INLINE_CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)")
_LINK = re.compile(r"\[(?P<text>[^\[\]]*)\]\((?P<path>[^()#\s]*)(?P<anchor>#[^()\s]*)?\)")
_BY_NAME = re.compile(r"\[(?P<text>[^\[\]]+)\]\[(?P<name>[^\[\]]*)\]")
_NAME = re.compile(r"`(\w+(?:\.\w+)*)`")
_PICTURE = re.compile(
    r'<picture>\s*<source media="\(prefers-color-scheme: dark\)" srcset="(?P<dark>[^"]+)">'
    r'\s*<img alt="(?P<alt>[^"]*)" src="(?P<light>[^"]+)">\s*</picture>'
)


class BrokenLinkError(ValueError):
    """A link that leads to nothing."""


@dataclass(frozen=True)
class Link:
    """A link of a page: [text](path#anchor)."""

    text: str
    path: str
    """Relative to the page; empty for an anchor of the page itself."""
    anchor: str
    """With its "#", or empty."""
    span: tuple[int, int]
    """Where path and anchor stand in the page."""

    @property
    def is_relative(self) -> bool:
        return not re.match(r"\w+:", self.path)

    @property
    def name(self) -> str | None:
        """What the link is about in a Python file: a class, function or method; None where the text is no name."""
        found = _NAME.fullmatch(self.text)
        return found[1] if found and not found[1].endswith(".py") else None


def links(markdown: str) -> Iterator[Link]:
    """The links of a page but those within code.

    Raises BrokenLinkError for a link that is written in another way than [text](path#anchor), such as [text][name],
    which only the site would know.
    """
    prose = _without_code(markdown)
    if by_name := _BY_NAME.search(prose):
        raise BrokenLinkError(f"{by_name[0]} is no link in the repository: link to the file")
    matches = list(_LINK.finditer(prose))
    if len(matches) != prose.count("]("):
        others = _LINK.sub("", prose)
        line = next(line for line in others.splitlines() if "](" in line)
        raise BrokenLinkError(f"expected links as [text](path#anchor), found: {line.strip()}")
    for match in matches:
        yield Link(match["text"], match["path"], match["anchor"] or "", (match.start("path"), match.end() - 1))


def headings(markdown: str) -> set[str]:
    """The anchors of a page: its headings, in the spelling that repository views and the site share, and its ids."""
    prose = _CODE_BLOCK.sub("", markdown)
    titles = [title.replace("`", "") for title in re.findall(r"^#+ +(.*?) *$", prose, re.MULTILINE)]
    slugs = [re.sub(r"[^\w\- ]", "", re.sub(r"\[(.*?)\]\(.*?\)", r"\1", title).lower()) for title in titles]
    return {slug.replace(" ", "-") for slug in slugs} | set(re.findall(r'<\w+ id="([^"]+)"', prose))


def holds_nothing(markdown: str) -> bool:
    """Whether a reader of the file finds only headings, and directives for what the build of the site puts there."""
    prose = re.sub(r"\A---\n.*?\n---\n", "", markdown, flags=re.DOTALL)
    return not re.search(r"^(?!#|:::|    |\s*$).", prose, re.MULTILINE)


def resolve(page: Path, link: Link) -> Path:
    """The file or directory that a relative link of a page means.

    Raises BrokenLinkError where a reader of the repository would find nothing: no file, no heading for the anchor, no
    such name in a Python file, or a Markdown page without anything to read.
    """
    path = Path(os.path.normpath(page.parent / link.path)) if link.path else page
    where = f"{page.relative_to(ROOT).as_posix()}: the link [{link.text}]({link.path}{link.anchor})"
    if not path.is_relative_to(ROOT) or not path.exists():
        raise BrokenLinkError(f"{where} leads to nothing")
    if path.suffix == ".md":
        text = path.read_text(encoding="utf-8")
        if holds_nothing(text):
            raise BrokenLinkError(f"{where} leads to a page that is empty in the repository")
        if link.anchor and link.anchor[1:] not in headings(text):
            raise BrokenLinkError(f"{where} leads to no heading")
    elif link.anchor:
        raise BrokenLinkError(f"{where} has an anchor in a file that is no page")
    if path.suffix == ".py" and link.name and line_of(path, link.name) is None:
        raise BrokenLinkError(f"{where} leads to a file that does not define {link.name}")
    return path


def line_of(path: Path, name: str) -> int | None:
    """The line of a class, function or method in a Python file, or None."""
    node: ast.AST = _parsed(path.read_text(encoding="utf-8"))
    for part in name.split("."):
        inside = (one for one in ast.iter_child_nodes(node) if getattr(one, "name", None) == part)
        found = next(inside, None)
        if found is None:
            return None
        node = found
    return node.lineno


def on_site(page: Path, link: Link, api: dict[str, str]) -> str:
    """Path and anchor of a relative link of a page on the site; api: the page of each module of the API.

    Raises BrokenLinkError as `resolve` does.
    """
    path = resolve(page, link)
    if not link.path:
        return link.anchor
    uri, anchor = uri_of(path), link.anchor
    if path.suffix == ".py" and link.name:
        module = _module(path)
        if module in api:
            uri, anchor = api[module], f"#{module}.{link.name}"
        else:
            anchor = f"#__codelineno-0-{line_of(path, link.name)}"
    return posixpath.relpath(uri, posixpath.dirname(uri_of(page)) or ".") + anchor


def pictures_on_site(markdown: str) -> str:
    """A page whose pictures follow the scheme that a reader chooses on the site, and not only that of the system.

    Repository views take the dark or the light file of a <picture> by the system's scheme; the site's theme shows an
    image that ends in #only-light or #only-dark in that scheme alone.
    """
    return _PICTURE.sub(r"![\g<alt>](\g<light>#only-light)![\g<alt>](\g<dark>#only-dark)", markdown)


def is_of_site(path: Path) -> bool:
    """Whether the site takes a file as it is: all of docs/ but the code that builds it."""
    return path.is_relative_to(DOCS) and path.is_file() and path.suffix != ".py"


def uri_of(path: Path) -> str:
    """Where the site shows a file or directory, relative to its top."""
    return path.relative_to(DOCS).as_posix() if is_of_site(path) else source_uri(path.relative_to(ROOT))


def source_uri(path: Path) -> str:
    """The page of the site that shows a file or directory of the repository. The site takes no hidden files."""
    shown = path.as_posix().replace("/.", "/").removeprefix(".")
    return f"source/{shown}{'/index' if (ROOT / path).is_dir() else ''}.md"


def api_pages() -> dict[str, str]:
    """The page, relative to docs/, of each module that a page of the API describes."""
    pages = sorted((DOCS / "api").glob("*.md"))
    found = ((page, re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE)) for page in pages)
    return {module: page.relative_to(DOCS).as_posix() for page, modules in found for module in modules}


_parsed = lru_cache(ast.parse)


def _module(path: Path) -> str:
    """The name to import a file of the reference by."""
    inside = path.relative_to(ROOT / "ref") if path.is_relative_to(ROOT / "ref") else path.relative_to(ROOT)
    return ".".join(inside.with_suffix("").parts).removesuffix(".__init__")


def _without_code(markdown: str) -> str:
    """The page with blanks in the place of code blocks, and of inline code that might look like a link."""

    def blank(code: re.Match[str]) -> str:
        return re.sub(r"[^\n]", " ", code[0])

    prose = _CODE_BLOCK.sub(blank, markdown)
    return _INLINE_CODE.sub(lambda code: blank(code) if set("[]") & set(code[0]) else code[0], prose)
